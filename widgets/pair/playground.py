"""The tokenizer playground: a typed text, segmented by two to four tokenizers, and the history of a clicked token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w

from tokalign_lab.merges import TokenHistories
from tokalign_lab.vocabulary import Vocabulary

from ..common.part import Box, PressHtml, bar, html, status_html
from ..common.state import LabState
from .cut_text import clipped, cut_html, history_html

ORDINALS = ("Third", "Fourth")


class Playground(Box):
    """A field for a text, and the text as each tokenizer segments it; `more` has the fields for two more tokenizers.

    Parameters
    ----------
    state : the shared view, with the text
    others : names of the third and the fourth tokenizer
    offered : names of tokenizers to choose from
    on_others : called when the user changes the third or the fourth tokenizer
    load : returns the vocabulary with a given name
    """

    def __init__(
        self,
        state: LabState,
        others: Sequence[str],
        offered: Sequence[str],
        on_others: Callable[[], Any],
        load: Callable[[str], Vocabulary],
    ) -> None:
        self._load = load
        self._shown: list[Vocabulary] = []
        self._histories: dict[str, TokenHistories] = {}
        self.sentence = self.control(
            w.Textarea, "Your text", lambda text: setattr(state, "sentence", text), value=state.sentence, rows=2,
            layout=w.Layout(width="100%"), tooltip="Type any text to see how the tokenizers segment it",
        )  # fmt: skip
        self._others = [
            self.control(
                w.Combobox, place, lambda _name: on_others(), value=name, options=list(offered),
                ensure_option=False, continuous_update=False, placeholder="name, path or hub id",
                tooltip="Another tokenizer for your text, only to compare; may be empty",
            )
            for place, name in zip(ORDINALS, [*others, "", ""], strict=False)
        ]  # fmt: skip
        self.more = bar(*self._others)
        self.cuts, self.history = PressHtml(self.guarded(self._explain)), html("tl-history")
        super().__init__([self.sentence, self.cuts, self.history])

    @property
    def others(self) -> list[str]:
        """Names of the tokenizers shown in addition to source and target."""
        return [box.value.strip() for box in self._others if box.value.strip()]

    def clear(self) -> None:
        """Show no tokens."""
        self.drop()
        self._forget_token()
        self.cuts.html = ""

    def _forget_token(self) -> None:
        self.drop("token")
        self.history.value = ""

    def show(self, pair: Sequence[Vocabulary], counted: Callable[[list[int]], Any]) -> None:
        """Segment the text by this pair and the others; `counted` gets the pair's token counts, [] for no text."""
        text, others = self.sentence.value, self.others

        def work(_wanted: object) -> tuple[list[Vocabulary], str, list[int]]:
            vocabularies = [*pair, *map(self._load, others)]
            if not text:
                return vocabularies, '<div class="tl-empty">Type a text above.</div>', []
            counts = [len(one.spans(clipped(text))) for one in pair]
            return vocabularies, cut_html(vocabularies, text), counts

        def show(found: tuple[list[Vocabulary], str, list[int]]) -> None:
            self._shown, self.cuts.html, counts = found
            self._forget_token()
            counted(counts)

        self.newest(work, show, failed=self.clear)

    def _explain(self, pressed: str) -> None:
        """Show the history of a token: "0 17" is token 17 of the first tokenizer."""
        side, token_id = map(int, pressed.split())
        vocabulary = self._shown[side]
        if vocabulary.fingerprint not in self._histories:
            self.history.value = status_html(f"Reading the merges of {vocabulary.name} …", "tl-busy")

        def work(_wanted: object) -> str:
            if vocabulary.fingerprint not in self._histories:
                self._histories[vocabulary.fingerprint] = TokenHistories(vocabulary)
            history = self._histories[vocabulary.fingerprint].of(token_id)
            return f'<div role="status">{history_html(vocabulary, token_id, history)}</div>'

        def show(found: str) -> None:
            self.history.value = found

        self.newest(work, show, failed=self._forget_token, about="token")
