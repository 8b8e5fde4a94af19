"""Plotly figures without widgets, for panels and the report; import these modules only to draw a figure."""

from tokalign_lab.errors import require_extra

require_extra("lab", "plotly", "A figure")
