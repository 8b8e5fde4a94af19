"""One page of a table whose rows stay in the kernel.

itables sends the whole frame and ipydatagrid is hardly maintained; a page of 25 rows as plain HTML needs neither. The
kernel pages, sorts and filters; a click, Enter or an arrow key in the browser chooses a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A column: its key in the data, its heading, what it means, and how a cell looks ("", "token", "origin")."""

    key: str
    label: str
    help: str = ""
    numeric: bool = False
    sortable: bool = False
    kind: str = ""


class RowTable(anywidget.AnyWidget):
    """A page of rows.

    Attributes
    ----------
    rows : list of {"key": int, "cells": list of str}
    chosen : key of the chosen row, -1 for none; set by a click, Enter or space
    sort : (column key, "up" or "down"), what the headings show
    on_heading : called with a column's key when its heading is pressed
    """

    _esm = _HERE / "row_table.js"
    columns = t.List().tag(sync=True)
    rows = t.List().tag(sync=True)
    chosen = t.Int(-1).tag(sync=True)
    sort = t.List(default_value=["", "up"]).tag(sync=True)
    caption = t.Unicode("").tag(sync=True)

    def __init__(self, columns: Sequence[Column], **values: Any) -> None:
        super().__init__(columns=[asdict(column) for column in columns], **values)
        self.on_heading: Callable[[str], None] | None = None
        self.on_msg(self._on_message)

    def _on_message(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if self.on_heading is not None and "pressed" in content:
            self.on_heading(str(content["pressed"]))

    def show(self, keys: Sequence[int], cells: Sequence[Sequence[str]]) -> None:
        """Put this page on the screen, in one message."""
        self.rows = [{"key": int(key), "cells": list(row)} for key, row in zip(keys, cells, strict=True)]
