"""Plotly figures without widgets, imported where one is drawn: the panels show them live, the report prints them."""

from tokalign_lab.errors import require_extra

require_extra("lab", "plotly", "A figure")
