"""The inspector's table: one page of the rows found, with buttons to turn it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as w
import numpy as np

from tokalign_lab.runs.words import fixed

from ..common.state import Query
from ..common.table import Column, Pages, RowTable
from .view import SORTS, WORST_MEANS, LexiconView

PAGE = 15
COLUMNS = (
    Column("id", "Id", "id in the target vocabulary", numeric=True, sortable=True),
    Column("target", "Target token", "␣ is a space, ↵ a line end, <E4 BD> a part of a character", kind="token"),
    Column("source", "Best source token", "the source token this one inherits most from", kind="token"),
    Column("best", "Score", "likeness of the two tokens, 1 for a copy; – where there is none", True, True),
    Column(
        "margin",
        "Margin",
        "how far the best candidate is ahead of the second; small means doubtful",
        True,
        True,
    ),
    Column("origin", "Origin", "why this pair: see the words above the table", kind="origin"),
    Column("frequency", "Times in text", "how often the text uses this target token", True, True),
)
_FALLING = ("best", "frequency")  # orders that begin with the largest figure


class LexiconTable(Pages):
    """Pages through rows.

    Parameters
    ----------
    view : the lexicon
    on_row : called with the target id of a row that a person presses
    on_heading : called with the order whose heading is pressed
    more : buttons behind the page turners
    """

    def __init__(
        self,
        view: LexiconView,
        on_row: Callable[[int], None],
        on_heading: Callable[[str], None],
        more: Sequence[w.Widget] = (),
    ) -> None:
        self._view, self._query = view, Query()
        table = RowTable(COLUMNS, "tl-lexicon-table", self.guarded(on_row))
        table.on_heading = self.guarded(on_heading)
        super().__init__(table, PAGE, self._draw_rows, _where, after=more, ends=True)
        self.items = np.zeros(0, dtype=np.int64)

    @property
    def rows(self) -> np.ndarray:
        """Target ids of all rows found, in order."""
        return np.asarray(self.items)

    def show_rows(self, rows: np.ndarray, query: Query, page: int = 0) -> None:
        """Show these rows from this page on; `query` says in which order they are."""
        self._query = query
        self.show(rows, page)

    def _draw_rows(self, ids: Sequence[int]) -> None:
        query = self._query
        self.table.show(ids, [self._cells(int(i)) for i in ids])
        meant = f" ({WORST_MEANS})" if query.sort == "worst" else ""
        self.table.caption = f"Lexicon rows, {SORTS[query.sort].lower()}{meant}{', reversed' * query.reverse}"
        self.table.sort = [query.sort, "down" if (query.sort in _FALLING) != query.reverse else "up"]

    def _cells(self, i: int) -> list[str]:
        view = self._view
        return [
            str(i),
            view.labels.of("target", i),
            view.labels.of("source", int(view.source_of[i])) or "–",
            fixed(view.score[i]),
            fixed(view.margin[i]),
            str(view.origin.iat[i]),
            f"{view.count[i]:,}",
        ]


def _where(first: int, last: int, n: int) -> str:
    if not n:
        return "No token fits this search; take a filter away or search for less."
    return f"Rows {first:,} to {last:,} of {n:,} found"
