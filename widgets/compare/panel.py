"""Compare two lexicons or two runs: which tokens changed their partner, and which side scores higher.

A table lists the scores of all recipes for this pair; a button runs the missing recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd

from tokalign_lab.alignment.lexicon import ORIGINS, Lexicon
from tokalign_lab.evaluation.comparison import LexiconComparison, compare_lexicons
from tokalign_lab.evaluation.finding import MOST_IDS
from tokalign_lab.runs.results import measured_otherwise
from tokalign_lab.runs.words import fixed
from tokalign_lab.vocabulary import Vocabulary

from ..common.numbers import meanings, score_in, share
from ..common.panel import Panel, mark_of
from ..common.part import Folds, bar, html, shown
from ..common.state import LabState
from ..common.table import Column, Pages, RowTable
from ..lexicon.view import Labels, vocabularies_of
from .recipes import RecipesView
from .scores import CHANGE_NAMES, Comparable, DifferenceBox, Paired, Side, scores_html, slices_html, summary_html

PAGE = 15
SAME_RUN = (
    "<div class='tl-note' role='status'>A and B are the same, because this pair has no other alignment yet. Align it "
    "with another recipe (under Recipes), or on the tab Pair.</div>"
)
MOVED = ("changed", "gained", "lost")
COLUMNS = (
    Column("id", "Id", "id in the target vocabulary", numeric=True),
    Column("token", "Target token", "␣ is a space, ↵ a line end, <E4 BD> a part of a character", kind="token"),
    Column("change", "What changed", "The partner is the best source token of the row"),
    Column("a", "Partner in A", "The best source token of the row in A", kind="token"),
    Column("b", "Partner in B", "The best source token of the row in B", kind="token"),
    Column("score_a", "Score in A", "Scores of different recipes have different scales", True),
    Column("score_b", "Score in B", "Scores of different recipes have different scales", True),
    Column("origin_a", "Origin in A", "How A made the row; hover over a word", kind="origin", titles=ORIGINS),
    Column("origin_b", "Origin in B", "How B made the row; hover over a word", kind="origin", titles=ORIGINS),
    Column("frequency", "Times in text", "occurrences of the target token in the text", True),
)


class ComparePanel(Panel):
    """Compare two lexicons or runs of one pair.

    Parameters
    ----------
    left, right : A and B, each a `Lexicon`, its file, a `RunFolder` or its path
    source, target : the vocabularies, for readable labels; by default loaded by the names in the lexicon
    state : shared view
    runs : folder of the runs that "Recipes" lists; by default `runs_root()`
    on_align : called with the name of a recipe that the user wants to align the pair with
    show : initial filter of the table, "moved" or a name of `CHANGES`
    """

    def __init__(
        self,
        left: Comparable,
        right: Comparable,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        state: LabState | None = None,
        runs: Path | str | None = None,
        on_align: Callable[[str], Any] | None = None,
        show: str = "moved",
    ) -> None:
        super().__init__("Compare", "tl-compare", state)
        self._given: list[Comparable] = [left, right]
        self._vocabularies = (source, target)
        self.sides: list[Side] = []
        self.comparison: LexiconComparison | None = None
        self.paired: Paired | None = None
        self._labels: list[Labels] = []
        self._rows = pd.DataFrame()
        self.recipes = RecipesView(self.compare_with, on_align, runs)
        self.difference = DifferenceBox(self.lab_state, self._show_paired, runs)
        self._build(show)
        self._watch(lambda _change: self._mark(), "selection")
        self.refresh()

    def _build(self, show: str) -> None:
        self._summary, self._scores, self._slices, self._same = (html() for _ in range(4))
        self._which = self.menu(
            "Show", lambda _which: self._filter(), value=show,
            options=[("All changed partners", "moved"), *((words, change) for change, words in CHANGE_NAMES.items())],
            tooltip="Tokens in the list",
        )  # fmt: skip
        self.table = RowTable(COLUMNS, on_row=self.guarded(self._on_row))
        self._select = self.button(
            "Select all of these", self.select_shown,
            f"Select up to {MOST_IDS:,} of these tokens, to show them in the inspector and on the maps",
        )  # fmt: skip
        swap = self.button("Swap", self.swap, "Swap A and B")
        self._pages = Pages(self.table, PAGE, self._show_page, _where)
        self._tokens = w.VBox([bar(self._which, self._select), self._pages])
        self._tokens.layout.overflow = "visible"
        folds = Folds(
            {
                "Scores": ("scores of both with intervals, and by kind of text",
                           [self._scores, self.difference, self._slices]),
                "Recipes": ("all recipes for this pair, and a button to run the missing ones", [self.recipes]),
                "Details": ("counts by kind of change, meaning of the numbers",
                            [self._summary, html("", meanings(("moved", "moved_text", "difference")))]),
            }
        )  # fmt: skip
        shown(self._tokens, False)  # until both are loaded
        self._fill([self._head, bar(swap), folds, self._same, self._tokens], folds.row)

    @property
    def selection(self) -> pd.DataFrame:
        """The filtered rows of the comparison."""
        return self._rows

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the filter, and how many tokens changed in which way."""
        counts = self.comparison.counts if self.comparison is not None else {}
        return super().state | {"show": self._which.value, "page": self._pages.page, "counts": counts}

    def _call(self) -> list[str]:
        made = zip(("source", "target"), self._vocabularies, strict=True)
        return [
            *([side.code for side in self.sides] or ["left", "right"]),
            *(f"{side}={side}" for side, vocabulary in made if vocabulary is not None),
            *([f"runs={str(self.recipes.root)!r}"] if self.recipes.root is not None else []),
            *([f"show={self._which.value!r}"] if self._which.value != "moved" else []),
        ]

    def swap(self) -> None:
        """Swap A and B."""
        self._given.reverse()
        self.refresh()

    def compare_with(self, place: str, run: str) -> None:
        """Use a run as A ("a") or B ("b")."""
        self._given["ab".index(place)] = run
        self.refresh()

    def refresh(self) -> None:
        """Reload both and compare."""
        self.headline("Compare", "Loading both …")
        self.paired = None

        def work(_wanted: object) -> tuple[list[Side], LexiconComparison | None, list[Labels]]:
            sides = [Side.of(given, code) for given, code in zip(self._given, ("left", "right"), strict=True)]
            lexicons = [side.lexicon for side in sides if side.lexicon is not None]
            if len(lexicons) < 2:
                return sides, None, []
            found = compare_lexicons(lexicons[0], lexicons[1])
            return sides, found, [Labels(lexicon, *self._pair_of(lexicon)) for lexicon in lexicons]

        def show(found: tuple[list[Side], LexiconComparison | None, list[Labels]]) -> None:
            self.clear_error()
            self.sides, self.comparison, self._labels = found
            self._draw()

        self.newest(work, show, failed=lambda: self.headline("Compare", "These two cannot be compared."))

    def go_to(self, page: int) -> None:
        """Show this page of the tokens, counted from 0."""
        self._pages.show(range(len(self._rows)), page)
        self._select.disabled = not len(self._rows)

    def _show_page(self, places: range) -> None:
        rows = self._rows.iloc[places.start : places.stop]
        self.table.caption = f"Tokens: {self._which.label.lower()}, most used first"
        self.table.show(rows["target_id"].tolist(), [self._cells(row) for row in rows.to_dict("records")])
        self._mark()

    def select_shown(self) -> None:
        """Select the tokens of the filter, the most used first."""
        self.lab_state.select("target", self._rows["target_id"].iloc[:MOST_IDS].tolist(), by="compare")

    def _pair_of(self, lexicon: Lexicon) -> list[Vocabulary]:
        return [given or vocabularies_of(lexicon)[i] for i, given in enumerate(self._vocabularies)]

    def _show_paired(self, paired: Paired) -> None:
        self.paired = paired
        self._scores.value = scores_html(self.sides[0], self.sides[1], paired)
        self._write_head()

    def _write_head(self) -> None:
        a, b = self.sides
        title, found = f"Compare: A {a.name} with B {b.name}", self.comparison
        if found is None:
            self.headline(title, "These can be compared by bits per byte only; see Scores.")
            return
        total, text = sum(found.counts.values()) or 1, found.text_shares
        numbers = [("moved", share(sum(found.counts[name] for name in MOVED) / total))]
        if text is not None:
            numbers.append(("moved_text", share(sum(text[name] for name in MOVED))))
        pair = (self.paired or {}).get("bleu1", {}).get("target_to_source")
        before, after = (score_in(side.scores, "bleu1") for side in (a, b))
        if pair is not None:
            numbers.append(("difference", f"{pair.difference.mean:+.3f}"))
        elif before is not None and after is not None:
            numbers.append(("difference", f"{after['mean'] - before['mean']:+.3f}"))
        missing = "the interval of the difference" if numbers[-1][0] == "difference" else "the difference"
        judged = f"{missing} is not measured yet; see Scores" if pair is None else pair.verdict
        self.headline(
            title, f"B changes the partner of {numbers[0][1]} of the tokens. BLEU-1: {escape(judged)}.", numbers
        )

    def _draw(self) -> None:
        a, b = self.sides
        found = self.comparison
        self._write_head()
        one_run = len({side.run.path if side.run is not None else side.code for side in (a, b)}) == 1
        self._same.value = SAME_RUN * one_run
        self._summary.value = summary_html(found) if found is not None else ""
        shown(self._tokens, found is not None)
        self._scores.value = scores_html(a, b) if found is not None else ""
        runs = [side.run for side in (a, b) if side.run is not None]
        self.mark(mark_of(*runs))
        otherwise: Sequence[str] = measured_otherwise(*runs) if len(runs) == 2 else ()
        self._slices.value = slices_html(a, b, otherwise)
        self.difference.compare(a, b)
        if found is not None:
            self._filter()
            self.recipes.show(_name(a.lexicon, 0), _name(a.lexicon, 1), [side.run for side in (a, b)])
        elif not self._slices.value:
            self._same.value = (
                '<div class="tl-empty">These two cannot be compared: choose two lexicons, two align runs, or two runs '
                "that measured a model.</div>"
            )

    def _filter(self) -> None:
        if self.comparison is not None:
            table, which = self.comparison.table, self._which.value
            self._rows = table[table["change"].isin(MOVED if which == "moved" else (which,))]
            self.go_to(0)

    def _cells(self, row: Mapping[Any, Any]) -> list[str]:
        a, b = self._labels
        return [
            str(row["target_id"]),
            a.of("target", row["target_id"]),
            CHANGE_NAMES[row["change"]],
            a.of("source", row["partner_a"]),
            b.of("source", row["partner_b"]),
            fixed(row["score_a"]),
            fixed(row["score_b"]),
            row["origin_a"],
            row["origin_b"],
            f"{row['frequency']:,}",
        ]

    def _on_row(self, key: int) -> None:
        self.lab_state.select("target", [key], by="compare")

    def _mark(self) -> None:
        chosen = self.lab_state.selection
        self.table.chosen = chosen.ids[0] if chosen and chosen.space == "target" else -1


def _where(first: int, last: int, n: int) -> str:
    return f"Rows {first:,} to {last:,} of {n:,}" if n else "No token has this kind of change."


def _name(lexicon: Lexicon | None, side: int) -> str:
    return str(lexicon.provenance[("source", "target")[side]]["name"]) if lexicon is not None else ""
