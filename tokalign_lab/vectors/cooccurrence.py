"""How often tokens meet: distance-weighted co-occurrence counts of one tokenised text.

A pair of tokens d places apart, with d up to the window, adds 1/d (Pennington et al. 2014, section 4.2). Windows end
where a document ends. As in Stanford's `cooccur`, a token rarer than `min_count` is taken out *before* places are
counted, so its neighbours move together.

The counts of a token need only its own occurrences: an inverted index lists them, and each row is added up by one
thread in the order of the text, in float64. The result is therefore the same to the last bit for any number of
threads. Memory is 8 to 12 bytes for a token of text and 8 for a non-zero count; nothing is ever V x V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stream:
    """A text whose rare tokens are taken out and whose remaining tokens are renumbered 0 to n - 1.

    Parameters
    ----------
    ids
        int64 (n,), the token id of each number, ascending.
    counts
        int64 (n,), occurrences of each in the text.
    tokens
        int32 (m,), the numbers in the order of the text; -1 before, between and after documents.
    starts, places
        Inverted index: token i stands at `places[starts[i] : starts[i + 1]]` of `tokens`; int64.
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """A sparse matrix in CSR order: row i has `columns[starts[i] : starts[i + 1]]`, ascending, with `values`."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


def make_stream(ids: NDArray[np.int32], offsets: NDArray[np.int64], vocabulary_size: int, min_count: int = 5) -> Stream:
    """Take out tokens rarer than `min_count` and index where the others stand.

    Parameters
    ----------
    ids
        int32 (n_tokens,), token ids of all documents, one after another.
    offsets
        int64 (n_documents + 1,), where each document starts in `ids`, and the end.
    vocabulary_size
        One more than the highest id.
    min_count
        Least number of occurrences of a token that is kept.
    """
    all_counts = np.bincount(ids, minlength=vocabulary_size) if len(ids) else np.zeros(vocabulary_size, np.int64)
    kept = np.flatnonzero(all_counts >= min_count).astype(np.int64)
    number_of = np.full(vocabulary_size, -1, dtype=np.int32)
    number_of[kept] = np.arange(len(kept), dtype=np.int32)
    counts = all_counts[kept].astype(np.int64)
    tokens = np.empty(int(counts.sum()) + len(offsets), dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    places = np.empty(int(counts.sum()), dtype=np.int64)
    _fill_stream(np.asarray(ids), np.asarray(offsets, dtype=np.int64), number_of, tokens, starts.copy(), places)
    return Stream(kept, counts, tokens, starts, places)


def count_contexts(
    stream: Stream,
    context_of: NDArray[np.int32],
    n_columns: int,
    window: int = 15,
    right_offset: int = 0,
) -> Counts:
    """Count the contexts of every token of `stream`, weighted by 1 / distance.

    Parameters
    ----------
    stream
        The text.
    context_of
        int32 (n,), the column that a token counts in when it is a neighbour; -1 for none.
    n_columns
        Number of columns.
    window
        Farthest distance that counts, in tokens to either side.
    right_offset
        Added to the column of a neighbour on the right; 0 counts both sides together (symmetric).

    Returns
    -------
    Counts
        (n, n_columns).
    """
    n_rows = len(stream.ids)
    # More shares than threads evens out frequent tokens; the result does not depend on the number.
    n_shares = max(1, min(n_rows, 4 * numba.get_num_threads()))
    weights = 1.0 / np.arange(1, window + 1, dtype=np.float64)
    arguments = (stream.tokens, stream.starts, stream.places, context_of, n_columns, weights, right_offset, n_shares)
    lengths = np.zeros(n_rows, dtype=np.int64)
    _row_lengths(*arguments, lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns = np.empty(int(starts[-1]), dtype=np.int32)
    values = np.empty(int(starts[-1]), dtype=np.float32)
    _fill_rows(*arguments, starts, columns, values)
    return Counts(starts, columns, values)


def cooccurrence(stream: Stream, window: int = 15) -> Counts:
    """Symmetric co-occurrence counts of all tokens of `stream` with each other, (n, n), as GloVe takes them.

    A token that meets itself adds 1/d twice, once from either side, as in Stanford's code.
    """
    n = len(stream.ids)
    return count_contexts(stream, np.arange(n, dtype=np.int32), n, window)


@numba.njit(cache=True)
def _fill_stream(ids, offsets, number_of, tokens, cursor, places):  # type: ignore[no-untyped-def]
    tokens[0] = -1
    m = 1
    for document in range(len(offsets) - 1):
        for i in range(offsets[document], offsets[document + 1]):
            number = number_of[ids[i]]
            if number >= 0:
                tokens[m] = number
                places[cursor[number]] = m
                cursor[number] += 1
                m += 1
        tokens[m] = -1
        m += 1


@numba.njit(cache=True)
def _add_row(tokens, places, context_of, weights, right_offset, sums, seen, mark, touched):  # type: ignore[no-untyped-def]
    """Add up one row into `sums`; return how many columns of it, listed in `touched`, are not zero."""
    n_touched = 0
    for place in places:
        for side in range(2):
            for k in range(len(weights)):
                token = tokens[place - 1 - k] if side == 0 else tokens[place + 1 + k]
                if token < 0:
                    break
                column = context_of[token]
                if column < 0:
                    continue
                column += side * right_offset
                if seen[column] != mark:
                    seen[column] = mark
                    sums[column] = 0.0
                    touched[n_touched] = column
                    n_touched += 1
                sums[column] += weights[k]
    return n_touched


@numba.njit(parallel=True, cache=True)
def _row_lengths(  # type: ignore[no-untyped-def]
    tokens, starts, places, context_of, n_columns, weights, right_offset, n_shares, lengths
):
    for share in numba.prange(n_shares):
        sums = np.empty(n_columns, dtype=np.float64)
        seen = np.full(n_columns, -1, dtype=np.int32)
        touched = np.empty(n_columns, dtype=np.int32)
        for row in range(share, len(lengths), n_shares):
            here = places[starts[row] : starts[row + 1]]
            lengths[row] = _add_row(tokens, here, context_of, weights, right_offset, sums, seen, row, touched)


@numba.njit(parallel=True, cache=True)
def _fill_rows(  # type: ignore[no-untyped-def]
    tokens, starts, places, context_of, n_columns, weights, right_offset, n_shares, row_starts, columns, values
):
    for share in numba.prange(n_shares):
        sums = np.empty(n_columns, dtype=np.float64)
        seen = np.full(n_columns, -1, dtype=np.int32)
        touched = np.empty(n_columns, dtype=np.int32)
        for row in range(share, len(row_starts) - 1, n_shares):
            here = places[starts[row] : starts[row + 1]]
            n_touched = _add_row(tokens, here, context_of, weights, right_offset, sums, seen, row, touched)
            found = np.sort(touched[:n_touched])
            first = row_starts[row]
            for i in range(n_touched):
                columns[first + i] = found[i]
                values[first + i] = sums[found[i]]
