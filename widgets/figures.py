"""Plain plotly figures, without widgets: the panels show them live, the report prints them.

Each panel makes its figure once and changes it ever after: a FigureWidget brings five megabytes of JavaScript that the
browser evaluates anew for every figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tokalign_lab.widgets.run_view import RunView
from tokalign_lab.widgets.theme import template

# Okabe and Ito's palette, told apart by people who see colours differently, on white and on black.
ORIGIN_COLOURS = {
    "identical": "#3a8fd0", "role": "#a377d1", "aligned": "#1aa37d", "pieces": "#e08a1e", "mean": "#98a1aa",
    "random": "#dd5a50", "multivariate": "#dd5a50", "permuted": "#dd5a50", "edited": "#d26fa8", "hole": "#98a1aa",
}  # fmt: skip
NO_VALUE = "#98a1aa"
HIGHLIGHT = {"light": "#d0006f", "dark": "#ffd84d"}
MOST_CURVE_POINTS = 2000
MAP_HEIGHT, CURVE_HEIGHT = 460, 330
SVG_POINTS = 1500  # up to here SVG is as quick as WebGL, and sharper


@dataclass(frozen=True)
class MapPoints:
    """Points of one map: ids (n,), xy (n, 2), hover texts, and colours or names, one a point."""

    ids: np.ndarray
    xy: np.ndarray
    hover: Sequence[str]
    colour: Sequence[Any]


def maps_figure(source: MapPoints, target: MapPoints, names: tuple[str, str], theme: str = "light") -> go.Figure:
    """Two maps side by side: traces 0 and 1 are the clouds, 2 and 3 the highlighted tokens on top of them."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.03, subplot_titles=[escape(name) for name in names])
    draw = go.Scatter if max(len(source.ids), len(target.ids)) <= SVG_POINTS else go.Scattergl
    for column, points in enumerate((source, target), start=1):
        figure.add_trace(
            draw(
                **coordinates(points), text=list(points.hover), mode="markers", showlegend=False,
                hovertemplate="%{text}<extra></extra>", name=("source", "target")[column - 1],
                marker={"size": 5, "color": list(points.colour), "opacity": 0.75, "line": {"width": 0}},
                # plotly's own dimming is switched off: highlighting follows the lab's state, whoever changed it
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
    _titles_left(figure)
    figure.update_xaxes(showticklabels=False, zeroline=False)
    figure.update_yaxes(showticklabels=False, zeroline=False)
    figure.update_layout(
        template=template(theme), height=MAP_HEIGHT, margin={"l": 8, "r": 8, "t": 36, "b": 8}, dragmode="select",
        autosize=True,
        hovermode="closest", uirevision="maps",
    )  # fmt: skip
    return figure


def coordinates(points: MapPoints) -> dict[str, list[float]]:
    """Give x and y as plain lists.

    FigureWidget sends arrays as buffers, and a cloud so sent is lost when a trace changes before its first drawing.
    """
    rounded = points.xy if points.xy.dtype.kind == "i" else points.xy.astype(np.float64).round(4)
    return {"x": rounded[:, 0].tolist(), "y": rounded[:, 1].tolist()}


def _titles_left(figure: go.Figure) -> None:
    """Begin each plot's title at its left edge, out of the way of the buttons at the right."""
    for title, axis in zip(figure.layout.annotations, (figure.layout.xaxis, figure.layout.xaxis2), strict=True):
        title.update(x=axis.domain[0], xanchor="left", font={"size": 14})


def curves_figure(run: RunView, theme: str = "light") -> go.Figure:
    """Loss (trace 0, smoothed trace 1) and bits per byte (trace 2, the source model's floor trace 3) over steps."""
    figure = make_subplots(
        rows=1,
        cols=2,
        horizontal_spacing=0.09,
        subplot_titles=["Training loss (nats a token)", "Held-out text (bits a byte)"],
    )
    blue, orange, grey = "#3a8fd0", "#e08a1e", "#98a1aa"
    line = "%{fullData.name}: %{y:.3f} at step %{x}<extra></extra>"
    traces = [
        (go.Scatter(name="loss", mode="lines", line={"color": blue, "width": 1}, opacity=0.45), 1),
        (go.Scatter(name="loss, smoothed", mode="lines", line={"color": blue, "width": 2.5}), 1),
        (go.Scatter(name="bits a byte", mode="lines+markers", line={"color": orange, "width": 2.5}), 2),
        (go.Scatter(name="source model, own tokenizer", mode="lines", line={"color": grey, "dash": "dash"}), 2),
    ]  # fmt: skip
    for trace, column in traces:
        figure.add_trace(trace.update(hovertemplate=line), row=1, col=column)
    _titles_left(figure)
    figure.update_xaxes(title_text="step")
    figure.update_layout(
        template=template(theme), height=CURVE_HEIGHT, margin={"l": 8, "r": 8, "t": 36, "b": 8}, uirevision="curves",
        autosize=True,
        hovermode="closest", legend={"orientation": "h", "y": -0.22},
    )  # fmt: skip
    update_curves(figure, run, theme)
    return figure


def update_curves(figure: go.Figure, run: RunView, theme: str) -> None:
    """Put a run's present curves and stage bands into a figure made by `curves_figure`."""
    steps, losses = thinned(run.steps, run.losses)
    evaluated, bits = thinned(run.evaluated_at, run.bits_per_byte)
    last = max([run.total_steps, *run.steps[-1:], *run.evaluated_at[-1:], 1])
    floor = ([0, last], [run.floor] * 2) if run.floor is not None else ([], [])
    columns = [(steps, losses), (steps, smoothed(losses)), (evaluated, bits), floor]
    for trace, (x, y) in zip(figure.data, columns, strict=True):
        trace.update(x=np.asarray(x).tolist(), y=np.asarray(y).tolist())
    shapes, notes = stage_bands(run, theme)
    figure.layout.shapes = shapes
    figure.layout.annotations = (*figure.layout.annotations[:2], *notes)
    figure.update_xaxes(range=[-0.02 * last, 1.02 * last])


def stage_bands(run: RunView, theme: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a tinted band for each stage, with its name, in both plots."""
    shapes, notes = [], []
    tints = ("rgba(58,143,208,0.10)", "rgba(26,163,125,0.10)", "rgba(163,119,209,0.10)")
    for place, (name, start, end) in enumerate(run.stages):
        for axis in ("", "2"):
            shapes.append(
                {
                    "type": "rect", "xref": f"x{axis}", "yref": f"y{axis} domain", "x0": start, "x1": end,
                    "y0": 0, "y1": 1,
                    "fillcolor": tints[place % 3], "line": {"width": 0}, "layer": "below",
                }
            )  # fmt: skip
            notes.append(
                {
                    "xref": f"x{axis}", "yref": f"y{axis} domain", "x": (start + end) / 2, "y": 1, "text": name,
                    "showarrow": False, "yanchor": "top", "font": {"size": 11},
                }
            )  # fmt: skip
    return shapes, notes


def thinned(x: Sequence[float], y: Sequence[float], most: int = MOST_CURVE_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points of a curve: of each stretch its lowest and its highest, so that spikes stay visible."""
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(xs) <= most:
        return xs, ys
    chosen: list[int] = [0, len(xs) - 1]
    for stretch in np.array_split(np.arange(1, len(xs) - 1), (most - 2) // 2):
        chosen += [int(stretch[np.argmin(ys[stretch])]), int(stretch[np.argmax(ys[stretch])])]
    kept = np.unique(chosen)
    return xs[kept], ys[kept]


def smoothed(y: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Return a running mean over about a twenty-fifth of the curve, without looking ahead."""
    width = max(3, int(len(y) * share))
    if len(y) < 3:
        return y
    sums = np.cumsum(np.insert(y, 0, 0.0))
    at = np.arange(1, len(y) + 1)
    first = np.maximum(at - width, 0)
    return (sums[at] - sums[first]) / (at - first)
