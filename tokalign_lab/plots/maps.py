"""Both maps in one figure, for the report, and the colours of origins, also for the map panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tokalign_lab.plots.theme import template, titles_left

# Okabe and Ito's palette, distinct with colour-vision deficiency, on white and on black.
ORIGIN_COLOURS = {
    "identical": "#3a8fd0", "role": "#a377d1", "aligned": "#1aa37d", "pieces": "#e08a1e", "mean": "#98a1aa",
    "random": "#dd5a50", "multivariate": "#dd5a50", "permuted": "#dd5a50", "edited": "#d26fa8", "hole": "#98a1aa",
}  # fmt: skip
NO_VALUE = "#98a1aa"
MAP_HEIGHT = 400  # pixels


@dataclass(frozen=True)
class MapPoints:
    """Points of one map: xy (n, 2), and one hover text and one colour per point."""

    xy: np.ndarray
    hover: Sequence[str]
    colour: Sequence[str]


def maps_figure(source: MapPoints, target: MapPoints, names: tuple[str, str]) -> go.Figure:
    """Draw two maps next to each other."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.03, subplot_titles=[escape(name) for name in names])
    for column, points in enumerate((source, target), start=1):
        figure.add_trace(
            go.Scatter(
                x=points.xy[:, 0].round(4), y=points.xy[:, 1].round(4), text=list(points.hover), mode="markers",
                showlegend=False, hovertemplate="%{text}<extra></extra>", name=("source", "target")[column - 1],
                marker={"size": 5, "color": list(points.colour), "opacity": 0.75, "line": {"width": 0}},
            ), row=1, col=column,
        )  # fmt: skip
    titles_left(figure)
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    figure.update_layout(
        template=template("light"), height=MAP_HEIGHT, margin={"l": 8, "r": 8, "t": 36, "b": 8}, autosize=True,
        hovermode="closest",
    )  # fmt: skip
    return figure
