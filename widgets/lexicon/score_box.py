"""Scores of the rows found and of the selection, of the edits, and the edits applied to the model: all as runs.

Each question is a run in a process of its own, named by what was asked, so that it can be cancelled, outlives the
kernel, and is answered at once when it is asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokalign_lab.alignment.lexicon.edits import LexiconEdits, apply_edits
from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.files import hash_of, write_json
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.queue import find_or_start

from ..common.job import RunBox
from ..common.part import bar, html, shown
from ..common.state import LabState
from .scores import PART_WORDS, documents_html, parts_html
from .view import LexiconView


@dataclass(frozen=True)
class Whereabouts:
    """Where a lexicon is and what it was made from: what runs need to know.

    Attributes
    ----------
    folder : where edits, edited lexicons and exports go
    path : the lexicon's `.parquet`; None: there can be no runs
    text : `text` (list), and optionally `max_bytes` and `seed`, as the align run had them; None: nothing to score on
    model : the source model's name or folder; None: nothing to apply edits to
    """

    folder: Path
    path: Path | None
    text: Mapping[str, Any] | None
    model: str | None


class ScoreBox(RunBox):
    """Asks for scores and shows them.

    Parameters
    ----------
    view : the lexicon as it is shown
    edits : what was changed about it
    known : where it is; what is not known takes buttons away
    state : shared view, for the panels of the runs
    found, chosen : answer the target ids of the filter and of the selection
    """

    def __init__(
        self,
        view: LexiconView,
        edits: LexiconEdits,
        known: Whereabouts,
        state: LabState,
        found: Callable[[], np.ndarray],
        chosen: Callable[[], np.ndarray],
    ) -> None:
        super().__init__(state)
        self._view, self._edits, self._known = view, edits, known
        self._found, self._chosen = found, chosen
        self._scores: dict[str, Any] = {}
        self.score = self.button("Score these", self.score_these, "Score all tokens, the rows found, and the selection")
        self.again = self.button(
            "Score the edits", self.score_edits, "Score before and after the edits, on the same text"
        )
        self.apply = self.button(
            "Apply to the model", self.apply_edits, "Give the model new rows by the edited lexicon"
        )
        self.sentences = self.check(
            "Sentence score and BERTScore too (slower)",
            value=True,
            tooltip="Two more scores, by the packaged sentence encoder",
        )
        self.table, self.documents = html("tl-part-scores"), html()
        self.part = self.menu("Documents with", lambda _part: self._show_documents(), tooltip="Which tokens they hold")
        shown(self.part, False)
        buttons = [self.score, self.again] if known.path and known.text else []
        buttons += [self.apply] if known.path and known.model else []
        recorded = "recorded" in view.lexicon.provenance
        why = "A recorded run keeps neither its text nor its model, so nothing can be scored or applied here."
        how = why if recorded else "To score or apply it, open it with path=, text= and model=."
        note = "" if buttons else f'<p class="tl-note">{how}</p>'
        options = [self.sentences] if self.score in buttons else []
        self.children = (html("", note), bar(*buttons, *options), self.job, self.table, self.part, self.documents)
        self.refresh()

    def refresh(self) -> None:
        """Switch off what cannot be asked for now."""
        self.again.disabled = self.apply.disabled = not self._edits.current()

    def score_these(self) -> None:
        """Score all tokens, those of the filter, and those selected."""
        parts = {"filter": self._found(), "selection": self._chosen()}
        full = len(self._view.lexicon)
        asked = {name: np.sort(ids).tolist() for name, ids in parts.items() if 0 < len(ids) < full}
        self.soon(lambda: self._score(asked, before=False))

    def score_edits(self) -> None:
        """Score the lexicon before and after the edits."""
        self.soon(lambda: self._score({"edited": sorted(self._edits.current())}, before=True))

    def apply_edits(self) -> None:
        """Start the run that gives the model its rows by the edited lexicon."""

        def work() -> None:
            run = find_or_start("rearrange", {"model": self._known.model, "lexicon": self._lexicon_file()})
            self.watch_run(run, "Applying the edited lexicon", f"the new model is in {run.path.resolve() / 'model'}")

        self.soon(work)

    def _score(self, parts: dict[str, list[int]], before: bool) -> None:
        assert self._known.text is not None
        settings: dict[str, Any] = {
            **{name: value for name, value in self._known.text.items() if value is not None},
            "lexicon": self._lexicon_file(),
            "encoder": "minilm" if self.sentences.value else None,
        }
        recipe = RECIPES.get(self._edits.lexicon.provenance["recipe"])
        if recipe is not None and recipe.needs_model and self._known.model:
            settings["model"] = self._known.model
        if before:
            settings["before"] = str(self._path)
        if parts:
            key = hash_of([json.dumps(parts).encode()])[:10]
            file = self._known.folder.resolve() / f"parts-{key}.json"
            if not file.is_file():
                write_json(file, parts)
            settings["parts"] = str(file)
        run = find_or_start("score", settings)
        self.watch_run(run, "Scoring", "the scores are below", self._show)

    @property
    def _path(self) -> Path:
        assert self._known.path is not None
        return self._known.path.resolve()

    def _lexicon_file(self) -> str:
        """Return the file of the lexicon as it is shown; an edited one is written next to the edits."""
        if not self._edits.current():
            return str(self._path)
        lexicon = apply_edits(self._edits.lexicon, self._edits.current())
        file = self._known.folder.resolve() / f"edited-{lexicon.key[:10]}.parquet"
        if not file.is_file():
            lexicon.save(file)
        return str(file)

    def _show(self, run: RunFolder) -> None:
        self._scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
        self.table.value = parts_html(self._scores)
        parts = list(self._scores["documents"])
        self.offer(self.part, [(PART_WORDS.get(part, part).lower(), part) for part in parts], parts[-1])
        shown(self.part, True)
        self._show_documents()

    def _show_documents(self) -> None:
        if self.part.value is not None:
            self.documents.value = documents_html(self._scores["documents"][self.part.value])
