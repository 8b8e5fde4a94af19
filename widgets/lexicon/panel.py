"""The lexicon inspector: scores, search, filters, a table of pairs, an explanation of each pair, and edits by hand.

The panel connects its parts (filters, histogram, table, explanation, edits, scores, export). Each part shows the
`LexiconView` and reports user actions; the panel turns these into changes of the shared state.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits, apply_edits
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.runs.control import runs_root
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import scores_of
from tokalign_lab.settings.kinds import text_of
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

from ..common.background import submit
from ..common.numbers import meanings
from ..common.panel import Panel, mark_html
from ..common.part import Folds, html
from ..common.state import EVERYTHING, LabState, Query, Range
from .edits import EditBox, ExportBox
from .rows import NAMES, Histogram, LexiconFilters, LexiconTable
from .scores import FOUR, ScoreBox, lexicon_numbers, origins_html, score_table, verdict_html
from .view import Labels, LexiconView, opened, vocabularies_of, within
from .why import WhyBox

MOST_SELECTED = 2000  # rows that one click on "Select all found" selects
# Delay after a selection on the maps, so that they are drawn before the first explanation loads a tokenizer (seconds).
MAPS_DRAWN_S = 0.5
ROWS_DRAWN_S = 1.0  # delay before the search index is built, so that the page draws the first rows before


class LexiconPanel(Panel):
    """Inspect and correct a lexicon.

    `LexiconPanel.of_run(run)` fills in all other arguments; features that need a missing argument are disabled.

    Parameters
    ----------
    lexicon : the lexicon, as the recipe made it
    source, target : its vocabularies, for readable labels; without them the tokenizers' own strings are shown
    state : shared view
    view : a `LexiconView` made by another panel, to use again
    source_vectors, target_vectors : to show neighbours in both spaces
    run : the align run that made the lexicon, for scores and contexts; edits and exports are stored in its folder.
        Without a run, or with a recorded one, edits stay in memory and exports go to the folder of runs
    """

    def __init__(
        self,
        lexicon: Lexicon,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        state: LabState | None = None,
        view: LexiconView | None = None,
        source_vectors: TokenVectors | None = None,
        target_vectors: TokenVectors | None = None,
        run: RunFolder | None = None,
    ) -> None:
        super().__init__("Lexicon inspector", "tl-lexicon", state)
        self.align_run = run
        self._own = None if run is None or run.recorded else run  # nothing is written next to a recorded run
        self.edits = LexiconEdits(lexicon, None if self._own is None else self._own.path / "lexicon.edits.json")
        self.view = view or LexiconView(lexicon, Labels(lexicon, source, target))
        self._edited = {edit.target_id for edit in self.edits.done}  # rows that may differ from the recipe
        if self._edited or self.view.lexicon is not lexicon:
            self.view.change(apply_edits(lexicon, self.edits.current()), self._edited)
        self._scores = {} if run is None else scores_of(run)
        self._slice = self.lab_state.selection
        self._explained = -1
        self._prepared = False
        self._build((source_vectors, target_vectors))
        self._watch(self._on_selection, "selection")
        self._watch(lambda _change: self.editor.refresh(), "pins")
        self._watch(self._on_query, "query")
        self.refresh()

    @classmethod
    def of_run(
        cls,
        run: RunFolder | Path | str,
        state: LabState | None = None,
        view: LexiconView | None = None,
        alignment: Alignment | None = None,
    ) -> LexiconPanel:
        """Inspect the lexicon of an align run, with its vectors, scores, text and model; its folder stores the edits.

        Raises `InputError` if there is no such run, or it has no lexicon.

        Parameters
        ----------
        run : the run, its folder, or its name in the folder of runs
        state, view : as for the panel
        alignment : the alignment of the run, if it is already loaded
        """
        run, alignment = opened(run, alignment)
        return cls(
            alignment.lexicon,
            *vocabularies_of(alignment.lexicon),
            state=state,
            view=view,
            source_vectors=alignment.source_vectors,
            target_vectors=alignment.target_vectors,
            run=run,
        )

    def _build(self, vectors: tuple[TokenVectors | None, TokenVectors | None]) -> None:
        view, state, run = self.view, self.lab_state, self._own
        self.filters = LexiconFilters(view, state)
        self.histogram = Histogram(self.guarded(self._on_bar))
        measures = [(name, key) for key, name in NAMES.items()]
        self._counted = self.menu(
            "Bars by",
            lambda _measure: self.refresh(),
            options=measures,
            tooltip="Quantity of the histogram; click a bar to show only its rows",
        )
        words = f"Select up to {MOST_SELECTED:,} rows, to highlight them on the maps"
        more = self.button("Select all found", self.select_found, words)
        self.paged = LexiconTable(view, self._on_row, self.sort_by, [more])
        self.table = self.paged.table
        self.why = WhyBox(view, vectors, None if run is None else text_of(run.settings()))
        self.editor = EditBox(view, self.edits, state, self._on_edit)
        self.scoring = ScoreBox(view, self.edits, run, state, self._found, self._selected)
        self.exporting = ExportBox(view, self._found, runs_root() if run is None else run.path)
        self._details = html()
        self.folds = Folds(
            {
                "Filters": ("origin, script, ranges and a histogram",
                            [self.filters, self._counted, self.histogram]),
                "Details": ("all scores, origins of the rows, meaning of the numbers", [self._details]),
                "Edit": ("change the source of the selected token", [self.editor]),
                "Score": ("scores of the filtered rows, the selection and the edits", [self.scoring]),
                "Export": ("write the lexicon to a file", [self.exporting]),
            }
        )  # fmt: skip
        body = w.HBox([self.paged, self.why])
        body.add_class("tl-split")
        self._fill([self._head, self.filters.quick, self.folds, body], self.folds.row)
        self._show_head()
        self.mark(mark_html(view.lexicon.provenance.get("recorded", "")))

    def _show_head(self) -> None:
        names, edited = self.view.lexicon.provenance, len(self.edits.current())
        title = f"Lexicon: {names['source']['name']} → {names['target']['name']}"
        size = f"{len(self.view.lexicon):,} target tokens, {names.get('text_bytes', 0) / 1e6:.2f} MB of text"
        verdict = verdict_html(self.view)
        if edited:
            verdict += f" <b>{edited:,} edited</b>; the scores are for the recipe's rows."
        self.headline(title, verdict, lexicon_numbers(self.view, self._scores), f"recipe {names['recipe']}, {size}")
        self._details.value = (
            f"{origins_html(self.view.origin_counts)}{score_table(self._scores)}"
            f"{meanings([*FOUR, 'shared_rows', 'p_at_10', 'sentence_score', 'bert_score'])}"
        )

    @property
    def lexicon(self) -> Lexicon:
        """The lexicon with edits applied."""
        return self.view.lexicon

    @property
    def query(self) -> Query:
        """The current query."""
        return self.lab_state.query

    @property
    def selection(self) -> pd.DataFrame:
        """Lexicon rows of the selected tokens; for selected source tokens, the rows of their partners."""
        return self.lexicon.table.iloc[self._selected()]

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, this table's page, and the edits."""
        shown = {"page": self.paged.page, "found": len(self.paged.items)}
        return super().state | shown | {"edits": self.edits.to_dict()}

    def refresh(self) -> None:
        """Run the query again and show its first page."""
        self._ask(0, again=True)

    def _ask(self, page: int, again: bool = False) -> None:
        """Run the query; `again`: refresh the explanation even if the selected pair is the same."""
        query, measure, chosen = self.query, self._counted.value, self._slice

        def work(_wanted: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            values, limits = self.view.values(measure), getattr(query, measure)
            others = self.view.matching(query.limited(measure, EVERYTHING), chosen)
            keep = others if limits == EVERYTHING else others & within(values, *limits)
            return values, others, self.view.ordered(query, keep)

        def show(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
            values, others, rows = found
            self.clear_error()
            self.histogram.show(measure, values, others, getattr(query, measure))
            self.paged.show_rows(rows, query, page)
            self._explain(again)
            if not self._prepared:
                self._prepared = True
                submit(self.guarded(self._prepare), ROWS_DRAWN_S)

        self.newest(work, show)

    def go_to(self, page: int) -> None:
        """Show this page of the filtered rows, counted from 0, or the last page if it is beyond the end."""
        self.paged.go_to(page)

    def sort_by(self, key: str) -> None:
        """Sort by this order (see `SORTS`); the same order again reverses it."""
        again = self.query.sort == key
        self.lab_state.query = replace(self.query, sort=key, reverse=again and not self.query.reverse)

    def select_found(self) -> None:
        """Select the filtered rows, so that the maps highlight them."""
        self.lab_state.select("target", self.paged.items[:MOST_SELECTED].tolist(), by="lexicon")

    def _call(self) -> list[str]:
        if self.align_run is not None:
            return []
        both = [side for side, held in self.view.labels.vocabularies.items() if held is not None]
        return ["lexicon", *(f"{side}={side}" for side in both)]

    def _prepare(self) -> None:
        """Build the search index, which takes seconds, after the page has drawn the first rows."""
        self.view.prepare()
        if not self.closed:
            self.view.search_again(tuple(self._edited))
            self.filters.offer_scripts()

    def _on_row(self, target_id: int) -> None:
        self.lab_state.select("target", [target_id], by="lexicon")

    def _on_bar(self, limits: Range) -> None:
        self.lab_state.query = self.query.limited(self._counted.value, limits)

    def _on_selection(self, _change: Any) -> None:
        chosen = self.lab_state.selection
        if chosen.by != "lexicon" or not self.query.selected:
            self._slice = chosen
            if self.query.selected:
                self._ask(0)
                return
        self._explain()  # with "Only selected tokens", a click on a row must not change which rows are listed

    def _on_query(self, change: Any) -> None:
        if self.query.selected and not change["old"].selected:
            self._slice = self.lab_state.selection
        self.filters.show()
        self._ask(0)

    def _on_edit(self, target_id: int) -> None:
        """Apply the edits to the recipe's rows again, in a thread."""
        self._edited.add(target_id)

        def show(lexicon: Lexicon) -> None:
            self.view.change(lexicon, tuple(self._edited))
            self._show_head()
            self.filters.offer_origins()
            self.scoring.refresh()
            self._ask(self.paged.page, again=True)

        self.newest(lambda _wanted: apply_edits(self.edits.lexicon, self.edits.current()), show, about="edits")

    def _found(self) -> np.ndarray:
        return np.asarray(self.paged.items)

    def _selected(self) -> np.ndarray:
        return self.view.targets(self.lab_state.selection)

    def _explain(self, again: bool = False) -> None:
        rows = self._selected()
        chosen = int(rows[0]) if len(rows) else -1
        self.table.chosen = chosen
        if again or chosen != self._explained:
            self._explained = chosen
            self.why.show(chosen, MAPS_DRAWN_S if self.lab_state.selection.by == "maps" else 0.0)
            self.editor.show(chosen)
