"""Contexts of a token: some of its occurrences in a text, with the text before and after.

Contexts are from the tokenized text, so they show the token itself and not its letters inside other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokalign_lab.corpus import Corpus
from tokalign_lab.spelling import visible
from tokalign_lab.vocabulary import Vocabulary

AROUND = 10  # tokens on each side


@dataclass(frozen=True)
class Context:
    """One occurrence of a token: text before it, its label, text after it, and the index of the document."""

    before: str
    token: str
    after: str
    document: int


def contexts(corpus: Corpus, vocabulary: Vocabulary, token_id: int, most: int = 5) -> tuple[list[Context], int]:
    """Return at most `most` occurrences of a token, spread evenly over the text, and the number of all occurrences."""
    places = np.flatnonzero(corpus.ids == token_id)
    if not len(places):
        return [], 0
    shown = places[np.unique(np.linspace(0, len(places) - 1, most).round().astype(np.int64))]
    documents = np.searchsorted(corpus.offsets, shown, side="right") - 1
    found = []
    for place, document in zip(shown.tolist(), documents.tolist(), strict=True):
        first, end = (int(corpus.offsets[document + k]) for k in (0, 1))
        found.append(
            Context(
                _read(corpus, vocabulary, max(first, place - AROUND), place),
                vocabulary.label(token_id),
                _read(corpus, vocabulary, place + 1, min(end, place + 1 + AROUND)),
                document,
            )
        )
    return found, len(places)


def _read(corpus: Corpus, vocabulary: Vocabulary, first: int, end: int) -> str:
    """Join tokens to readable text; a character in several tokens becomes complete."""
    spelled = b"".join(vocabulary.token_bytes[int(i)] or b"" for i in corpus.ids[first:end])
    return visible(spelled).replace("␣", " ")
