"""A comparison: its scores as HTML, and the button that measures which of two lexicons scores higher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.evaluation.comparison import CHANGES, LexiconComparison, PairedScore, compare_slices, paired_scores
from tokalign_lab.evaluation.comparison import MEASURES as PAIRED
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import held_out_of, last_evaluation, lexicon_path, measured_otherwise, resolve, scores_of
from tokalign_lab.vocabulary import Vocabulary

from ..common.numbers import DIRECTIONS, MEANINGS, SCORES, card, score_in
from ..common.part import Bar, html, said, shown

CHANGE_NAMES = {
    "same": "Same partner", "changed": "Another partner", "gained": "Gained a partner", "lost": "Lost its partner",
    "neither": "No partner in either",
}  # fmt: skip
Comparable = Lexicon | RunFolder | Path | str
Paired = Mapping[str, Mapping[str, PairedScore]]  # by measure and direction


@dataclass
class Side:
    """One of the two that are compared, as far as it is on disk.

    `lexicon`, `scores` and `evaluation` are None or empty where there are none; `code` makes it again.
    """

    name: str
    code: str
    lexicon: Lexicon | None = None
    run: RunFolder | None = None
    scores: dict[str, Any] = field(default_factory=dict)
    evaluation: Event | None = None

    @classmethod
    def of(cls, given: Comparable, code: str) -> Side:
        """Read what there is of a lexicon, its file, or a run.

        Raises
        ------
        InputError
            If a path is neither, or the file is no lexicon.
        """
        if isinstance(given, Lexicon):
            return cls(_recipe(given), code, given, scores=_from_provenance(given))
        found = resolve(given)
        if isinstance(found, Path):
            alone = Lexicon.load(found)
            return cls(f"{found.name} ({_recipe(alone)})", repr(str(found)), alone, scores=_from_provenance(alone))
        file = lexicon_path(found)
        lexicon = Lexicon.load(file) if file is not None else None
        name = found.name if lexicon is None else f"{found.name} ({_recipe(lexicon)})"
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
        text = "" if found.text_shares is None else f", {found.text_shares[change]:.1%} of the text"
        words = f"{CHANGE_NAMES[change]}: {n / total:.1%} of the tokens{text}"
        boxes.append(card(f"{n:,}", words, CHANGES[change], f"tl-change-{change}"))
    return f'<div class="tl-cards">{"".join(boxes)}</div>'


def scores_html(a: Side, b: Side, paired: Paired | None = None) -> str:
    """Scores of both with 95 % intervals; where both were asked on the same documents, the difference too."""
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
        return '<div class="tl-empty">Neither was scored. A run of “align” scores its lexicon.</div>'
    return (
        '<table class="tl-plain tl-compare-scores"><caption>Scores, with 95 % intervals and n</caption>'
        f"<thead><tr><th scope='col'>Score</th><th scope='col'>A</th><th scope='col'>B</th>"
        f"<th scope='col'>B minus A, document by document</th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def score_words(score: Mapping[str, Any] | None, short: bool = False) -> str:
    """Return what `score_in` found as text, with its interval where it is known; `short` leaves n out."""
    if score is None or "low" not in score:
        return "" if score is None else f"{score['mean']:.3f}"
    bounds = f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
    return bounds if short else f"{bounds}, n = {score['n']:,}"


def _difference(pair: PairedScore | None) -> str:
    if pair is None:
        return "not measured yet"
    change = pair.difference
    return f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]: {pair.verdict}"


def slices_html(a: Side, b: Side, otherwise: Sequence[str] = ()) -> str:
    """Bits per byte of both runs by slice; "" where one of them measured no model.

    Parameters
    ----------
    a, b : the two sides
    otherwise : settings by which they measure on different text
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
        f'<div class="tl-reason">They measure on different text ({escape(", ".join(otherwise))} differ), so the '
        "figures cannot be compared.</div>"
        if otherwise
        else ""
    )
    return (
        f'{warning}<table class="tl-plain tl-compare-slices"><caption>Bits per UTF-8 byte by slice, {steps}; fewer is '
        "better</caption><thead><tr><th scope='col'>Slice</th><th scope='col' class='tl-number'>A</th>"
        "<th scope='col' class='tl-number'>B</th><th scope='col' class='tl-number'>B minus A</th></tr></thead>"
        f"<tbody>{lines}</tbody></table>"
    )


