"""Which of two lexicons scores higher, asked of the same held-out documents; a button, since it reads a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import ipywidgets as w

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.evaluation.comparison import paired_scores
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import held_out_of, measured_otherwise
from tokalign_lab.vocabulary import Vocabulary

from ..common.background import Latest
from ..common.panel import button
from .view import Paired, Side

MEASURE, STOP = "Measure the difference", "Stop measuring"
_RECORDED = (
    "A recorded run keeps neither its text nor its tokenizers, so the difference cannot be measured document by "
    "document; the intervals above are those that were measured."
)


class _Stopped(Exception):
    """Nobody waits for the figures any more."""


class DifferenceBar(w.HBox):
    """A button that measures, or stops that, and words that say how far it is or why it cannot.

    Parameters
    ----------
    guarded : wraps a callback so that its errors are seen, and does nothing once the panel is closed
    vocabularies : gives the source and target vocabulary of a lexicon
    show : called with the scores
    """

    def __init__(
        self,
        guarded: Callable[[Callable[..., None]], Callable[..., None]],
        vocabularies: Callable[[Lexicon], Sequence[Vocabulary]],
        show: Callable[[Paired], None],
    ) -> None:
        self._guarded, self._vocabularies, self._show = guarded, vocabularies, guarded(show)
        self._pair: tuple[Lexicon, Lexicon, RunFolder] | None = None
        self._latest = Latest()
        self.button = button(
            MEASURE, guarded(self.press), "tl-measure-difference",
            "Scores of both on the same held-out documents, and the interval of the difference",
        )  # fmt: skip
        self.sentences = w.Checkbox(value=True, description="Sentence score and BERTScore too (slower)", indent=False)
        self.sentences.layout.width = "auto"
        self.note = w.HTML()
        super().__init__([self.button, self.sentences, self.note])
        self.add_class("tl-bar")

    def offer(self, a: Side, b: Side) -> None:
        """Get ready for these two; the text is that of the first of them that is an align run."""
        self._stop()  # what is being measured is of another pair
        runs = [side.run for side in (a, b) if side.run is not None and side.run.info()["kind"] == "align"]
        self._pair = None
        recorded = any("recorded" in one.lexicon.provenance for one in (a, b) if one.lexicon is not None)
        if recorded:
            runs = []
        if a.lexicon is not None and b.lexicon is not None and runs:
            self._pair = (a.lexicon, b.lexicon, runs[0])
        self.button.disabled = self.sentences.disabled = self._pair is None
        self.layout.display = "none" if a.lexicon is None or b.lexicon is None else ""
        self._say(_RECORDED if recorded else _warning(runs))

    def press(self) -> None:
        """Begin to measure, or stop."""
        if self.button.description == STOP:
            self._stop()
            self._say("Stopped.")
        elif self._pair is not None:
            self._measure(*self._pair)

    def _stop(self) -> None:
        self._latest.submit(lambda is_current: None)
        self.button.description = MEASURE

    def _measure(self, a: Lexicon, b: Lexicon, run: RunFolder) -> None:
        """Score both on the same documents, away from the callback."""
        encoder = "minilm" if self.sentences.value else None
        self.button.description = STOP
        self._say("Reading the held-out text …")

        def work(is_current: Callable[[], bool]) -> None:
            def tell(share: float, words: str) -> None:
                if not is_current():
                    raise _Stopped
                self._say(f"{share:.0%}: {words} …")

            def score() -> None:
                try:
                    documents = held_out_of(run)
                    tell(0.0, f"Tokenising {len(documents):,} documents both ways")
                    pair = tokenize_pair(*self._vocabularies(a), documents)
                    found = paired_scores(a, b, pair, encoder, progress=tell)
                    tell(1.0, "done")
                except _Stopped:
                    return
                except Exception:
                    self._say("")
                    raise
                self._say("")
                self._show(found)

            try:
                self._guarded(score)()
            finally:
                if is_current():
                    self.button.description = MEASURE

        self._latest.submit(work)

    def _say(self, words: str) -> None:
        self.note.value = f'<div class="tl-note" role="status">{escape(words)}</div>'


def _warning(runs: Sequence[RunFolder]) -> str:
    if not runs:
        return "A lexicon alone does not name the text it was made from; compare align runs to measure the difference."
    texts = [name for name in measured_otherwise(runs[0], runs[-1]) if name in ("text", "max_bytes", "seed")]
    if texts:
        return f"Made from different text ({', '.join(texts)} differ): B may have learned from what A holds out."
    return ""
