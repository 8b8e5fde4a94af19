"""A table of all recipes for one pair: the scores of their runs, and the recipes that have no run yet.

A run can be used as one side of the comparison. Recipes without a run can be selected and started through `on_align`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.results import recipes_table
from tokalign_lab.runs.words import STATE_WORDS, duration

from ..common.numbers import score_in
from ..common.part import Box, bar, html, shown
from ..common.table import Column, RowTable
from .scores import score_words

COLUMNS = (
    Column("recipe", "Recipe", "alignment recipe"),
    Column("as", "Shown", "A or B: its side of the comparison"),
    Column("state", "State", "State of the recipe's newest run for this pair"),
    Column("text", "Text", "text of the alignment; figures on different text cannot be compared"),
    Column("bleu1", "BLEU-1", "of held-out text, target to source: mean and 95 % interval"),
    Column("sentence", "Sentence score", "target to source, as BLEU-1"),
    Column("bert", "BERTScore", "target to source, as BLEU-1"),
    Column("p_at_1", "P@1", "Held-out shared tokens whose true partner is ranked first; needs vectors"),
    Column("seconds", "Took", "Duration of the alignment; lower is better"),
    Column("run", "Run", "Name of the run"),
)


class RecipesView(Box):
    """The table of recipes.

    Parameters
    ----------
    use : called with "a" or "b" and a run's path
    on_align : called with the name of a recipe to run; None disables the button
    runs : folder of the runs
    """

    def __init__(
        self, use: Callable[[str, str], None], on_align: Callable[[str], Any] | None, runs: Path | str | None
    ) -> None:
        self._use, self._on_align, self.root = use, on_align, runs
        self._pair = ("", "")
        self._sides: Sequence[RunFolder | None] = ()
        self.rows: list[dict[str, Any]] = []
        self.table = RowTable(COLUMNS, on_row=lambda _key: self._allow())
        self._uses = [
            self.button(
                f"Show as {place.upper()}", partial(self._take, place), f"Use the selected run as {place.upper()}"
            )
            for place in "ab"
        ]
        self._missing = self.control(w.SelectMultiple, "Not tried yet", rows=5, tooltip="Recipes without a run")
        self._missing.layout.width = "100%"
        self._align = self.button(
            "Run the missing recipes", self.align,
            "Align with the recipes selected in the list, or with all of them if none is selected",
        )  # fmt: skip
        self._note = html()
        again = self.button("Refresh", self.refresh, "Read the folder of runs again")
        super().__init__([self.table, bar(*self._uses, again), self._missing, bar(self._align, self._note)])
        self.add_class("tl-recipes")

    @property
    def missing(self) -> list[str]:
        """Recipes without a run that can be started from here, in order."""
        return [row["recipe"] for row in self.rows if row["run"] is None and not RECIPES[row["recipe"]].needs_donor]

    def show(self, source: str, target: str, sides: Sequence[RunFolder | None]) -> None:
        """List the recipes of a pair; `sides` are the runs shown as A and B."""
        self._pair, self._sides = (source, target), sides
        self.refresh()

    def refresh(self) -> None:
        """Read the folder of runs again."""
        pair, root = self._pair, self.root
        recorded = any(run is not None and run.recorded for run in self._sides)

        def show(rows: list[dict[str, Any]]) -> None:
            self.rows = rows
            self._draw()

        self.newest(lambda _wanted: recipes_table(*pair, root, recorded), show)

    def align(self) -> None:
        """Run the selected missing recipes, or all of them."""
        on_align, recipes = self._on_align, self._missing.value or self.missing
        if on_align is None:
            return

        def work() -> None:
            for recipe in recipes:
                on_align(recipe)
            self.refresh()

        self.soon(work)  # in a thread: starting processes takes a moment, and may fail

    @property
    def _watched(self) -> str:
        return f"recipes:{id(self)}"

    def _draw(self) -> None:
        with self.table.hold_sync():
            self.table.caption = f"{self._pair[0]} → {self._pair[1]}"
            self.table.chosen = -1
            self.table.show(range(len(self.rows)), [self._cells(row) for row in self.rows])
        missing = self.missing
        self._missing.options = [(f"{name}: {RECIPES[name].description}", name) for name in missing]
        shown(self._missing, bool(missing))
        without = [row["recipe"] for row in self.rows if row["run"] is None and row["recipe"] not in missing]
        words = [f"{', '.join(without)} needs a donor model; run it separately." * bool(without)]
        if self._on_align is None:
            words.append("This panel is not attached to a Lab, so it cannot start runs.")
        if not missing:
            words.append("All recipes that can be started here have a run.")
        self._note.value = f'<div class="tl-note">{escape(" ".join(filter(None, words)))}</div>'
        self._allow()
        self.follow(self._watched, self._poll)

    def _poll(self) -> bool:
        """Reload when a run has ended."""
        going = [row for row in self.rows if row["run"] is not None and row["state"] not in ENDED]
        if any(_state(row["run"]) != row["state"] for row in going):
            self.refresh()
            return False
        return bool(going)

    def _cells(self, row: dict[str, Any]) -> list[str]:
        places = [
            place
            for place, run in zip("AB", self._sides, strict=False)
            if run is not None and row["run"] is not None and run.path.resolve() == Path(row["run"]).resolve()
        ]
        size = "" if row["max_bytes"] is None else f", {row['max_bytes'] / 1e6:g} MB"
        seed = f", seed {row['seed']}" * bool(row["seed"])
        return [
            row["recipe"],
            " and ".join(places),
            STATE_WORDS.get(row["state"], row["state"]),
            f"{', '.join(row['text'])}{size}{seed}" if row["run"] else "–",
            *(
                score_words(score_in(row["scores"], name), short=True) or "–"
                for name in ("bleu1", "sentence_score", "bert_score", "p_at_1")
            ),
            duration(row["seconds"]) if row["seconds"] else "–",
            row["name"] or "–",
        ]

    def _allow(self) -> None:
        chosen = self.table.chosen
        usable = 0 <= chosen < len(self.rows) and self.rows[chosen]["state"] == "finished"
        for control in self._uses:
            control.disabled = not usable
        self._align.disabled = self._on_align is None or not self.missing

    def _take(self, place: str) -> None:
        self._use(place, self.rows[self.table.chosen]["run"])


def _state(run: str) -> str:
    try:
        return RunFolder(run).state
    except InputError:  # deleted meanwhile
        return ""
