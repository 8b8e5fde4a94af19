"""The controls of the maps; they change the shared state or call the panel, and follow the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from tokalign_lab.projection import METHODS

from ..common.part import Box, bar
from ..common.state import SPACES, LabState
from .colours import WORDS
from .figure import CLOUDS, SELECTED, MapFigure
from .view import MapView


class MapControls(Box):
    """Two bars of controls.

    Parameters
    ----------
    state : the shared view
    lay_out : called with a method's name
    on_layout, on_worst : called when the layout or the toggle for the worst tokens has changed
    one_space : whether one layout can hold both maps
    shared, worst : what they show at first
    """

    def __init__(
        self,
        state: LabState,
        lay_out: Callable[[str], None],
        on_layout: Callable[[], None],
        on_worst: Callable[[], None],
        one_space: bool,
        shared: bool,
        worst: bool,
    ) -> None:
        self._state = state
        self.colour = self.menu(
            "Colour by", "tl-colour-by", lambda by: setattr(state, "colour_by", by),
            options=[(name, key) for key, name in WORDS.items()], value=state.colour_by,
        )  # fmt: skip
        self.layouts = self.menu(
            "Layout", "tl-map-layout", lambda _shared: on_layout(), value=shared,
            options=[*([("One layout for both", True)] if one_space else []), ("Each map by itself", False)],
        )  # fmt: skip
        self.search = self.entry(
            "Search", "tl-map-search", self._on_search, value=state.query.text, continuous_update=False,
            placeholder="a token, then Enter",
        )  # fmt: skip
        self.worst = self.control(
            w.ToggleButton, "Mark the worst", "tl-map-worst", lambda _worst: on_worst(), value=worst,
            tooltip="The pairs of the lowest score",
        )  # fmt: skip
        self.worst.layout.width = "auto"
        self.methods = {
            name: self.button(f"Arrange by {name.upper()}", partial(lay_out, name), f"tl-{name}", METHODS[name])
            for name in ("pca", "umap")
        }
        clear = self.button("Clear selection", state.clear_selection, "tl-clear")
        super().__init__([bar(self.colour, self.layouts, *self.methods.values()), bar(self.search, self.worst, clear)])

    def _on_search(self, text: str) -> None:
        if text != self._state.query.text:
            self._state.query = replace(self._state.query, text=text)

    def follow_state(self) -> None:
        """Show what the state says."""
        with self.quiet():
            self.colour.value = self._state.colour_by
            self.search.value = self._state.query.text

    def arranged(self, method: str, shared: bool, busy: bool) -> None:
        """Switch off the button of what is shown already, and all while a layout is being fetched."""
        for name, control in self.methods.items():
            control.disabled = busy or (name == method and shared == self.layouts.value)


class MapPointer:
    """Tells of tokens what plotly tells of points.

    Parameters
    ----------
    points, drawing : what is drawn, in which order
    on_point : called with space and token id
    on_pick : called with space and token ids
    """

    def __init__(
        self,
        points: MapView,
        drawing: MapFigure,
        on_point: Callable[[str, int], None],
        on_pick: Callable[[str, list[int]], None],
    ) -> None:
        self._points, self._drawing = points, drawing
        self._on_point, self._on_pick = on_point, on_pick

    def listen(
        self,
        figure: go.FigureWidget,
        guarded: Callable[..., Any],
        clear: Callable[[], None],
        on_axes: Callable[..., None],
    ) -> None:
        """Follow a figure; `on_axes` is called with what its page says of the axes."""
        for places, lit in ((CLOUDS, False), (SELECTED, True)):
            for place, space in zip(places, SPACES, strict=True):
                trace = figure.data[place]
                trace.on_hover(guarded(lambda _t, at, _s, space=space, lit=lit: self._hovered(space, at, lit)))
                trace.on_click(guarded(lambda _t, at, _s, space=space, lit=lit: self._picked(space, at, lit)))
        for place, space in zip(CLOUDS, SPACES, strict=True):
            cloud = figure.data[place]
            cloud.on_selection(guarded(lambda _t, at, _box, space=space: self._picked(space, at, False)))
            cloud.on_deselect(guarded(lambda _trace, _points: clear()))
        # plotly tells layout callbacks of a double click only once; what the browser sends tells of each
        told = guarded(lambda change: on_axes((change["new"] or {}).get("relayout_data") or {}))
        figure.observe(told, names="_js2py_relayout")

    def _ids_at(self, space: str, points: Any, lit: bool) -> list[int]:
        ids = self._drawing.lit[space] if lit else self._points.drawn[space]
        return [int(ids[i]) for i in points.point_inds if i < len(ids)]

    def _hovered(self, space: str, points: Any, lit: bool) -> None:
        for token_id in self._ids_at(space, points, lit)[:1]:
            self._on_point(space, token_id)

    def _picked(self, space: str, points: Any, lit: bool) -> None:
        ids = self._ids_at(space, points, lit)
        if ids:
            self._on_pick(space, ids)
