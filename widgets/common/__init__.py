"""Parts that all panels use."""

from tokalign_lab.errors import require_extra

for _package in ("ipywidgets", "anywidget", "plotly"):  # each module of the panels imports this package first
    require_extra("lab", _package, "A panel")
