"""The lexicon inspector: scores, search, filters, a paged table, and why each pair is what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from tokalign_lab.alignment.lexicon import ORIGINS, Lexicon
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets.background import Latest, submit
from tokalign_lab.widgets.lexicon_view import SORTS, Labels, LexiconView
from tokalign_lab.widgets.panel import Panel, bar, button
from tokalign_lab.widgets.query import Query
from tokalign_lab.widgets.row_table import Column, RowTable
from tokalign_lab.widgets.scores import cards_html, origins_html, score_cards
from tokalign_lab.widgets.state import LabState

PAGE = 15
MOST_SELECTED = 2000  # rows that one press sends to the maps
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


class LexiconPanel(Panel):
    """Inspect a lexicon.

    Parameters
    ----------
    lexicon : the lexicon to show
    source, target : its vocabularies, for readable labels; without them the tokenizers' own strings are shown
    scores : figures to head the panel with, `LexiconScores.to_dict()` or an align run's scores.json
    state : shared view
    view : a `LexiconView` that another panel has made already
    """

    def __init__(
        self,
        lexicon: Lexicon,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        scores: Mapping[str, Any] | None = None,
        state: LabState | None = None,
        view: LexiconView | None = None,
    ) -> None:
        super().__init__("Lexicon inspector", "tl-lexicon", state)
        self.lexicon = lexicon
        self.view = view or LexiconView(lexicon, Labels(lexicon, source, target))
        self._rows = np.zeros(0, dtype=np.int64)
        self._page = 0
        self._latest = Latest()
        self._repainting = False
        self._build(scores)
        self._watch(self._on_selection, "selection")
        self._watch(self._on_query, "query")
        self.refresh()
        submit(self.guarded(self.view.prepare))  # so that the first search does not wait for it

    def _build(self, scores: Mapping[str, Any] | None) -> None:
        names = self.lexicon.provenance
        title = f"{names['source']['name']} → {names['target']['name']}"
        head = w.HTML(
            f"<h3>Lexicon: {escape(title)}</h3><div class='tl-note'>recipe “{escape(str(names['recipe']))}”, "
            f"{len(self.lexicon):,} target tokens, learned from {names.get('text_bytes', 0) / 1e6:.2f} MB of text</div>"
            + cards_html(score_cards(self.view, scores))
            + origins_html(self.view.origin_counts)
        )
        self._search = w.Text(
            value=self.query.text, placeholder="Find a token: the, 東京, <0x0A> …", description="Search",
            continuous_update=True,
        )  # fmt: skip
        self._search.add_class("tl-search")
        self._regex = w.Checkbox(value=self.query.regex, description="Regular expression", indent=False)
        self._regex.layout.width = "auto"
        origins = [
            ("All origins", ""),
            *((f"{name} ({n:,})", name) for name, n in self.view.origin_counts.items()),
        ]
        origin = self.query.origin if self.query.origin in self.view.origin_counts else ""
        self._origin = w.Dropdown(options=origins, value=origin, description="Origin")
        self._origin.add_class("tl-origin-filter")
        self._sort = w.Dropdown(
            options=[(words, key) for key, words in SORTS.items()], value=self.query.sort, description="Order",
        )  # fmt: skip
        self._sort.add_class("tl-order")
        self.table = RowTable(COLUMNS)
        self.table.add_class("tl-lexicon-table")
        self._where = w.HTML()
        self._where.add_class("tl-where")
        self._pages = [
            button("First", lambda: self.go_to(0), "tl-first"),
            button("Previous", lambda: self.go_to(self._page - 1), "tl-previous"),
            button("Next", lambda: self.go_to(self._page + 1), "tl-next"),
            button("Last", lambda: self.go_to(10**9), "tl-last"),
        ]
        show = button(
            "Select all found",
            self.select_found,
            "tl-select-found",
            f"Select up to {MOST_SELECTED:,} rows on the maps",
        )
        self._why = w.HTML()
        self._why.add_class("tl-why")
        for control in (self._search, self._regex, self._origin, self._sort):
            control.observe(self.guarded(self._on_control), names="value")
        self.table.observe(self.guarded(self._on_row), names="chosen")
        self.table.on_heading = self.guarded(self.sort_by)
        body = w.HBox([w.VBox([self.table, bar(*self._pages, self._where, show)]), self._why])
        body.add_class("tl-split")
        self._fill([head, bar(self._search, self._regex, self._origin, self._sort), body])

    @property
    def query(self) -> Query:
        """What is asked for now."""
        return self.lab_state.query

    @property
    def selection(self) -> pd.DataFrame:
        """Lexicon rows of the selected tokens, whichever side they were selected on."""
        chosen = self.lab_state.selection
        ids = np.asarray(chosen.ids, dtype=np.int64)
        if chosen.space == "source":
            ids = self.view.partners("source", ids)
        return self.lexicon.table.iloc[ids[(ids >= 0) & (ids < len(self.lexicon))]]

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, and this table's page."""
        return super().state | {"page": self._page, "found": len(self._rows)}

    def refresh(self) -> None:
        """Run the query again and show its first page."""
        query = self.query

        def work(is_current: Any) -> None:
            try:
                rows = self.view.rows(query)
            except Exception as error:
                if is_current():
                    self.show_error(error)
                return
            if is_current() and not self.closed:
                self.clear_error()
                self._rows = rows
                self.go_to(0)
                self._show_why()

        self._latest.submit(work)

    def go_to(self, page: int) -> None:
        """Show this page of the rows found, counted from 0; beyond the end, the last."""
        last = max(0, (len(self._rows) - 1) // PAGE)
        self._page = min(max(page, 0), last)
        first = self._page * PAGE
        ids = self._rows[first : first + PAGE]
        with self.table.hold_sync():
            self.table.show(ids.tolist(), [self._cells(int(i)) for i in ids])
            query = self.query
            self.table.caption = f"Lexicon rows, {SORTS[query.sort].lower()}{', reversed' * query.reverse}"
            self.table.sort = [query.sort, "down" if (query.sort in _FALLING) != query.reverse else "up"]
            self._mark()
        shown = f"Rows {first + 1:,} to {first + len(ids):,} of {len(self._rows):,} found" if len(ids) else (
            "No token fits this search; take a filter away or search for less."
        )  # fmt: skip
        self._where.value = f'<span role="status" aria-live="polite">{shown}</span>'
        at_start, at_end = self._page == 0, self._page == last
        for control, off in zip(self._pages, (at_start, at_start, at_end, at_end), strict=True):
            control.disabled = off

    def sort_by(self, key: str) -> None:
        """Sort by this order (see `SORTS`); the same order again turns it around."""
        again = self.query.sort == key
        self.lab_state.query = replace(self.query, sort=key, reverse=again and not self.query.reverse)

    def select_found(self) -> None:
        """Select what the query found, so that the maps light up."""
        self.lab_state.select("target", self._rows[:MOST_SELECTED].tolist(), by="lexicon")

    def _cells(self, i: int) -> list[str]:
        view = self.view
        return [
            str(i),
            view.labels.of("target", i),
            view.labels.of("source", int(view.source_of[i])) or "–",
            _figure(view.score[i]),
            _figure(view.margin[i]),
            str(view.origin.iat[i]),
            f"{view.count[i]:,}",
        ]

    def _on_control(self, _change: Any) -> None:
        if self._repainting:
            return
        sort = self._sort.value
        self.lab_state.query = replace(
            self.query, text=self._search.value, regex=self._regex.value, origin=self._origin.value, sort=sort,
            reverse=self.query.reverse and sort == self.query.sort,
        )  # fmt: skip

    def _on_row(self, change: Any) -> None:
        if change["new"] >= 0 and not self._repainting:
            self.lab_state.select("target", [change["new"]], by="lexicon")

    def _on_selection(self, _change: Any) -> None:
        self._mark()
        self._show_why()

    def _on_query(self, _change: Any) -> None:
        query = self.query
        self._repainting = True
        try:
            self._search.value, self._regex.value, self._sort.value = query.text, query.regex, query.sort
            self._origin.value = query.origin if query.origin in self.view.origin_counts else ""
        finally:
            self._repainting = False
        self.refresh()

    def _chosen(self) -> int:
        rows = self.selection["target_id"]
        return int(rows.iat[0]) if len(rows) else -1

    def _mark(self) -> None:
        self._repainting = True  # the table reports what is set here as if it had been clicked
        try:
            self.table.chosen = self._chosen()
        finally:
            self._repainting = False

    def _show_why(self) -> None:
        chosen = self._chosen()
        self._why.value = (
            why_html(self.view.details(chosen))
            if chosen >= 0
            else '<div class="tl-empty">Choose a row to see why its pair was chosen: where it came from, the other '
            "candidates, and what the new embedding row is made of.</div>"
        )


def _figure(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def why_html(details: Mapping[str, Any]) -> str:
    """Why a target token got its source, as HTML; `details` is from `LexiconView.details`."""
    source = f'<span class="tl-token">{escape(details["source"])}</span>' if details["source"] else "no single token"
    parts = [
        f'<h4><span class="tl-token">{escape(details["target"])}</span> ← {source}</h4>',
        f'<p><span class="tl-origin tl-origin-{details["origin"]}">{details["origin"]}</span> '
        f"{escape(ORIGINS[details['origin']])}. Score {_figure(details['score'])}, margin "
        f"{_figure(details['margin'])}. The text uses the target token {details['target_count']:,} times, "
        f"its source {details['source_count']:,} times.</p>",
    ]
    if details["candidates"]:
        parts.append(_ranking("Candidates, best first", "score", details["candidates"]))
    apart = details["output_sources"] and details["output_sources"] != details["sources"]
    if details["sources"]:
        title = "The new input row is mixed from" if apart else "The new row is mixed from"
        parts.append(_ranking(title, "weight", details["sources"]))
        if apart:
            parts.append(_ranking("The new output row is mixed from", "weight", details["output_sources"]))
    else:
        parts.append("<p>The new row rests on no source token of its own.</p>")
    return "".join(parts)


def _ranking(title: str, measure: str, items: Sequence[tuple[int, str, float]]) -> str:
    longest = max((abs(value) for _, _, value in items), default=1.0) or 1.0
    lines = "".join(
        f'<tr><td><span class="tl-token">{escape(label)}</span></td><td class="tl-number">{value:.3f}</td>'
        f'<td class="tl-meter"><span style="width:{max(0.0, value) / longest:.0%}"></span></td></tr>'
        for _, label, value in items
    )
    return (
        f'<table class="tl-ranking"><caption>{title}</caption><thead class="tl-hidden"><tr><th>source token</th>'
        f"<th>{measure}</th><th>as a bar</th></tr></thead><tbody>{lines}</tbody></table>"
    )
