"""What a person does on the figure: point at a token, click it, draw a box or a lasso, zoom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from tokalign_lab.widgets.map_figure import MapFigure
from tokalign_lab.widgets.map_layers import CLOUDS, SELECTED
from tokalign_lab.widgets.map_view import MapView
from tokalign_lab.widgets.state import SPACES


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
