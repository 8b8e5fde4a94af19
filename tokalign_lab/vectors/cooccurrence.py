"""How often tokens meet: distance-weighted co-occurrence counts of one tokenised text.

A pair of tokens d places apart, with d up to the window, adds 1/d (Pennington et al. 2014, section 4.2). Windows end
where a document ends. `stream.py` takes rare tokens out before places are counted.

Where Stanford's program adds up floating-point numbers in whatever order its sorted runs come in, 1/d is here a whole
number of units of 2^-32 (the share that rounding takes is below 2^-28 for a window of 15), and whole numbers add up to
the same bits in any order: over threads, over parts of the text (`text_counts.py`), over machines (`cluster.py`) and
on a GPU (`torch_backend.py`). One rounding to float32 comes at the very end. The counts of a token need only its own
occurrences: an inverted index lists them, and one thread adds up a row. Memory is 12 bytes for a token of text and 8
for a non-zero count; nothing is ever V x V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.stream import Stream

UNIT = 2.0**-32
"""What one unit of a sum is worth."""
_LARGEST_SUM = 2.0**31  # in weight, what an int64 of such units holds


@dataclass(frozen=True)
class Counts:
    """A sparse matrix in CSR order: row i has `columns[starts[i] : starts[i + 1]]`, ascending, with `values`."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


def count_contexts(
    stream: Stream,
    context_of: NDArray[np.int32],
    n_columns: int,
    window: int = 15,
    right_offset: int = 0,
    device: str | None = None,
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
    device
        "cpu", or a GPU such as "cuda"; a GPU where there is one when None.

    Returns
    -------
    Counts
        (n, n_columns); the same bits for any number of threads and on any device.
    """
    weights = weights_of(window, stream.counts)
    device = str(pick_device(device))
    if device != "cpu":
        from tokalign_lab.vectors.torch_backend import sum_contexts

        starts, columns, sums = sum_contexts(stream, context_of, n_columns, weights, right_offset, device)
        return Counts(starts, columns, to_float(sums))
    rows = RowSums(stream, context_of, n_columns, weights, right_offset)
    values = np.empty(int(rows.starts[-1]), dtype=np.float32)
    columns = np.empty(len(values), dtype=np.int32)
    rows.fill(0, len(stream.ids), columns, values)
    return Counts(rows.starts, columns, values)


def cooccurrence(stream: Stream, window: int = 15, device: str | None = None) -> Counts:
    """Symmetric co-occurrence counts of all tokens of `stream` with each other, (n, n), as GloVe takes them.

    A token that meets itself adds 1/d twice, once from either side, as in Stanford's code.
    """
    n = len(stream.ids)
    return count_contexts(stream, np.arange(n, dtype=np.int32), n, window, device=device)


def weights_of(window: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """1/d for d from 1 to `window` in units of 2^-32, int64.

    Raises
    ------
    InputError
        If a token occurs so often (325 million times at a window of 15) that a sum might not fit.
    """
    weights = np.rint(1.0 / (UNIT * np.arange(1, window + 1))).astype(np.int64)
    most = int(counts.max(initial=0))
    if most * 2 * int(weights.sum()) * UNIT >= _LARGEST_SUM:
        raise InputError(f"One token occurs {most:,} times, more than can be counted; give a part of the text.")
    return weights


def to_float(sums: NDArray[np.int64]) -> NDArray[np.float32]:
    """Turn sums in units into float32, rounding once."""
    return (sums * UNIT).astype(np.float32)


class RowSums:
    """The rows of one count, added up when they are asked for.

    Parameters
    ----------
    stream, context_of, n_columns, right_offset
        As in `count_contexts`.
    weights
        Of `weights_of`.

    Attributes
    ----------
    starts
        int64 (n + 1,), where each row will start; known before any row is kept.
    """

    def __init__(
        self,
        stream: Stream,
        context_of: NDArray[np.int32],
        n_columns: int,
        weights: NDArray[np.int64],
        right_offset: int = 0,
    ) -> None:
        self._arguments = (
            stream.tokens, stream.starts, stream.places, context_of, n_columns, weights, right_offset
        )  # fmt: skip
        # More shares than threads evens out frequent tokens; the result does not depend on the number.
        self._n_shares = 4 * numba.get_num_threads()
        self.starts = np.zeros(len(stream.ids) + 1, dtype=np.int64)
        _row_lengths(*self._arguments, self._n_shares, self.starts[1:])
        np.cumsum(self.starts, out=self.starts)

    def fill(self, first: int, last: int, columns: NDArray[np.int32], values: NDArray[Any]) -> None:
        """Write rows `first` to `last`; int64 `values` are sums in units, float32 ones are counts."""
        unit = np.int64(1) if values.dtype == np.int64 else np.float64(UNIT)
        starts = self.starts[first : last + 1] - self.starts[first]
        _fill_rows(*self._arguments, self._n_shares, first, unit, starts, columns, values)


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
                    sums[column] = 0
                    touched[n_touched] = column
                    n_touched += 1
                sums[column] += weights[k]
    return n_touched


@numba.njit(parallel=True, cache=True)
def _row_lengths(  # type: ignore[no-untyped-def]
    tokens, starts, places, context_of, n_columns, weights, right_offset, n_shares, lengths
):
    for share in numba.prange(n_shares):
        sums = np.empty(n_columns, dtype=np.int64)
        seen = np.full(n_columns, -1, dtype=np.int32)
        touched = np.empty(n_columns, dtype=np.int32)
        for row in range(share, len(lengths), n_shares):
            here = places[starts[row] : starts[row + 1]]
            lengths[row] = _add_row(tokens, here, context_of, weights, right_offset, sums, seen, row, touched)


@numba.njit(parallel=True, cache=True)
def _fill_rows(  # type: ignore[no-untyped-def]
    tokens, starts, places, context_of, n_columns, weights, right_offset, n_shares, first_row, unit, row_starts,
    columns, values,
):  # fmt: skip
    for share in numba.prange(n_shares):
        sums = np.empty(n_columns, dtype=np.int64)
        seen = np.full(n_columns, -1, dtype=np.int32)
        touched = np.empty(n_columns, dtype=np.int32)
        for i in range(share, len(row_starts) - 1, n_shares):
            row = first_row + i
            here = places[starts[row] : starts[row + 1]]
            n_touched = _add_row(tokens, here, context_of, weights, right_offset, sums, seen, row, touched)
            found = np.sort(touched[:n_touched])
            first = row_starts[i]
            for k in range(n_touched):
                columns[first + k] = found[k]
                values[first + k] = sums[found[k]] * unit
