"""What lies over and under the two clouds of the maps: density, marks, lines between partners.

Plain plotly, without widgets. The density is a picture of cells that hovering passes over. A line between partners
leaves its map, so it is drawn on the figure itself, in shares of the whole plot, and drawn anew when a map moves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from tokalign_lab.plots.maps import HIGHLIGHT, MapPoints, coordinates, maps_figure
from tokalign_lab.plots.theme import CONFIG
from tokalign_lab.widgets.map_colours import Shades
from tokalign_lab.widgets.map_view import CELLS, WHOLE, Window

CLOUDS, SELECTED, DENSITY, MARKED = (0, 1), (2, 3), (4, 5), (6, 7)  # traces: of the source, of the target
MARKS = {"pinned": ("star-open", "☆"), "found": ("circle-open", "○"), "worst": ("x-thin-open", "✕")}
INK = {"light": "#24292f", "dark": "#f0f0f0"}
FAINT = {"light": "87, 96, 106", "dark": "166, 173, 182"}
MOST_LINES = 200
# A double click and the last button show the whole map, whatever part of it the panel was opened with.
MAP_CONFIG: dict[str, Any] = CONFIG | {
    "doubleClick": "autosize",
    "modeBarButtons": [["zoom2d", "pan2d", "select2d", "lasso2d", "autoScale2d", "toImage"]],
    "scrollZoom": False,
}


def layered_figure(
    clouds: list[MapPoints], shades: Shades, names: tuple[str, str], windows: dict[str, Window], theme: str
) -> go.Figure:
    """`maps_figure` with density and marks; both axes of a map go from end to end of its window."""
    figure = maps_figure(clouds[0], clouds[1], names, theme=theme)
    for place, space in zip(CLOUDS, windows, strict=True):
        figure.data[place].marker = cloud_marker(shades, space)
    for column in (1, 2):
        figure.add_trace(
            go.Heatmap(z=[], showscale=False, hoverinfo="skip", zmin=0, zmax=255, name="density", zsmooth="fast"),
            row=1, col=column,
        )  # fmt: skip
    draw = type(figure.data[0])  # as the points are: plotly draws WebGL over SVG, whatever the order of the traces
    for column in (1, 2):
        figure.add_trace(
            draw(
                x=[], y=[], mode="markers", hoverinfo="skip", showlegend=False, name="marked",
                selected={"marker": {"opacity": 1}}, unselected={"marker": {"opacity": 1}},  # no box dims a sign
            ),
            row=1, col=column,
        )  # fmt: skip
    for axis, ends in axis_ranges(windows).items():
        low, high = WHOLE[:2]
        figure.layout[axis].update(
            range=ends, minallowed=low, maxallowed=high, autorangeoptions={"minallowed": low, "maxallowed": high}
        )
    return figure


def axis_ranges(windows: dict[str, Window]) -> dict[str, tuple[float, float]]:
    """Range of each of the four axes."""
    ranges = {}
    for number, window in zip(("", "2"), windows.values(), strict=True):
        ranges[f"xaxis{number}"], ranges[f"yaxis{number}"] = window[:2], window[2:]
    return ranges


def cloud_marker(shades: Shades, space: str) -> dict[str, Any]:
    """How the points of one map are drawn; the colour bar stands beside the target's."""
    bar = {"thickness": 10, "outlinewidth": 0, **(shades.bar or {})}
    return {
        "size": 5, "color": shades.codes[space].tolist(), "opacity": 0.75, "line": {"width": 0},
        "colorscale": shades.scale, "cmin": shades.span[0], "cmax": shades.span[1],
        "showscale": shades.bar is not None and space == "target", "colorbar": bar,
    }  # fmt: skip


def density_layer(heights: np.ndarray, window: Window, theme: str) -> dict[str, Any]:
    """One map's density, as updates of its trace."""
    x0, x1, y0, y1 = window
    dx, dy = (x1 - x0) / CELLS, (y1 - y0) / CELLS
    return {
        "z": heights.tolist() if heights.any() else [], "x0": x0 + dx / 2, "dx": dx, "y0": y0 + dy / 2, "dy": dy,
        "colorscale": density_scale(theme),
    }  # fmt: skip


def density_scale(theme: str) -> list[tuple[float, str]]:
    """From nothing to the page's faint ink; a single token can be seen already."""
    faint = FAINT[theme]
    return [(0.0, f"rgba({faint}, 0)"), (0.15, f"rgba({faint}, 0.3)"), (1.0, f"rgba({faint}, 0.75)")]


def marks(places: dict[str, np.ndarray], theme: str) -> dict[str, Any]:
    """Signs around the marked tokens of one map, as updates of its trace; `places` holds (n, 2) for each of `MARKS`."""
    xy = np.concatenate([places[kind] for kind in MARKS])
    symbols = [MARKS[kind][0] for kind in MARKS for _ in range(len(places[kind]))]
    points = MapPoints(np.arange(len(xy)), xy, [], [])
    return {
        **coordinates(points),
        "marker": {"symbol": symbols, "size": 11, "color": INK[theme], "line": {"width": 2, "color": INK[theme]}},
    }


def lines(segments: np.ndarray, figure: go.Figure, theme: str) -> list[dict[str, Any]]:
    """Return the lines between partners as one shape.

    Parameters
    ----------
    segments : float (n, 2, 2), from `MapView.segments`
    figure : whose axes say where the two maps are
    """
    if not len(segments):
        return []
    layout = figure.layout
    starts, ends = (
        np.array([x.domain[0], y.domain[0]]) + segments[:, side] * (np.ptp(x.domain), np.ptp(y.domain))
        for side, (x, y) in enumerate(((layout.xaxis, layout.yaxis), (layout.xaxis2, layout.yaxis2)))
    )
    path = "".join(
        f"M{a:.4f},{b:.4f}L{c:.4f},{d:.4f}" for (a, b), (c, d) in zip(starts.tolist(), ends.tolist(), strict=True)
    )
    width = 1.5 if len(segments) <= 25 else 0.75
    line = {"color": HIGHLIGHT[theme], "width": width}
    return [{"type": "path", "path": path, "xref": "paper", "yref": "paper", "line": line, "opacity": 0.7}]


def moved(windows: dict[str, Window], changes: dict[str, Any], linked: bool) -> dict[str, Window]:
    """Windows after what the browser says of its axes ("xaxis.range[0]", "yaxis2.autorange", ...).

    Where both maps have one frame (`linked`), what moves one moves the other.
    """
    after = dict(windows)
    for number, space in zip(("", "2"), windows, strict=True):
        new = list(windows[space])
        for letter, at in (("x", 0), ("y", 2)):
            names = [f"{letter}axis{number}"]
            if linked:
                names.append(f"{letter}axis{'' if number else '2'}")
            for axis in names:
                ends = _ends(axis, changes, WHOLE[at : at + 2])
                if ends is not None:
                    new[at : at + 2] = ends
                    break
        after[space] = (new[0], new[1], new[2], new[3])
    return after


def _ends(axis: str, changes: dict[str, Any], whole: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the ends of one axis, where the changes speak of it."""
    if changes.get(f"{axis}.autorange"):
        return whole[0], whole[1]
    given = changes.get(f"{axis}.range", [changes.get(f"{axis}.range[{i}]") for i in (0, 1)])
    if given is None or None in list(given):
        return None
    low, high = sorted(float(end) for end in given)
    return (low, high) if high > low else None
