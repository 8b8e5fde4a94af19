"""Parts that all panels use."""

from tokalign_lab.errors import require_extra

# Each module of the panels imports this package first.
for _package in ("ipywidgets", "anywidget", "plotly", "jscatter"):
    require_extra("lab", _package, "A panel")
