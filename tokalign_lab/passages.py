"""Split a long text into passages before it is tokenised, so that memory depends on the passage and not on the file.

A tokenizer keeps some hundred bytes per token until the whole text is done: 12 MB in one call take 2.9 GB. A text may
be cut only where its ids stay the same. This depends on the tokenizer: some split at line ends, some put a space before
every text. So each possible cut is tested: the text around it is tokenised as a whole and in two halves, which must
give the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np

Encode = Callable[[Sequence[str]], list[np.ndarray[Any, np.dtype[np.int32]]]]

LONGEST = 250_000
"""Maximum characters of a passage."""
_AROUND = 300  # characters tokenised on each side of a possible cut
_TRIES = 8  # possible cuts of each kind


def passages_of(text: str, encode: Encode, longest: int = LONGEST) -> Iterator[str]:
    """Split a text at line ends, sentence ends or spaces; anywhere if these change the ids.

    `encode` tokenises texts, as `token_table.encode_plainly`. Yields passages of `longest` / 2 to `longest` characters
    (the last may be shorter) whose ids, concatenated, are the ids of the text. A space between two passages is omitted
    if the tokenizer puts one before every text.
    """
    start = 0
    while len(text) - start > longest:
        end, following = _cut(text, start + longest // 2, start + longest, encode)
        yield text[start:end]
        start = following
    yield text[start:]


def _cut(text: str, first: int, last: int, encode: Encode) -> tuple[int, int]:
    """Return the end of a passage and the start of the next one, chosen so that no id changes."""
    places = list(_places(text, first, last))
    for end, following in places:
        left, right = text[max(end - _AROUND, 0) : end], text[following : following + _AROUND]
        one, two, whole = encode([left, right, left + text[end:following] + right])
        if np.array_equal(np.concatenate([one, two]), whole):
            return end, following
    return places[0]  # each of them changes the ids, as in a long word; one token more or less


def _places(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    lines = islice(_found("\n", text, first, last), _TRIES)
    sentences = islice((at for at in _found(" ", text, first, last) if text[at - 1] in ".!?:;。"), _TRIES)
    words = islice(_found(" ", text, first, last), _TRIES)
    anywhere = range(last, max(first, last - _TRIES), -1)
    yield from ((at + 1, at + 1) for at in lines)
    for at in chain(sentences, words):
        yield at, at
        yield at, at + 1
    yield from ((at, at) for at in anywhere)


def _found(what: str, text: str, first: int, last: int) -> Iterator[int]:
    """Yield the positions of a character, last first."""
    at = text.rfind(what, first, last)
    while at > 0:
        yield at
        at = text.rfind(what, first, at)
