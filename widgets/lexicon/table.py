"""The inspector's table: one page of the rows found, with buttons to turn it."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as w
import numpy as np

from ..common.panel import bar, button
from ..common.state import Query
from ..common.table import Column, RowTable
from .view import SORTS, WORST_MEANS, LexiconView
from .why import figure

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


class LexiconTable(w.VBox):
    """Pages through rows.

    Parameters
    ----------
    view : the lexicon
    on_row : called with the target id of a row that a person chooses
    on_heading : called with the order whose heading is pressed
    more : buttons behind the page turners
    """

    def __init__(
        self,
        view: LexiconView,
        on_row: Callable[[int], None],
        on_heading: Callable[[str], None],
        more: tuple[w.Button, ...] = (),
    ) -> None:
        self._view, self._on_row = view, on_row
        self.rows = np.zeros(0, dtype=np.int64)  # target ids of all rows found, in order
        self.page = 0
        self._query, self._chosen, self._marking = Query(), -1, False
        self.table = RowTable(COLUMNS)
        self.table.add_class("tl-lexicon-table")
        self.table.observe(self._on_chosen, names="chosen")
        self.table.on_heading = on_heading
        self._where = w.HTML()
        self._where.add_class("tl-where")
        self.turners = [
            button("First", lambda: self.go_to(0), "tl-first"),
            button("Previous", lambda: self.go_to(self.page - 1), "tl-previous"),
            button("Next", lambda: self.go_to(self.page + 1), "tl-next"),
            button("Last", lambda: self.go_to(10**9), "tl-last"),
        ]
        super().__init__([self.table, bar(*self.turners, self._where, *more)])

    def show(self, rows: np.ndarray, query: Query, page: int = 0) -> None:
        """Show these rows from this page on; `query` says in which order they are."""
        self.rows, self._query = rows, query
        self.go_to(page)

    def go_to(self, page: int) -> None:
        """Show this page of the rows found, counted from 0; beyond the end, the last."""
        last = max(0, (len(self.rows) - 1) // PAGE)
        self.page = min(max(page, 0), last)
        first, query = self.page * PAGE, self._query
        ids = self.rows[first : first + PAGE]
        with self.table.hold_sync():
            self.table.show(ids.tolist(), [self._cells(int(i)) for i in ids])
            meant = f" ({WORST_MEANS})" if query.sort == "worst" else ""
            self.table.caption = f"Lexicon rows, {SORTS[query.sort].lower()}{meant}{', reversed' * query.reverse}"
            self.table.sort = [query.sort, "down" if (query.sort in _FALLING) != query.reverse else "up"]
            self.mark(self._chosen)
        shown = f"Rows {first + 1:,} to {first + len(ids):,} of {len(self.rows):,} found" if len(ids) else (
            "No token fits this search; take a filter away or search for less."
        )  # fmt: skip
        self._where.value = f'<span role="status" aria-live="polite">{shown}</span>'
        at_start, at_end = self.page == 0, self.page == last
        for control, off in zip(self.turners, (at_start, at_start, at_end, at_end), strict=True):
            control.disabled = off

    def mark(self, target_id: int) -> None:
        """Mark the chosen row, -1 for none."""
        self._chosen = target_id
        self._marking = True  # the table reports what is set here as if it had been clicked
        try:
            self.table.chosen = target_id
        finally:
            self._marking = False

    def _on_chosen(self, change: dict[str, int]) -> None:
        if change["new"] >= 0 and not self._marking:
            self._on_row(change["new"])

    def _cells(self, i: int) -> list[str]:
        view = self._view
        return [
            str(i),
            view.labels.of("target", i),
            view.labels.of("source", int(view.source_of[i])) or "–",
            figure(view.score[i]),
            figure(view.margin[i]),
            str(view.origin.iat[i]),
            f"{view.count[i]:,}",
        ]
