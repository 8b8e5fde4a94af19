"""Plotly figures without widgets, for panels and the report; import a module only where a figure is drawn."""

from tokalign_lab.errors import require_extra

require_extra("lab", "plotly", "A figure")
