"""A text prepared for counting: rare tokens removed, the others renumbered, and an index of their positions.

As in Stanford's `cooccur`, a token rarer than `min_count` is removed *before* distances are counted, which reduces the
distance of its neighbours. A part of a text may begin and end anywhere; it includes the neighbours of its outermost
tokens, so parts can be counted separately, one after another or on other machines. Memory is 12 bytes per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.vectors.compiled import njit

_BATCH_IDS = 2**16  # ids that are counted together, because NumPy converts them to int64 first


@dataclass(frozen=True)
class Kept:
    """The tokens that occur often enough, renumbered 0 to n - 1.

    Parameters
    ----------
    ids : int64 (n,), the token id of each number, ascending
    counts : int64 (n,), occurrences of each in the text
    number_of : int32 (vocabulary size,), the number of each id; -1 for a rare token
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    number_of: NDArray[np.int32]


@dataclass(frozen=True)
class Stream:
    """A text, or a part of one, without its rare tokens.

    Parameters
    ----------
    ids, counts : as in `Kept`; `counts` are of the whole text
    tokens : int32 (m,), the numbers in the order of the text; -1 before, between and after documents. A part begins and
        ends with the neighbours of its outermost tokens.
    starts, places : int64, inverted index of the part without those neighbours: token i is at the positions
        `places[starts[i] : starts[i + 1]]` of `tokens`
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]


def keep_frequent(ids: NDArray[np.int32], vocabulary_size: int, min_count: int = 5) -> Kept:
    """Find the tokens that occur at least `min_count` times, without a copy of the text.

    Raises InputError if the text has an id that the vocabulary lacks.
    """
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary_size:
        raise InputError(
            f"The text has token ids from {int(ids.min())} to {int(ids.max())}, but the vocabulary has only "
            f"{vocabulary_size}; tokenise the text with its own tokenizer."
        )
    counts = np.zeros(vocabulary_size, dtype=np.int64)
    for first in range(0, len(ids), _BATCH_IDS):
        counts += np.bincount(ids[first : first + _BATCH_IDS], minlength=vocabulary_size)
    kept = np.flatnonzero(counts >= min_count).astype(np.int64)
    number_of = np.full(vocabulary_size, -1, dtype=np.int32)
    number_of[kept] = np.arange(len(kept), dtype=np.int32)
    return Kept(kept, counts[kept], number_of)


def make_stream(ids: NDArray[np.int32], offsets: NDArray[np.int64], vocabulary_size: int, min_count: int = 5) -> Stream:
    """Remove tokens rarer than `min_count` and index the positions of the others.

    `ids`, int32 (n_tokens,), are the token ids of all documents, one after another; `offsets`, int64
    (n_documents + 1,), are the starts of the documents, and the end.
    """
    return part_stream(ids, offsets, keep_frequent(ids, vocabulary_size, min_count), 0, len(ids), window=0)


def part_stream(
    ids: NDArray[np.int32], offsets: NDArray[np.int64], kept: Kept, first: int, last: int, window: int
) -> Stream:
    """Index `ids[first:last]`, with `window` kept neighbours on each side from the same document.

    The counts of the parts of a text add up to the counts of the text, wherever it is split.
    """
    tokens, begin, end = part_tokens(ids, offsets, kept, first, last, window)
    return Stream(kept.ids, kept.counts, tokens, *index_places(tokens, begin, end, len(kept.ids)))


def part_tokens(
    ids: NDArray[np.int32], offsets: NDArray[np.int64], kept: Kept, first: int, last: int, window: int
) -> tuple[NDArray[np.int32], int, int]:
    """Return `Stream.tokens` of a part, and the begin and end of the part in it, without the neighbours."""
    offsets = np.asarray(offsets, dtype=np.int64)
    documents = np.searchsorted(offsets, [first, last], side="right")
    tokens = np.empty((last - first) + int(documents[1] - documents[0]) + 2 * window + 3, dtype=np.int32)
    begin, end, length = _fill_tokens(
        np.asarray(ids), offsets, kept.number_of, max(0, int(documents[0]) - 1), first, last, window, tokens
    )
    return tokens[:length], begin, end


def index_places(
    tokens: NDArray[np.int32], begin: int, end: int, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `Stream.starts` and `Stream.places` of `tokens[begin:end]`, whose numbers are below n."""
    starts = np.zeros(n + 1, dtype=np.int64)
    return starts, _index_places(tokens, begin, end, starts)


@njit()
def _fill_tokens(ids, offsets, number_of, document, first, last, window, tokens):  # type: ignore[no-untyped-def]
    """Write the numbers of ids[first:last] with neighbours to `tokens`; return begin and end of the part, and size."""
    tokens[0] = -1
    m = 1
    start, found = first, 0
    while start > offsets[document] and found < window:
        start -= 1
        if number_of[ids[start]] >= 0:
            found += 1
    for i in range(start, first):
        if number_of[ids[i]] >= 0:
            tokens[m] = number_of[ids[i]]
            m += 1
    begin = m
    while document < len(offsets) - 1 and offsets[document] < last:
        for i in range(max(first, offsets[document]), min(last, offsets[document + 1])):
            number = number_of[ids[i]]
            if number >= 0:
                tokens[m] = number
                m += 1
        if offsets[document + 1] > last:
            break
        tokens[m] = -1
        m += 1
        document += 1
    end = m
    if document < len(offsets) - 1 and offsets[document] < last:
        i, found = last, 0
        while i < offsets[document + 1] and found < window:
            if number_of[ids[i]] >= 0:
                tokens[m] = number_of[ids[i]]
                m += 1
                found += 1
            i += 1
    tokens[m] = -1
    return begin, end, m + 1


@njit()
def _index_places(tokens, begin, end, starts):  # type: ignore[no-untyped-def]
    """Fill `starts` and return the positions of each number, in the order of the text."""
    for place in range(begin, end):
        if tokens[place] >= 0:
            starts[tokens[place] + 1] += 1
    for i in range(1, len(starts)):
        starts[i] += starts[i - 1]
    places = np.empty(starts[-1], dtype=np.int64)
    cursor = starts[:-1].copy()
    for place in range(begin, end):
        number = tokens[place]
        if number >= 0:
            places[cursor[number]] = place
            cursor[number] += 1
    return places
