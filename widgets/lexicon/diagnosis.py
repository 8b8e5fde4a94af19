"""The diagnosis of a lexicon: a verdict, and findings with evidence, advice and tokens.

A click on a finding selects its tokens and sets the shared query to them, worst first: the inspector lists them and
the maps highlight them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.documents import Document, read_parts
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.diagnosis import Diagnosis, diagnose, with_new_rows
from tokalign_lab.evaluation.finding import MOST_IDS, NEW_ROWS, Finding, several
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import diagnosis_of, model_of_lexicon
from tokalign_lab.settings.kinds import TextSettings, text_of
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

from ..common.numbers import meanings
from ..common.panel import Panel, mark_html
from ..common.part import Folds, bar, html, shown, token
from ..common.state import LabState, Query
from .view import opened, vocabularies_of

VERDICT_WORDS = {
    "good": "No check found a problem.",
    "usable": "It works, but loses some quality, which tuning has to recover.",
    "poor": "Fix the critical findings before you make a model from it.",
}
SEVERITY_WORDS = {"ok": "passed", "warn": "warning", "poor": "critical"}


class DiagnosisPanel(Panel):
    """Diagnose a lexicon.

    Parameters
    ----------
    lexicon : the lexicon
    source, target : its vocabularies; by default loaded by the names in the lexicon
    vectors : source and target vectors of the alignment, to check whether their spaces fit each other
    model : the source model, loaded, to check for rows that depend on zero or untrained rows
    state : shared view
    found : an earlier diagnosis to show; without it, all checks are run
    """

    def __init__(
        self,
        lexicon: Lexicon,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        vectors: tuple[TokenVectors, TokenVectors] | None = None,
        model: Any = None,
        state: LabState | None = None,
        found: Diagnosis | None = None,
    ) -> None:
        super().__init__("Diagnosis", "tl-diagnosis", state)
        self.lexicon = lexicon
        self.diagnosis: Diagnosis | None = None
        self._given = (source, target)
        self._vectors, self._model, self._found = vectors, model, found
        names = lexicon.provenance
        self._title = f"Diagnosis: {names['source']['name']} → {names['target']['name']}"
        self._fine = self.check("Show passed checks too", lambda _yes: self._show_rows(), tooltip="List all checks")
        self._rows: list[tuple[Finding, w.HBox, w.Button]] = []
        asked: list[w.Widget] = [self._fine]
        self._again: list[w.Button] = []
        if found is None:
            self._again = [
                self.button("Refresh", self.refresh, "Run all checks of the lexicon again"),
                self.button(
                    "Check the model's new rows", self.check_new_rows,
                    "Measure on held-out text whether rows that are not copies are too long, or predicted too often",
                ),
            ]  # fmt: skip
            asked += self._again
        self._list = w.VBox()
        self._list.add_class("tl-findings")
        about = html("", meanings(("critical", "warnings", "passed", "concerned")))
        folds = Folds({"Details": ("passed checks, meaning of the numbers", [bar(*asked), about])})
        self._fill([self._head, folds, self._list], folds.row)
        self.mark(mark_html(names.get("recorded", "")))
        self._watch(self._on_selection, "selection")
        self.refresh()

    @classmethod
    def of_run(
        cls, run: RunFolder | Path | str, state: LabState | None = None, alignment: Alignment | None = None
    ) -> DiagnosisPanel:
        """Diagnose the lexicon of an align run; a diagnosis stored with the run is shown unchanged.

        Parameters and errors are those of `LexiconPanel.of_run`.
        """
        run, alignment = opened(run, alignment)
        source, target = alignment.source_vectors, alignment.target_vectors
        vectors = None if source is None or target is None else (source, target)
        panel = cls(alignment.lexicon, vectors=vectors, state=state, found=diagnosis_of(run))
        panel.align_run = run
        return panel

    @property
    def findings(self) -> pd.DataFrame:
        """All findings, most severe first: name, severity, evidence, advice and number of tokens."""
        found = self.diagnosis.findings if self.diagnosis is not None else []
        rows = [(f.name, f.severity, f.evidence, f.advice, len(f.target_ids)) for f in found]
        return pd.DataFrame(rows, columns=["name", "severity", "evidence", "advice", "tokens"])

    @property
    def state(self) -> dict[str, Any]:
        """The shared view and the verdict; None until the checks have been run."""
        return super().state | {"verdict": self.diagnosis.verdict if self.diagnosis is not None else None}

    def _call(self) -> list[str]:
        if self.align_run is not None:
            return []
        given: dict[str, Any] = dict(zip(("source", "target"), self._given, strict=True))
        given |= {"vectors": self._vectors, "model": self._model, "found": self._found}
        return ["lexicon", *(f"{name}={name}" for name, value in given.items() if value is not None)]

    def refresh(self) -> None:
        """Run all checks of the lexicon again."""
        self._check()

    def check_new_rows(self) -> None:
        """Check the new rows of the model that was made from the lexicon, too (`row_gate`).

        Raises `InputError` if no run has made a model from it.
        """
        folder = None if self.align_run is None else model_of_lexicon(self.align_run)
        if folder is None:
            raise InputError("No model was made from this lexicon yet; click “Make the model” on the tab Model first.")
        self._check(folder)

    def _check(self, folder: Path | None = None) -> None:
        """Run the checks of the lexicon, or only those of the new rows of the model in `folder`."""
        known = self.diagnosis if folder is not None else self._found
        self._show_status("Loading both tokenizers …" if known is None else "Checking the model's new rows …")
        self._allow_again(False)

        def work(wanted: Callable[[], bool]) -> Diagnosis:
            def report(_share: float, words: str) -> None:
                if wanted():
                    self._show_status(f"Checking {len(self.lexicon):,} rows: {words} …")

            if known is not None and folder is None:
                return known
            source, target = (given or vocabularies_of(self.lexicon)[side] for side, given in enumerate(self._given))
            found = known or diagnose(self.lexicon, source, target, self._vectors, self._model, report)
            return found if folder is None else with_new_rows(found, self.lexicon, target, *self._moved(folder))

        def show(found: Diagnosis) -> None:
            self.clear_error()
            self.diagnosis = found
            self._allow_again(True)
            self._draw(found)

        def failed() -> None:
            self.headline(self._title, "The checks could not be run.")
            self._allow_again(True)

        self.newest(work, show, failed)

    def _moved(self, folder: Path) -> tuple[Any, list[Document]]:
        """Load a model, and the held-out part of the text of the alignment."""
        from tokalign_lab.model.load import load_model  # imports torch, which takes a second

        assert self.align_run is not None
        text = TextSettings.from_dict(text_of(self.align_run.settings()))
        _, held_out = read_parts(text, ("held_out",))
        return load_model(str(folder), device="cpu", dtype="auto"), held_out

    def _allow_again(self, allowed: bool) -> None:
        for press in self._again:
            press.disabled = not allowed

    def show_tokens(self, name: str) -> None:
        """Select the tokens of a finding, and filter the inspector by them."""
        if self.diagnosis is None:
            return
        found = self.diagnosis.finding(name)
        with self.lab_state.hold_trait_notifications():
            self.lab_state.select("target", found.target_ids, by="diagnosis")
            self.lab_state.query = Query(selected=True, sort="worst")

    def _show_status(self, words: str) -> None:
        self.headline(self._title, escape(words))

    def _draw(self, diagnosis: Diagnosis) -> None:
        counts = Counter(found.severity for found in diagnosis.findings)
        concerned = {i for found in diagnosis.findings if found.severity != "ok" for i in found.target_ids}
        numbers = {
            "critical": counts["poor"], "warnings": counts["warn"], "passed": counts["ok"], "concerned": len(concerned)
        }  # fmt: skip
        recipe = f"recipe {self.lexicon.provenance['recipe']}"
        verdict = verdict_html(diagnosis)
        rows = {found.severity for found in diagnosis.findings if found.name in NEW_ROWS}
        if rows:
            verdict += " The model's new rows passed all checks." if rows == {"ok"} else " See the model's new rows."
        self.headline(self._title, verdict, [(key, f"{n:,}") for key, n in numbers.items()], recipe)
        former, self._rows = self._rows, [self._row(found) for found in diagnosis.findings]
        self._show_rows()
        self._list.children = [row for _, row, _ in self._rows]
        for _, row, _ in former:
            for part in row.children:
                part.close()
            row.close()
        self._on_selection(None)

    def _show_rows(self) -> None:
        """Show or hide passed checks; their rows already exist, because building them here would take too long."""
        for found, row, _ in self._rows:
            shown(row, found.severity != "ok" or self._fine.value)

    def _row(self, found: Finding) -> tuple[Finding, w.HBox, w.Button]:
        n = len(found.target_ids)
        words = f"Show {'the first ' * (n == MOST_IDS)}{several(n, 'token')}" if n else "No tokens"
        press = self.button(
            words, lambda: self.show_tokens(found.name),
            f"{found.name}: select its tokens, list them on the tab Lexicon and highlight them on the maps",
        )  # fmt: skip
        press.disabled = not n
        row = w.HBox([html("", finding_html(found)), press])
        row.add_class("tl-finding")
        row.add_class(f"tl-severity-{found.severity}")
        return found, row, press

    def _on_selection(self, _change: Any) -> None:
        """Highlight the button of the finding whose tokens are selected."""
        chosen = self.lab_state.selection
        ids = chosen.ids if chosen.space == "target" and chosen.by == "diagnosis" else ()
        for found, _, press in self._rows:
            selected = bool(ids) and tuple(found.target_ids) == ids
            press.button_style = "primary" if selected else ""


def verdict_html(diagnosis: Diagnosis) -> str:
    """Return the verdict and its meaning as HTML."""
    verdict = diagnosis.verdict
    return f'<span class="tl-state tl-verdict-{verdict}">{verdict}</span> {VERDICT_WORDS[verdict]}'


def finding_html(found: Finding) -> str:
    """Return one finding as HTML: severity, evidence, advice and example tokens."""
    advice = f'<div class="tl-advice"><b>What to do:</b> {escape(found.advice)}</div>' if found.advice else ""
    examples = " ".join(token(example) for example in found.examples)
    seen = f'<div class="tl-examples"><small>For example</small> {examples}</div>' if examples else ""
    return (
        f'<h4><span class="tl-state tl-severity-mark-{found.severity}">{SEVERITY_WORDS[found.severity]}</span> '
        f"{escape(found.name[:1].upper() + found.name[1:])}</h4><div>{escape(found.evidence)}</div>{advice}{seen}"
    )
