"""The one figure of both maps: made once, changed ever after.

Drawing is asked for by callbacks and by threads, and plotly gathers changes in one place while it sends them; so one
lock lets only one of them draw. A cloud is sent by itself, which keeps every message well below a megabyte.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tokalign_lab.plots.maps import HIGHLIGHT, MapPoints, coordinates, maps_figure
from tokalign_lab.plots.theme import CONFIG, template

from ..common.state import SPACES
from .colours import Colouring, Shades
from .view import CELLS, WHOLE, MapView, Window
from .words import MapWords

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
    """Style of the points of one map; the colour bar is next to the target's."""
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
    """Windows after what the browser reports of its axes ("xaxis.range[0]", "yaxis2.autorange", ...).

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


MOST_NAMED = 25  # highlighted tokens that are written next to their points
MOST_HOVERED = 2000  # highlighted tokens that have a hover text of their own; others have that of their cloud
NOWHERE = {"x0": -1e6, "x1": -1e6, "y0": -1e6, "y1": -1e6}  # a box beyond the maps
Ids = Mapping[str, np.ndarray]


class MapFigure:
    """Draws what `MapView` chose.

    Parameters
    ----------
    points, words, colouring : where, what to say, which colour
    titles : of the two maps
    windows : part of each map that is in view
    linked : whether both maps have one frame
    colour_by : a name of `COLOURINGS`
    theme : "light" or "dark"
    """

    def __init__(
        self,
        points: MapView,
        words: MapWords,
        colouring: Colouring,
        titles: tuple[str, str],
        windows: dict[str, Window],
        linked: bool,
        colour_by: str,
        theme: str,
    ) -> None:
        self._points, self._words, self._colouring = points, words, colouring
        self._lock = threading.RLock()
        self._theme = theme
        self._marked: Mapping[str, Ids] = {}
        self._segments = np.zeros((0, 2, 2))
        self.windows, self.colour_by = windows, colour_by
        self.lit = {space: np.zeros(0, dtype=np.int64) for space in SPACES}
        self.shades = colouring.shades(colour_by, points.drawn, theme)
        clouds = [self._cloud(space) for space in SPACES]
        figure = layered_figure(clouds, self.shades, titles, windows, theme)
        self._link(figure, linked)
        for place, space in zip(DENSITY, SPACES, strict=True):
            figure.data[place].update(density_layer(points.density(space, windows[space]), windows[space], theme))
        self.widget = figure

    def to_widget(self) -> go.FigureWidget:
        """Make the widget, once, of the figure as it has been drawn so far: the browser then draws it in one go."""
        self.widget = go.FigureWidget(self.widget)
        self.widget._config = self.widget._config | MAP_CONFIG
        return self.widget

    def _cloud(self, space: str) -> MapPoints:
        ids = self._points.drawn[space]
        return MapPoints(ids, self._points.places_of(space, ids), self._words.hovers(space, ids), [])

    def draw(self) -> None:
        """Draw the clouds and what lies under them, as they are sampled now."""
        shades = self._colouring.shades(self.colour_by, self._points.drawn, self._theme)
        with self._lock:
            self.shades = shades
            for place, space in zip(CLOUDS, SPACES, strict=True):
                cloud = self._cloud(space)
                colours = cloud_marker(shades, space) | {"opacity": self.widget.data[place].marker.opacity}
                self.widget.data[place].update(coordinates(cloud), text=list(cloud.hover), marker=colours)
            for place, space in zip(DENSITY, SPACES, strict=True):
                window = self.windows[space]
                layer = density_layer(self._points.density(space, window), window, self._theme)
                self.widget.data[place].update(layer)

    def recolour(self) -> None:
        """Give the drawn tokens the colours they have now."""
        shades = self._colouring.shades(self.colour_by, self._points.drawn, self._theme)
        with self._lock:
            self.shades = shades
            for place, space in zip(CLOUDS, SPACES, strict=True):
                opacity = self.widget.data[place].marker.opacity
                self.widget.data[place].update(marker=cloud_marker(shades, space) | {"opacity": opacity})

    def light(self, ids: Ids) -> None:
        """Draw these tokens on top, and dim the clouds under them."""
        dimmed = any(len(some) for some in ids.values())
        seen = {"marker": {"opacity": 0.2 if dimmed else 0.75}}
        with self._lock:
            with self.widget.batch_update():  # one drawing for all: each costs the page as much as the whole map
                for place, cloud, space in zip(SELECTED, CLOUDS, SPACES, strict=True):
                    lit = self.lit[space] = self._points.placed(space, ids[space])
                    few = len(lit) <= MOST_HOVERED
                    names = [self._words.label(space, i) for i in lit.tolist()] if len(lit) <= MOST_NAMED else None
                    self.widget.data[place].update(
                        coordinates(MapPoints(lit, self._points.places_of(space, lit), [], [])),
                        text=names, customdata=self._words.hovers(space, lit) if few else None,
                        hoverinfo="all" if few else "skip", marker={"size": 9 if names is not None else 6},
                    )  # fmt: skip
                    # a box makes plotly use the other two, so that all three have to say the same
                    self.widget.data[cloud].update(seen | {"selected": seen, "unselected": seen})
            if not dimmed:
                self._wipe()

    def mark(self, marked: Mapping[str, Ids]) -> None:
        """Put signs around tokens; `marked` holds ids by space for each name of `MARKS`."""
        with self._lock:
            self._marked = marked
            for place, space in zip(MARKED, SPACES, strict=True):
                places = {
                    kind: self._points.places_of(space, self._points.placed(space, ids[space]))
                    for kind, ids in marked.items()
                }
                self.widget.data[place].update(marks(places, self._theme))

    def join(self, pairs: np.ndarray) -> int:
        """Draw lines between partners, int (n, 2) source and target ids; returns how many are in view."""
        with self._lock:
            self._segments = self._points.segments(self.windows, pairs)[:MOST_LINES]
            self.widget.layout.shapes = lines(self._segments, self.widget, self._theme)
            return len(self._segments)

    def look(self, windows: dict[str, Window], linked: bool) -> None:
        """Show this part of the maps."""
        with self._lock:
            with self.widget.batch_update():
                self.windows = windows
                self._link(self.widget, linked)
                for axis, ends in axis_ranges(windows).items():
                    self.widget.layout[axis].range = ends
            self._wipe()

    def _wipe(self) -> None:
        """Take boxes and lassos away; the page does not tell of those it drew, so one is put there to be removed."""
        if isinstance(self.widget, go.FigureWidget):
            self.widget.layout.selections = [NOWHERE]
            self.widget.layout.selections = ()

    def set_theme(self, theme: str) -> None:
        """Take the page's colours."""
        with self._lock:
            self._theme = theme
            with self.widget.batch_update():
                self.widget.layout.template = template(theme)
                for place in SELECTED:
                    self.widget.data[place].marker.color = HIGHLIGHT[theme]
                for place in DENSITY:
                    self.widget.data[place].colorscale = density_scale(theme)
            self.widget.layout.shapes = lines(self._segments, self.widget, theme)
            if self._marked:
                self.mark(self._marked)
            self.recolour()

    @staticmethod
    def _link(figure: Any, linked: bool) -> None:
        """Give both maps one frame where they have one layout, so that a place means the same on both."""
        figure.layout.xaxis2.matches = "x" if linked else None
        figure.layout.yaxis2.matches = "y" if linked else None
