"""The scores of a comparison as HTML, and the button that measures which of two lexicons scores higher."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.evaluation.comparison import CHANGES, LexiconComparison, PairedScore, compare_slices
from tokalign_lab.evaluation.comparison import MEASURES as PAIRED
from tokalign_lab.runs.control import runs_root
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import plain_title
from tokalign_lab.runs.queue import find_or_start
from tokalign_lab.runs.results import last_evaluation, lexicon_path, measured_otherwise, resolve, scores_of
from tokalign_lab.settings.kinds import text_of

from ..common.job import RunBox
from ..common.numbers import DIRECTIONS, MEANINGS, SCORES, card, score_in, share
from ..common.part import bar, html, shown, status_html
from ..common.state import LabState

CHANGE_NAMES = {
    "same": "Same partner", "changed": "Another partner", "gained": "Gained a partner", "lost": "Lost its partner",
    "neither": "No partner in either",
}  # fmt: skip
Comparable = Lexicon | RunFolder | Path | str
Paired = Mapping[str, Mapping[str, PairedScore]]  # by measure and direction


@dataclass
class Side:
    """One side of the comparison, loaded from disk.

    `lexicon`, `scores` and `evaluation` are None or empty if there are none; `code` recreates the side.
    """

    name: str
    code: str
    lexicon: Lexicon | None = None
    run: RunFolder | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    evaluation: Event | None = None

    @classmethod
    def of(cls, given: Comparable, code: str) -> Side:
        """Load a side from a lexicon, its file, or a run.

        Raises `InputError` if a path is neither a run nor a lexicon file.
        """
        if isinstance(given, Lexicon):
            return cls(_recipe(given), code, given, scores=_from_provenance(given))
        found = resolve(given)
        if isinstance(found, Path):
            alone = Lexicon.load(found)
            return cls(f"{found.name} ({_recipe(alone)})", repr(str(found)), alone, scores=_from_provenance(alone))
        file = lexicon_path(found)
        lexicon = Lexicon.load(file) if file is not None else None
        title = plain_title(found)
        name = title if lexicon is None or _recipe(lexicon) in title else f"{title} ({_recipe(lexicon)})"
        scores = scores_of(found) or (_from_provenance(lexicon) if lexicon is not None else {})
        return cls(name, repr(str(found.path)), lexicon, found, scores, last_evaluation(found))


def _recipe(lexicon: Lexicon) -> str:
    return str(lexicon.provenance["recipe"])


def _from_provenance(lexicon: Lexicon) -> dict[str, Any]:
    scores = lexicon.provenance.get("scores")
    return {"lexicon": scores} if scores else {}


def summary_html(found: LexiconComparison) -> str:
    """Return the number of tokens per kind of change, and their share of the text."""
    total = sum(found.counts.values()) or 1
    boxes = []
    for change, n in found.counts.items():
        text = "" if found.text_shares is None else f", {share(found.text_shares[change])} of the text"
        words = f"{CHANGE_NAMES[change]}: {share(n / total)} of the tokens{text}"
        boxes.append(card(f"{n:,}", words, CHANGES[change], f"tl-change-{change}"))
    return f'<div class="tl-cards">{"".join(boxes)}</div>'


def scores_html(a: Side, b: Side, paired: Paired | None = None) -> str:
    """Return scores of both with 95 % intervals and, if both have the same documents, the difference, as HTML."""
    lines = []
    for measure in SCORES:
        for direction, arrow in DIRECTIONS.items():
            cells = [score_words(score_in(side.scores, measure, direction)) for side in (a, b)]
            pair = (paired or {}).get(measure, {}).get(direction)
            if pair is not None:
                cells = [score_words(pair.a.to_dict()), score_words(pair.b.to_dict())]
            if any(cells):
                difference = _difference(pair) if measure in PAIRED else "–"
                lines.append(
                    _line(f"{MEANINGS[measure].name}, {arrow}", [*(cell or "–" for cell in cells), difference])
                )
    if not lines:
        return '<div class="tl-empty">Neither has scores. An align run scores its lexicon.</div>'
    return (
        '<table class="tl-plain"><caption>Scores, with 95 % intervals and n</caption>'
        f"<thead><tr><th scope='col'>Score</th><th scope='col'>A</th><th scope='col'>B</th>"
        f"<th scope='col'>B minus A</th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def score_words(score: Mapping[str, Any] | None, short: bool = False) -> str:
    """Return a result of `score_in` as text, with its interval if it is known; `short` omits n."""
    if score is None or score.get("low") is None:
        return "" if score is None else f"{score['mean']:.3f}"
    bounds = f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    return bounds if short else f"{bounds}, n = {score['n']:,}"


def _difference(pair: PairedScore | None) -> str:
    if pair is None:
        return "not measured yet"
    change = pair.difference
    bounds = "" if math.isnan(change.low) else f" [{change.low:+.4f}, {change.high:+.4f}]"
    return f"{change.mean:+.4f}{bounds}: {pair.verdict}"


def slices_html(a: Side, b: Side, otherwise: Sequence[str] = ()) -> str:
    """Return bits per byte of both runs by slice, as HTML; "" if one of them measured no model.

    Parameters
    ----------
    a, b : the two sides
    otherwise : names of the text settings in which the two runs differ
    """
    if a.evaluation is None or b.evaluation is None:
        return ""
    rows = compare_slices(a.evaluation, b.evaluation)
    lines = "".join(
        _line(row["slice"], [f"{row['a']:.3f}", f"{row['b']:.3f}", f"{row['difference']:+.3f}"], "tl-number")
        for row in rows
    )
    steps = f"after step {a.evaluation.get('step', 0):,} of A and {b.evaluation.get('step', 0):,} of B"
    warning = (
        f'<div class="tl-reason">A and B were measured on different text ({escape(", ".join(otherwise))} differ), so '
        "the figures cannot be compared.</div>"
        if otherwise
        else ""
    )
    return (
        f'{warning}<table class="tl-plain"><caption>Bits per UTF-8 byte by slice, {steps}; fewer is '
        "better</caption><thead><tr><th scope='col'>Slice</th><th scope='col' class='tl-number'>A</th>"
        "<th scope='col' class='tl-number'>B</th><th scope='col' class='tl-number'>B minus A</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>"
    )


def _line(name: str, cells: Sequence[str], style: str = "") -> str:
    made = "".join(f'<td class="{style}">{escape(cell)}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{made}</tr>'


_NO_TOKENIZERS = (
    "The tokenizers are not stored with this run, so the difference cannot be measured document by document; the "
    "intervals above are those that were measured."
)


class DifferenceBox(RunBox):
    """A button that measures the difference in a separate run, or the reason why it cannot.

    Parameters
    ----------
    state : shared view, for the panel of the run
    show : called with the scores
    root : folder of the runs; by default `runs_root()`
    """

    def __init__(self, state: LabState, show: Callable[[Paired], None], root: Path | str | None) -> None:
        super().__init__(state)
        self._show, self._root = show, root
        self._pair: tuple[Side, Side, RunFolder] | None = None
        self.measure = self.button(
            "Measure the difference", self.ask,
            "Score both on the same held-out documents, with an interval for the difference",
        )  # fmt: skip
        self.sentences = self.check(
            "Sentence score and BERTScore too (slower)", value=True, tooltip="Uses the packaged sentence encoder"
        )
        self.note = html()
        self.children = (bar(self.measure, self.sentences, self.note), self.job)

    def compare(self, a: Side, b: Side) -> None:
        """Prepare to compare these two, on the text of the first align run among them."""
        self.leave_run()  # the current run compares another pair
        runs = [side.run for side in (a, b) if side.run is not None and side.run.info()["kind"] == "align"]
        lexicons = [side.lexicon for side in (a, b) if side.lexicon is not None]
        stored = all(one.has_tokenizer for lexicon in lexicons for one in lexicon.vocabularies or ())
        ready = len(lexicons) == 2 and bool(runs) and stored
        self._pair = (a, b, runs[0]) if ready else None
        self.measure.disabled = self.sentences.disabled = not ready
        shown(self, len(lexicons) == 2)
        self.note.value = status_html(_warning(runs) if stored else _NO_TOKENIZERS, "tl-note")

    def ask(self) -> None:
        """Start the run, or show an earlier run with the same settings."""
        if self._pair is None:
            return
        pair = a, b, run = self._pair
        encoder = "minilm" if self.sentences.value else None

        def work() -> None:
            files = {"left": self._file(a), "right": self._file(b)}
            asked = text_of(run.settings()) | files | {"encoder": encoder}
            found = find_or_start("compare", asked, self._root)
            if self._pair is pair:
                self.watch_run(found, "Measuring the difference", "the scores are above", self._read)

        self.soon(work, self.measure)

    def _file(self, side: Side) -> str:
        """Return the file of a side's lexicon; a lexicon without a run is saved in the folder of runs."""
        file = None if side.run is None else lexicon_path(side.run)
        if file is None:
            assert side.lexicon is not None
            file = runs_root(self._root) / f"lexicon-{side.lexicon.key[:10]}.parquet"
            side.lexicon.save(file)
        return str(file.resolve())

    def _read(self, run: RunFolder) -> None:
        scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
        self._show({m: {d: PairedScore.from_dict(one) for d, one in found.items()} for m, found in scores.items()})


def _warning(runs: Sequence[RunFolder]) -> str:
    if not runs:
        return "A lexicon alone does not name its text; compare align runs to measure the difference."
    texts = [name for name in measured_otherwise(runs[0], runs[-1]) if name in ("text", "max_bytes", "seed")]
    if texts:
        return f"Made from different text ({', '.join(texts)} differ): B may have learned from the held-out text of A."
    return ""
