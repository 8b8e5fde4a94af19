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

from tokalign_lab.plots.maps import HIGHLIGHT, MapPoints, coordinates
from tokalign_lab.plots.theme import template
from tokalign_lab.widgets.map_colours import Colouring
from tokalign_lab.widgets.map_layers import (
    CLOUDS,
    DENSITY,
    MAP_CONFIG,
    MARKED,
    MOST_LINES,
    SELECTED,
    axis_ranges,
    cloud_marker,
    density_layer,
    density_scale,
    layered_figure,
    lines,
    marks,
)
from tokalign_lab.widgets.map_view import MapView, Window
from tokalign_lab.widgets.map_words import MapWords
from tokalign_lab.widgets.state import SPACES

MOST_NAMED = 25  # highlighted tokens that are written beside their points
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
        self._marked: dict[str, Ids] = {}
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

    def mark(self, marked: dict[str, Ids]) -> None:
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
