"""Scores of a lexicon and of parts of it as HTML; buttons that compute them and apply edits to the model.

Each computation is a separate run, found again by its settings. It can be cancelled, it continues if the kernel stops,
and a second request with the same settings shows its result immediately.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.alignment.lexicon.edits import LexiconEdits, apply_edits
from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.evaluation.finding import WITHOUT_EVIDENCE
from tokalign_lab.evaluation.part_scores import MEASURES
from tokalign_lab.evaluation.row_findings import WITHOUT_SOURCE_POOR, WITHOUT_SOURCE_WARN
from tokalign_lab.files import hash_of, write_json
from tokalign_lab.runs.chain import rearrange_settings
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.queue import find_or_start
from tokalign_lab.settings.kinds import text_of

from ..common.job import RunBox
from ..common.numbers import DIRECTIONS, MEANINGS, SCORES, Number, meanings, score_in, share
from ..common.part import bar, html, shown
from ..common.state import LabState
from .view import LexiconView

FOUR = ("shared_text", "p_at_1", "bleu1", "seen")


def lexicon_numbers(view: LexiconView, scores: Mapping[str, Any] | None) -> list[Number]:
    """Return four key numbers of a lexicon; if one of `FOUR` was not measured, "shared_rows" comes last."""
    text = view.count.sum() or 1
    copied = view.origin.isin(("identical", "role")).to_numpy()
    found = {
        "shared_rows": share(copied.mean()),
        "shared_text": share(view.count[copied].sum() / text),
        "seen": share((view.count > 0).mean()),
    }
    for key in ("p_at_1", "bleu1"):
        if (score := score_in(scores, key)) is not None:
            found[key] = _figure(key, score)
    four = [key for key in FOUR if key in found]
    return [(key, found[key]) for key in (*four, *(["shared_rows"] * (len(four) < len(FOUR))))]


def verdict_html(view: LexiconView) -> str:
    """Return as HTML where the rows of the tokens in the text come from, with a verdict.

    The verdict uses the diagnosis's thresholds for tokens without a source.
    """
    text = view.count.sum() or 1
    nothing, *others = (
        float(view.count[view.origin.isin(origins).to_numpy()].sum() / text)
        for origins in (WITHOUT_EVIDENCE, ("identical", "role"), ("aligned", "edited"), ("pieces",))
    )
    severity, word = (
        ("poor", "poor")
        if nothing > WITHOUT_SOURCE_POOR
        else ("warn", "check it")
        if nothing > WITHOUT_SOURCE_WARN
        else ("ok", "ok")
    )
    copied, matched, spelled = map(share, others)
    return (
        f'<span class="tl-state tl-severity-mark-{severity}">{word}</span> In the text, {copied} of the tokens are '
        f"shared, {matched} matched by vectors, {spelled} built from pieces, and {share(nothing)} have no source."
    )


def score_table(scores: Mapping[str, Any] | None) -> str:
    """Return all scores of a lexicon, in both directions, as HTML; "" if none was measured."""
    lines = ""
    for key in SCORES:
        found = [score_in(scores, key, direction) for direction in DIRECTIONS]
        if any(found):
            cells = "".join(f'<td class="tl-number">{_figure(key, score)}</td>' for score in found)
            lines += _score_row(key, cells)
    if not lines:
        return ""
    heads = "".join(f'<th scope="col" class="tl-number">{arrow}</th>' for arrow in DIRECTIONS.values())
    return (
        '<table class="tl-plain tl-fit"><caption>Scores on held-out text</caption><thead><tr><th scope="col">Score</th>'
        f"{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _score_row(key: str, cells: str) -> str:
    return f'<tr title="{escape(MEANINGS[key].words)}"><th scope="row">{MEANINGS[key].name}</th>{cells}</tr>'


def _figure(key: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "–"
    return share(score["mean"]) if key.startswith("p_at") else f"{score['mean']:.3f}"


def origins_html(counts: Mapping[str, int]) -> str:
    """Return the number of rows by origin as HTML: a stacked bar, and a list."""
    total = sum(counts.values()) or 1
    ordered = [(name, counts[name]) for name in ORIGINS if counts.get(name)]
    stack = "".join(
        f'<span class="tl-origin-{name}" style="flex-grow:{n / total:.4f}" title="{name}: {n:,}"></span>'
        for name, n in ordered
    )
    words = "".join(
        f'<li title="{escape(ORIGINS[name])}"><span class="tl-origin tl-origin-{name}">{name}</span> '
        f"{n:,} <small>({share(n / total)})</small></li>"
        for name, n in ordered
    )
    return f'<div class="tl-stack" aria-hidden="true">{stack}</div><ul class="tl-origins">{words}</ul>'


PART_WORDS = {"all": "All tokens", "filter": "Filtered", "selection": "Selected", "edited": "Edited by hand"}
_COUNTED = (
    "From target to source, with 95 % bootstrap intervals. n is the number of held-out documents that contain one of "
    "these tokens; for the match, the number of occurrences; for P@1, the number of held-out shared tokens. Edits do "
    "not change P@1, because it measures the vectors."
)


def parts_html(scores: Mapping[str, Any]) -> str:
    """Return scores by part as an HTML table, with n, interval and definition; `scores` is a `PartScores` as JSON."""
    columns = [(PART_WORDS.get(part, part), found) for part, found in scores["parts"].items()]
    if scores["before"]:
        columns = []
        for part, found in scores["parts"].items():
            words = PART_WORDS.get(part, part)
            columns += [
                (f"{words}, before", scores["before"][part]),
                (f"{words}, now", found),
                (f"{words}, change", scores["changes"][part]),
            ]
    head = "".join(f'<th scope="col">{escape(words)}</th>' for words, _ in columns)
    lines = ""
    for measure in MEASURES:
        if any(measure in found for _, found in columns):
            cells = "".join(
                f"<td>{_interval(found.get(measure), words.endswith('change'))}</td>" for words, found in columns
            )
            lines += _score_row(measure, cells)
    return (
        f'<div class="tl-table-scroll"><table class="tl-table tl-parts"><caption>{_COUNTED}</caption><thead><tr>'
        f"<th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>{meanings(MEASURES)}"
    )


def _interval(interval: Mapping[str, Any] | None, signed: bool = False) -> str:
    if interval is None:
        return "–"
    sign = "+" if signed else ""
    low, high = interval["low"], interval["high"]
    bounds = "" if low is None else f"[{low:{sign}.3f}, {high:{sign}.3f}], "
    return f"<b>{interval['mean']:{sign}.3f}</b> <small>{bounds}n = {interval['n']:,}</small>"


def documents_html(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return documents as HTML in the given order: original and round trip, with the differences marked."""
    if not documents:
        return '<p class="tl-note">No held-out document contains these tokens.</p>'
    shown = "".join(_document(document, number == 0) for number, document in enumerate(documents))
    return (
        "<h4>Documents with the largest loss</h4><p class='tl-note'>Above: the text in source tokens. Below: the "
        "same text in target tokens, each replaced by its source token. <del>Struck through</del>: lost. "
        f"<ins>Underlined</ins>: replacement. ∅: a token without a source.</p>{shown}"
    )


