"""A table that shows one page of its rows, and the buttons that change the page.

The kernel holds all rows, sorts and filters them; the browser gets one page as plain HTML and reports the selected row.
itables would send all rows to the browser, and ipydatagrid is hardly maintained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as w
import traitlets as t

from .part import Box, bar, html

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A column: its key in the data, its heading, its tooltip, and the style of its cells ("", "token", "origin").

    A cell of a "token" column is the label of a token, drawn with a frame; "" means no token and is drawn as – without
    a frame. `titles` holds the tooltip of each value that has one.
    """

    key: str
    label: str
    help: str
    numeric: bool = False
    sortable: bool = False
    kind: str = ""
    titles: Mapping[str, str] = field(default_factory=dict)


class RowTable(anywidget.AnyWidget):
    """A page of rows.

    Attributes
    ----------
    rows : list of {"key": int, "cells": list of str}
    chosen : key of the selected row, -1 for none
    sort : (column key, "up" or "down"), as the headings show it
    on_row : called with the key of a clicked row, after it was selected
    on_heading : called with a column's key when its heading is clicked
    """

    _esm = _HERE / "table.js"
    columns: t.List[dict[str, Any]] = t.List().tag(sync=True)
    rows: t.List[dict[str, Any]] = t.List().tag(sync=True)
    chosen = t.Int(-1).tag(sync=True)
    sort: t.List[str] = t.List(default_value=["", "up"]).tag(sync=True)
    caption = t.Unicode("").tag(sync=True)

    def __init__(
        self, columns: Sequence[Column], hook: str = "", on_row: Callable[[int], Any] | None = None, **values: Any
    ) -> None:
        super().__init__(columns=[asdict(column) for column in columns], **values)
        if hook:
            self.add_class(hook)
        self.on_row = on_row
        self.on_heading: Callable[[str], Any] | None = None
        self.on_msg(self._on_message)

    def _on_message(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if "row" in content:
            self.press(int(content["row"]))
        elif self.on_heading is not None and "heading" in content:
            self.on_heading(str(content["heading"]))

    def press(self, key: int) -> None:
        """Simulate a click on this row."""
        self.chosen = key
        if self.on_row is not None:
            self.on_row(key)

    def show(self, keys: Sequence[int], cells: Sequence[Sequence[str]]) -> None:
        """Show this page, with one message to the browser."""
        self.rows = [{"key": int(key), "cells": list(row)} for key, row in zip(keys, cells, strict=True)]


class Pages(Box):
    """A table that pages through any sequence of items.

    Parameters
    ----------
    table : shows a page
    size : rows on a page
    draw : called with the items of a page; shows them in the table
    words : returns the text next to the buttons from the first and the last row of the page, from 1, and the row count
    before, after : controls in one line with the buttons
    ends : whether there are also buttons for the first and the last page
    """

    def __init__(
        self,
        table: RowTable,
        size: int,
        draw: Callable[[Any], Any],
        words: Callable[[int, int, int], str],
        before: Sequence[w.Widget] = (),
        after: Sequence[w.Widget] = (),
        ends: bool = False,
    ) -> None:
        self.table, self.page = table, 0
        self.items: Any = ()
        self._size, self._draw, self._words = size, draw, words
        self.where = html("tl-where")
        self.earlier = self.button("Previous", lambda: self.go_to(self.page - 1), "Previous page")
        self.later = self.button("Next", lambda: self.go_to(self.page + 1), "Next page")
        self._back, self._on = [self.earlier], [self.later]
        if ends:
            self._back.insert(0, self.button("First", lambda: self.go_to(0), "First page"))
            self._on.append(self.button("Last", lambda: self.go_to(10**9), "Last page"))
        super().__init__([table, bar(*before, *self._back, *self._on, self.where, *after)])

    def show(self, items: Any, page: int = 0) -> None:
        """Show this page of these items (a list, a range or an array)."""
        self.items = items
        self.go_to(page)

    @property
    def shown(self) -> Any:
        """Items on the page."""
        return self.items[self.page * self._size : (self.page + 1) * self._size]

    def go_to(self, page: int) -> None:
        """Show this page, counted from 0, or the last page if it is beyond the end; only changes are sent."""
        last = max(0, (len(self.items) - 1) // self._size)
        self.page = min(max(page, 0), last)
        first, shown = self.page * self._size, self.shown
        with self.table.hold_sync():
            self._draw(shown)
        words = self._words(first + 1, first + len(shown), len(self.items))
        self.where.value = f'<span role="status" aria-live="polite">{words}</span>'
        for control in self._back:
            control.disabled = self.page == 0
        for control in self._on:
            control.disabled = self.page == last
