"""A table that shows one page of its rows, and the buttons that change the page.

The kernel holds all rows, sorts and filters them; the browser gets one page as plain HTML and reports the selected row.
itables would send all rows to the browser, and ipydatagrid is hardly maintained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import ipywidgets as w
import traitlets as t

from .part import Box, PressHtml, bar, html, token


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


class RowTable(PressHtml):
    """A page of rows.

    Attributes
    ----------
    rows : list of {"key": int, "cells": list of str}
    chosen : key of the selected row, -1 for none
    sort : (column key, "up" or "down"), as the headings show it
    on_row : called with the key of a clicked row, after it was selected
    on_heading : called with a column's key when its heading is clicked
    """

    rows: t.List[dict[str, Any]] = t.List()
    chosen = t.Int(-1)
    sort: t.List[str] = t.List(default_value=["", "up"])
    caption = t.Unicode("")

    def __init__(
        self, columns: Sequence[Column], hook: str = "", on_row: Callable[[int], Any] | None = None, caption: str = ""
    ) -> None:
        super().__init__(self._on_press)
        if hook:
            self.add_class(hook)
        self.columns, self.caption, self.on_row = columns, caption, on_row
        self.on_heading: Callable[[str], Any] | None = None
        self._drawing = threading.RLock()  # threads change the table too, and an older drawing must not come last
        self.observe(lambda _change: self._draw(), names=["rows", "chosen", "sort", "caption"])
        self._draw()

    def _on_press(self, pressed: str) -> None:
        what, _, key = pressed.partition(" ")
        if what == "row":
            self.press(int(key))
        elif self.on_heading is not None:
            self.on_heading(key)

    def press(self, key: int) -> None:
        """Simulate a click on this row."""
        self.chosen = key
        if self.on_row is not None:
            self.on_row(key)

    def show(self, keys: Sequence[int], cells: Sequence[Sequence[str]]) -> None:
        """Show this page."""
        self.rows = [{"key": int(key), "cells": list(row)} for key, row in zip(keys, cells, strict=True)]

    def _draw(self) -> None:
        with self._drawing:
            self.html = self._written()

    def _written(self) -> str:
        heads = "".join(map(self._heading, self.columns))
        lines = "".join(
            f'<tr tabindex="0" data-press="row {row["key"]}" aria-selected="{str(row["key"] == self.chosen).lower()}">'
            f"{''.join(map(_cell, self.columns, row['cells']))}</tr>"
            for row in self.rows
        )
        return (
            f'<div class="tl-table-scroll"><table class="tl-table"><caption>{escape(self.caption)}</caption>'
            f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
        )

    def _heading(self, column: Column) -> str:
        name, order = escape(column.label), ""
        if column.sortable:
            arrow, order = "", "none"
            if column.key == self.sort[0]:
                arrow, order = (" ▲", "ascending") if self.sort[1] == "up" else (" ▼", "descending")
            name = f'<button type="button" class="tl-sort" data-press="heading {column.key}">{name}{arrow}</button>'
        style = _NUMBER * column.numeric + f' aria-sort="{order}"' * bool(order)
        return f'<th scope="col" title="{escape(column.help)}"{style}>{name}</th>'


_NUMBER = ' class="tl-number"'


def _cell(column: Column, value: str) -> str:
    words = escape(value)
    if column.kind == "token":
        words = token(value) if value else "–"  # no frame, unlike a token whose label is –
    elif column.kind == "origin":
        words = f'<span class="tl-origin tl-origin-{words}">{words}</span>'
    title = f' title="{escape(column.titles[value])}"' if value in column.titles else ""
    return f"<td{_NUMBER * column.numeric}{title}>{words}</td>"


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