def _document(document: Mapping[str, Any], is_open: bool) -> str:
    before, after = differences(document["original"], document["mapped"])
    name = f"{escape(document['name'])} ({escape(document['slice'])})"
    return (
        f"<details class='tl-document'{' open' * is_open}><summary>BLEU-1 {document['bleu1']:.3f}: {name}</summary>"
        f'<div class="tl-round"><b>Original</b><p>{before}</p><b>Round trip</b><p>{after}</p></div></details>'
    )


def differences(original: Sequence[str], mapped: Sequence[str]) -> tuple[str, str]:
    """Return both token sequences as HTML; <del> marks tokens of the original only, <ins> of the round trip only."""
    before, after = "", ""
    for kind, a, b, c, d in SequenceMatcher(None, original, mapped, autojunk=False).get_opcodes():
        lost, came = _read(original[a:b]), _read(mapped[c:d])
        before += lost if kind == "equal" else f"<del>{lost}</del>" * bool(lost)
        after += came if kind == "equal" else f"<ins>{came}</ins>" * bool(came)
    return before, after


def _read(labels: Sequence[str]) -> str:
    """Return labels of tokens as text; ␣ becomes a space, so that lines can wrap there."""
    return escape("".join(label or "∅" for label in labels)).replace("␣", " ").replace("↵", "↵\u200b")


_NO_RUN = (
    "The text and the model of this lexicon are unknown, so it cannot be scored or applied. Open your own run "
    "with LexiconPanel.of_run."
)
_RECORDED = "This is a recorded run without its text and its model, so it cannot be scored or applied."