def _line(name: str, cells: Sequence[str], style: str = "") -> str:
    made = "".join(f'<td class="{style}">{escape(cell)}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{made}</tr>'


MEASURE, STOP = "Measure the difference", "Stop measuring"
_RECORDED = (
    "A recorded run keeps neither its text nor its tokenizers, so the difference cannot be measured document by "
    "document; the intervals above are those that were measured."
)


class _Stopped(Exception):
    """Nobody waits for the figures any more."""


class DifferenceBar(Bar):
    """A button that measures, or stops that, and words that say how far it is or why it cannot.

    Parameters
    ----------
    vocabularies : gives the source and target vocabulary of a lexicon
    show : called with the scores
    """

    def __init__(self, vocabularies: Callable[[Lexicon], Sequence[Vocabulary]], show: Callable[[Paired], None]) -> None:
        self._vocabularies, self._show = vocabularies, show
        self._pair: tuple[Lexicon, Lexicon, RunFolder] | None = None
        self.measure = self.button(
            MEASURE, self.press, "Scores of both on the same held-out documents, and the interval of the difference"
        )
        self.sentences = self.check(
            "Sentence score and BERTScore too (slower)", value=True, tooltip="By the packaged sentence encoder"
        )
        self.note = html()
        super().__init__([self.measure, self.sentences, self.note])

    def compare(self, a: Side, b: Side) -> None:
        """Get ready for these two; the text is that of the first of them that is an align run."""
        self._stop()  # what is being measured is of another pair
        runs = [side.run for side in (a, b) if side.run is not None and side.run.info()["kind"] == "align"]
        self._pair = None
        recorded = any("recorded" in one.lexicon.provenance for one in (a, b) if one.lexicon is not None)
        if recorded:
            runs = []
        if a.lexicon is not None and b.lexicon is not None and runs:
            self._pair = (a.lexicon, b.lexicon, runs[0])
        self.measure.disabled = self.sentences.disabled = self._pair is None
        shown(self, a.lexicon is not None and b.lexicon is not None)
        self._say(_RECORDED if recorded else _warning(runs))

    def press(self) -> None:
        """Begin to measure, or stop."""
        if self.measure.description == STOP:
            self._stop()
            self._say("Stopped.")
        elif self._pair is not None:
            self._measure(*self._pair)

    def _stop(self) -> None:
        self.drop()
        self.measure.description = MEASURE

    def _measure(self, a: Lexicon, b: Lexicon, run: RunFolder) -> None:
        """Score both on the same documents, away from the callback."""
        encoder = "minilm" if self.sentences.value else None
        self.measure.description = STOP
        self._say("Reading the held-out text …")

        def work(wanted: Callable[[], bool]) -> Paired:
            def tell(share: float, words: str) -> None:
                if not wanted():
                    raise _Stopped
                self._say(f"{share:.0%}: {words} …")

            documents = held_out_of(run)
            tell(0.0, f"Tokenising {len(documents):,} documents both ways")
            source, target = self._vocabularies(a)
            pair = tokenize_pair(source, target, documents)
            return paired_scores(a, b, pair, encoder, progress=tell)

        def show(found: Paired) -> None:
            self._ended()
            self._show(found)

        self.newest(work, show, self._ended)

    def _ended(self) -> None:
        self._say("")
        self.measure.description = MEASURE

    def _say(self, words: str) -> None:
        self.note.value = said(words, "tl-note")


def _warning(runs: Sequence[RunFolder]) -> str:
    if not runs:
        return "A lexicon alone does not name the text it was made from; compare align runs to measure the difference."
    texts = [name for name in measured_otherwise(runs[0], runs[-1]) if name in ("text", "max_bytes", "seed")]
    if texts:
        return f"Made from different text ({', '.join(texts)} differ): B may have learned from what A holds out."
    return ""
