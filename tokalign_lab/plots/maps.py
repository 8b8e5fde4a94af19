"""Both maps in one figure, and what every live figure needs.

Each panel makes its figure once and updates it: a FigureWidget brings five megabytes of JavaScript that the browser
evaluates again for every figure.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

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
HIGHLIGHT = {"light": "#d0006f", "dark": "#ffd84d"}
MAP_HEIGHT = 460
SVG_POINTS = 1500  # up to this number SVG is as fast as WebGL, and sharper


@dataclass(frozen=True)
class MapPoints:
    """Points of one map: ids (n,), xy (n, 2), and one hover text and one colour or name per point."""

    ids: np.ndarray
    xy: np.ndarray
    hover: Sequence[str]
    colour: Sequence[Any]


def maps_figure(source: MapPoints, target: MapPoints, names: tuple[str, str], theme: str = "light") -> go.Figure:
    """Draw two maps next to each other: traces 0 and 1 are the clouds, 2 and 3 the highlighted tokens on top."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.03, subplot_titles=[escape(name) for name in names])
    draw = go.Scatter if max(len(source.ids), len(target.ids)) <= SVG_POINTS else go.Scattergl
    for column, points in enumerate((source, target), start=1):
        figure.add_trace(
            draw(
                **coordinates(points), text=list(points.hover), mode="markers", showlegend=False,
                hovertemplate="%{text}<extra></extra>", name=("source", "target")[column - 1],
                marker={"size": 5, "color": list(points.colour), "opacity": 0.75, "line": {"width": 0}},
                # plotly's own dimming is switched off: highlighting follows the lab's state
                selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
            ), row=1, col=column,
        )  # fmt: skip
    for column in (1, 2):
        figure.add_trace(
            draw(
                x=[], y=[], text=[], customdata=[], mode="markers+text", textposition="top center", showlegend=False,
                hovertemplate="%{customdata}<extra></extra>", name="selected", textfont={"size": 12},
                marker={"size": 9, "symbol": "diamond", "color": HIGHLIGHT[theme], "line": {"width": 1}},
                selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},
            ), row=1, col=column,
        )  # fmt: skip
    titles_left(figure)
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    figure.update_layout(
        template=template(theme), height=MAP_HEIGHT, margin={"l": 8, "r": 8, "t": 36, "b": 8}, dragmode="select",
        autosize=True,
        hovermode="closest", uirevision="maps",
    )  # fmt: skip
    return figure


def warm_up() -> None:
    """Import what the first live figure needs, which takes two seconds; the lab calls this after its first panel."""
    importlib.import_module("plotly.graph_objs._figurewidget")


def coordinates(points: MapPoints) -> dict[str, list[float]]:
    """Return x and y as plain lists.

    FigureWidget sends arrays as buffers, and such a cloud is lost when a trace changes before its first drawing.
    """
    rounded = points.xy if points.xy.dtype.kind == "i" else points.xy.astype(np.float64).round(4)
    return {"x": rounded[:, 0].tolist(), "y": rounded[:, 1].tolist()}
