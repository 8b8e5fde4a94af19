"""Which of two lexicons scores higher, asked of the same held-out documents; a button, since it reads a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.evaluation.comparison import paired_scores
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import held_out_of, measured_otherwise
from tokalign_lab.vocabulary import Vocabulary

from ..common.background import Latest
from ..common.part import Bar, html, said, shown
from .view import Paired, Side

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
        self._latest = Latest()
        self.measure = self.button(
            MEASURE, self.press, "tl-measure-difference",
            "Scores of both on the same held-out documents, and the interval of the difference",
        )  # fmt: skip
        self.sentences = self.check(
            "Sentence score and BERTScore too (slower)", "", value=True, tooltip="By the packaged sentence encoder"
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
        self._latest.submit(lambda is_current: None)
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

        self.newest(self._latest, work, show, self._ended)

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