class ScoreBox(RunBox):
    """Starts scoring runs and shows their results.

    Parameters
    ----------
    view : the lexicon with edits applied
    edits : the edits
    run : the align run that made the lexicon; without one, there are no buttons
    state : shared view, for the panels of the runs
    found, chosen : return the target ids of the filtered rows and of the selection
    """

    def __init__(
        self,
        view: LexiconView,
        edits: LexiconEdits,
        run: RunFolder | None,
        state: LabState,
        found: Callable[[], np.ndarray],
        chosen: Callable[[], np.ndarray],
    ) -> None:
        super().__init__(state)
        self._view, self._edits, self._run = view, edits, run
        self._found, self._chosen = found, chosen
        self._scores: dict[str, Any] = {}
        self.score = self.button("Score these", self.score_these, "Score all tokens, filtered rows, and the selection")
        self.again = self.button(
            "Score the edits", self.score_edits, "Score before and after the edits, on the same text"
        )
        self.apply = self.button("Apply to the model", self.apply_edits, "Make the model from the edited lexicon")
        self.sentences = self.check(
            "Sentence score and BERTScore too (slower)",
            value=True,
            tooltip="Two more scores, by the packaged sentence encoder",
        )
        self.table, self.documents = html("tl-part-scores"), html()
        self.part = self.menu("Documents with", lambda _part: self._show_documents(), tooltip="The tokens they contain")
        shown(self.part, False)
        why = _RECORDED if view.lexicon.provenance.get("recorded") else _NO_RUN
        note = f'<p class="tl-note">{why}</p>' if run is None else ""
        buttons = () if run is None else (self.score, self.again, self.apply, self.sentences)
        self.children = (html("", note), bar(*buttons), self.job, self.table, self.part, self.documents)
        self.refresh()

    def refresh(self) -> None:
        """Disable the buttons that need edits if there are none."""
        self.again.disabled = self.apply.disabled = not self._edits.current()

    def score_these(self) -> None:
        """Score all tokens, the filtered ones and the selected ones."""
        parts = {"filter": self._found(), "selection": self._chosen()}
        full = len(self._view.lexicon)
        asked = {name: np.sort(ids).tolist() for name, ids in parts.items() if 0 < len(ids) < full}
        self.soon(lambda: self._score(asked, before=False))

    def score_edits(self) -> None:
        """Score the lexicon before and after the edits."""
        self.soon(lambda: self._score({"edited": sorted(self._edits.current())}, before=True))

    def apply_edits(self) -> None:
        """Start a run that makes the model from the edited lexicon."""

        def work() -> None:
            settings = rearrange_settings(
                self._model, Path(self._lexicon_file()), text_of(self._settings)["text"] or ()
            )
            run = find_or_start("rearrange", settings)
            self.watch_run(run, "Applying the edited lexicon", f"the new model is in {run.path.resolve() / 'model'}")

        self.soon(work)

    def _score(self, parts: dict[str, list[int]], before: bool) -> None:
        settings: dict[str, Any] = {
            **{name: value for name, value in text_of(self._settings).items() if value is not None},
            "lexicon": self._lexicon_file(),
            "encoder": "minilm" if self.sentences.value else None,
        }
        recipe = RECIPES.get(self._edits.lexicon.provenance["recipe"])
        if recipe is not None and recipe.needs_model:
            settings["model"] = self._model
        if before:
            settings["before"] = str(self._path)
        if parts:
            key = hash_of([json.dumps(parts).encode()])[:10]
            file = self._folder / f"parts-{key}.json"
            if not file.is_file():
                write_json(file, parts)
            settings["parts"] = str(file)
        run = find_or_start("score", settings)
        self.watch_run(run, "Scoring", "the scores are below", self._show)

    @property
    def _folder(self) -> Path:
        assert self._run is not None  # there are no buttons without one
        return self._run.path.resolve()

    @property
    def _path(self) -> Path:
        return self._folder / "alignment" / "lexicon.parquet"

    @property
    def _settings(self) -> dict[str, Any]:
        assert self._run is not None
        return self._run.settings()

    @property
    def _model(self) -> str:
        return str(self._settings.get("model") or self._settings["source"])

    def _lexicon_file(self) -> str:
        """Return the file of the lexicon; an edited lexicon is written next to the edits."""
        if not self._edits.current():
            return str(self._path)
        lexicon = apply_edits(self._edits.lexicon, self._edits.current())
        file = self._folder / f"edited-{lexicon.key[:10]}.parquet"
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
