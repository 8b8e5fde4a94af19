"""The inspector's right side: why the chosen pair is what it is, with neighbours and contexts where they are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import ipywidgets as w

from tokalign_lab.alignment.search.neighbourhoods import Neighbourhood
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import read_documents, split_documents
from tokalign_lab.evaluation.contexts import contexts
from tokalign_lab.vectors.laid_out import LaidOutTokens
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.widgets.background import Latest
from tokalign_lab.widgets.lexicon_view import LexiconView
from tokalign_lab.widgets.why import EMPTY, Neighbour, contexts_html, neighbours_html, why_html

NEAREST = 8
_RECORDED = (
    '<p class="tl-note">This is a recorded run: it keeps neither its vectors nor its text, so there are no neighbours '
    "and no places in the text to show.</p>"
)


class WhyBox(w.VBox):
    """Explains one target token.

    Parameters
    ----------
    view : the lexicon
    vectors : of source and target, None where there are none
    text : how the alignment's text was read: `text`, and optionally `max_bytes` and `seed`; None: no contexts
    show_error : told what goes wrong in the background
    """

    def __init__(
        self,
        view: LexiconView,
        vectors: tuple[TokenVectors | None, TokenVectors | None],
        text: Mapping[str, Any] | None,
        show_error: Callable[[Exception], None],
    ) -> None:
        self._view, self._vectors, self._text, self._show_error = view, vectors, text, show_error
        self._latest = Latest()
        self.pair = w.HTML(EMPTY)
        self.pair.add_class("tl-why-pair")
        self.neighbours, self.contexts = w.HTML(), w.HTML()
        self.neighbours.add_class("tl-neighbours")
        self.contexts.add_class("tl-contexts-box")
        super().__init__([self.pair, self.neighbours, self.contexts])
        self.add_class("tl-why")

    def show(self, target_id: int) -> None:
        """Explain this token, -1 for none; how it is spelled, neighbours and contexts follow from the background."""
        self.pair.value = why_html(self._view.details(target_id)) if target_id >= 0 else EMPTY
        self.neighbours.value = ""
        looking = target_id >= 0 and self._can_read
        self.contexts.value = '<p class="tl-note">Looking for both tokens in the text …</p>' if looking else ""
        if target_id >= 0:
            self._latest.submit(lambda is_current: self._add(target_id, is_current))

    @property
    def _can_read(self) -> bool:
        return self._text is not None and all(self._view.labels.vocabularies.values())

    def _add(self, target_id: int, is_current: Callable[[], bool]) -> None:
        try:
            explained = why_html(self._view.details(target_id) | self._view.pieces_of(target_id))
            if is_current():
                self.pair.value = explained
            if any(isinstance(vectors, LaidOutTokens) for vectors in self._vectors):
                self.neighbours.value = _RECORDED
            elif all(vectors is not None for vectors in self._vectors):
                near = neighbours_html(*self._near(target_id))
                if is_current():
                    self.neighbours.value = near
            if self._can_read:
                pair, source_id = self._pair, int(self._view.source_of[target_id])
                found = contexts_html(
                    contexts(pair.target_corpus, pair.target, target_id),
                    contexts(pair.source_corpus, pair.source, source_id),
                )
                if is_current():
                    self.contexts.value = found
        except Exception as error:
            if is_current():
                self.contexts.value = ""
                self._show_error(error)

    @cached_property
    def _spaces(self) -> tuple[Neighbourhood, Neighbourhood]:
        source, target = self._vectors
        assert source is not None
        assert target is not None
        return Neighbourhood(source), Neighbourhood(target)

    @cached_property
    def _pair(self) -> TokenizedPair:
        """The text that the lexicon was learned from; an align run has left it tokenised in the cache."""
        assert self._text is not None
        seed = int(self._text.get("seed") or 0)
        train, _ = split_documents(read_documents(self._text["text"], self._text.get("max_bytes"), seed), seed=seed)
        vocabularies = self._view.labels.vocabularies
        return tokenize_pair(vocabularies["source"], vocabularies["target"], train)

    def _near(self, target_id: int) -> tuple[list[Neighbour], list[Neighbour]]:
        view, (source_space, target_space) = self._view, self._spaces
        targets = target_space.of(target_id, NEAREST)
        sources = source_space.of(int(view.source_of[target_id]), NEAREST)
        theirs = {int(view.source_of[i]) for i, _ in targets}
        near = {i for i, _ in sources}
        return (
            [Neighbour(view.labels.of("target", i), value, int(view.source_of[i]) in near) for i, value in targets],
            [Neighbour(view.labels.of("source", i), value, i in theirs) for i, value in sources],
        )
