"""Both maps, drawn by jupyter-scatter, and a layer on top for lines, signs and labels, which it cannot draw.

Callbacks and threads draw at the same time, so a lock serialises them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
import numpy as np
import traitlets as t
from plotly.colors import convert_colors_to_same_type

from tokalign_lab.plots.maps import MAP_HEIGHT

from ..common.part import html
from ..common.state import SPACES, LabState
from .colours import Colouring
from .view import MapView
from .words import MapWords

HIGHLIGHT = {"light": "#d0006f", "dark": "#ffd84d"}
# Transparent, so that a map has the background of the page.
BACKGROUND = {"light": [1.0, 1.0, 1.0, 0.0], "dark": [0.1, 0.1, 0.1, 0.0]}
SIGNS = {"pinned": "☆", "found": "○", "worst": "✕"}
MOST_LINES = 200
MOST_NAMED = 25  # with at most this many highlighted tokens, their labels are drawn next to the points
DIMMED = 0.25  # opacity of all other points
WHOLE = (0.0, 0.0, 1.0)  # view of a whole map: x and y of its centre, from -1 to 1, and the distance of the camera
OPTIONS = {"deselectOnEscape": False, "pointOutlineWidth": 0, "pointSizeSelected": 0}  # Escape is JupyterLab's
FEW_LARGER = 5  # extra pixels of highlighted points, if at most MOST_NAMED are highlighted
# Without "reset": if a frame takes longer than its animation, the animation stops before the whole map is in view.
BUTTONS = ["lasso", "pan_zoom", "lasso_type", "divider", "download"]
Ids = Mapping[str, np.ndarray]
View = tuple[float, float, float]


class MapLayer(anywidget.AnyWidget):
    """Draws on top of both maps, and follows their pan and zoom.

    Attributes
    ----------
    lines : pairs of points to connect, each [source, target]
    signs, names : for each space, the texts to draw at points, each [point, text]
    pointer : space, index and HTML of the point under the pointer; {} for none
    codes, places : for each space, new colour codes as bytes of uint8 (n,) and new positions as bytes of
        float32 (n, 2); {} until they change
    views : part of each map that is in view, in the form of `WHOLE`
    highlight : CSS colour of the lines
    """

    _esm = Path(__file__).parent / "layer.js"
    lines: t.List[list[int]] = t.List().tag(sync=True)
    signs: t.Dict[str, Any] = t.Dict().tag(sync=True)
    names: t.Dict[str, Any] = t.Dict().tag(sync=True)
    pointer: t.Dict[str, Any] = t.Dict().tag(sync=True)
    codes: t.Dict[str, bytes] = t.Dict().tag(sync=True)
    places: t.Dict[str, bytes] = t.Dict().tag(sync=True)
    views: t.Dict[str, list[float]] = t.Dict().tag(sync=True)
    highlight = t.Unicode("").tag(sync=True)


class MapFigure:
    """Draws all points of a `MapView`.

    Parameters
    ----------
    points, words, colouring : positions, texts and colours of the points
    titles : titles of the two maps
    views : part of each map that is in view
    linked : whether both maps have one coordinate system, so that panning or zooming one moves the other
    state : the shared view, for its `colour_by` and `theme`

    Attributes
    ----------
    maps : jupyter-scatter's widget of each space
    highlighted : for each space, the highlighted points, uint32 (n,)
    """

    def __init__(
        self,
        points: MapView,
        words: MapWords,
        colouring: Colouring,
        titles: tuple[str, str],
        views: Mapping[str, View],
        linked: bool,
        state: LabState,
    ) -> None:
        self._points, self._words, self._colouring = points, words, colouring
        self._lock = threading.RLock()
        self._state = state
        self.highlighted: dict[str, np.ndarray] = {space: np.zeros(0, dtype=np.uint32) for space in SPACES}
        self.shades = colouring.shades(state.colour_by, state.theme)
        self._codes = self._coded()
        self.maps = {space: self._map(space) for space in SPACES}
        self.layer = MapLayer()
        self.layer.add_class("tl-map-layer")
        self._colour()
        self.show_views(views, linked)
        headings = [html("", f"<h4>{escape(title)}</h4>") for title in titles]
        sides = [w.VBox([heading, plot]) for heading, plot in zip(headings, self.maps.values(), strict=True)]
        self.widget = w.Box([*sides, self.layer])
        self.widget.add_class("tl-map-figure")

    def _map(self, space: str) -> Any:
        import jscatter  # imported here, because it takes a second and a lab may show no maps

        # Made with two points, because jupyter-scatter computes histograms and more, which our maps do not show.
        made = jscatter.Scatter(
            x=np.array([-1, 1]), y=np.array([-1, 1]), x_scale=(-1, 1), y_scale=(-1, 1), axes=False, reticle=False,
            height=MAP_HEIGHT, mouse_mode="lasso", lasso_type="rectangle", lasso_on_long_press=False, size=3,
            opacity_by="density", opacity_unselected=DIMMED,
        ).widget  # fmt: skip
        made.points = np.column_stack([self._points.xy[space], self.shades.codes[space]]).astype(np.float32)
        made.color_by, made.color_scale, made.color_domain = "valueA", "categorical", {}
        made.toolbar_buttons = BUTTONS
        made.regl_scatterplot_options = OPTIONS
        made.add_class(f"tl-map-{space}")
        return made

    def listen(
        self,
        on_pick: Callable[[str, list[int]], None],
        on_point: Callable[[str, int], None],
        on_views: Callable[[], None],
        guarded: Callable[..., Any],
    ) -> None:
        """Report the user's actions on the maps.

        Parameters
        ----------
        on_pick : called with space and token ids of a box, a lasso or a click; no ids if the selection was cleared
        on_point : called with space and id of the token under the pointer
        on_views : called when a map was moved
        guarded : wraps each callback
        """

        def picked(space: str, rows: np.ndarray) -> None:
            if rows is not self.highlighted[space]:  # else `highlight` selected them
                on_pick(space, self._points.vectors[space].ids[rows].tolist())

        def pointed(space: str, row: int | None) -> None:
            if row is None:
                self.layer.pointer = {}
                return
            token_id = int(self._points.vectors[space].ids[row])
            self.layer.pointer = {"space": space, "index": row, "text": self._words.hover(space, token_id)}
            on_point(space, token_id)

        for space, plot in self.maps.items():
            plot.observe(guarded(lambda change, space=space: picked(space, change["new"])), "selection")
            plot.observe(guarded(lambda change, space=space: pointed(space, change["new"])), "hovering")
        self.layer.observe(guarded(lambda _change: on_views()), "views")

    def highlight(self, ids: Ids) -> None:
        """Highlight these tokens, and dim all others."""
        names = {}
        with self._lock:
            for space, plot in self.maps.items():
                rows = self._points.points_of(space, ids[space]).astype(np.uint32)
                self.highlighted[space] = rows
                few = 0 < len(rows) <= MOST_NAMED
                with plot.hold_sync():  # one message, so that the page draws once
                    if not np.array_equal(np.sort(plot.selection), rows):  # else the user selected them on this map
                        plot.selection = rows
                    plot.regl_scatterplot_options = OPTIONS | {"pointSizeSelected": FEW_LARGER * few}
                token_ids = self._points.vectors[space].ids[rows].tolist() if few else []
                label = self._points.view.labels.of
                names[space] = [[row, label(space, i)] for row, i in zip(rows.tolist(), token_ids, strict=few)]
            self.layer.names = names

    def mark(self, marked: Mapping[str, Ids]) -> None:
        """Draw signs at tokens; `marked` holds ids by space for each name of `SIGNS`."""
        with self._lock:
            self.layer.signs = {
                space: [
                    [row, SIGNS[kind]]
                    for kind, ids in marked.items()
                    for row in self._points.points_of(space, ids[space]).tolist()
                ]
                for space in SPACES
            }

    def join(self, pairs: np.ndarray) -> int:
        """Draw lines between the partners in view; return the number of lines.

        `pairs` are source and target ids, int (n, 2).
        """
        with self._lock:
            lines = self._points.lines(pairs)
            for side, space in enumerate(SPACES):
                x, y, distance = self.layer.views[space]
                away = np.abs(self._points.xy[space][lines[:, side]] - (x, y)).max(axis=1)
                lines = lines[away <= distance]
            self.layer.lines = lines[:MOST_LINES].tolist()
            return len(self.layer.lines)

    def show_views(self, views: Mapping[str, View], linked: bool) -> None:
        """Show this part of the maps."""
        with self._lock:
            self.layer.views = {space: list(view) for space, view in views.items()}
            for plot in self.maps.values():
                plot.view_sync = self.layer.model_id if linked else None

    def move(self) -> None:
        """Move the points to their current positions in the `MapView`."""
        with self._lock:
            self.layer.places = {space: xy.tobytes() for space, xy in self._points.xy.items()}

    def recolour(self) -> None:
        """Give the points their current colours; discard the result if the colouring or the theme changed meanwhile."""
        wanted = self._state.colour_by, self._state.theme
        shades = self._colouring.shades(*wanted)
        with self._lock:
            if wanted != (self._state.colour_by, self._state.theme):
                return  # the code that changed it calls this again
            self.shades = shades
            self._colour()
            if (codes := self._coded()) != self._codes:
                self._codes = self.layer.codes = codes

    def _coded(self) -> dict[str, bytes]:
        return {space: codes.tobytes() for space, codes in self.shades.codes.items()}

    def _colour(self) -> None:
        palette = [[*colour, 1.0] for colour in convert_colors_to_same_type(self.shades.palette, colortype="tuple")[0]]
        theme = self._state.theme
        self.layer.highlight = HIGHLIGHT[theme]
        bright = convert_colors_to_same_type([HIGHLIGHT[theme]], colortype="tuple")[0][0]
        for plot in self.maps.values():
            with plot.hold_sync():
                plot.background_color = BACKGROUND[theme]
                plot.lasso_color = [*bright, 1.0]
                plot.color = palette
                # One entry for each colour of the palette, or else highlighted points keep their colour.
                plot.color_selected = plot.color_hover = [[*bright, 1.0]] * len(palette)
