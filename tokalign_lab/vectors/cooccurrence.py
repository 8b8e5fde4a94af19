"""Distance-weighted co-occurrence counts of one tokenised text.

A pair of tokens at distance d, up to the window, adds 1/d (Pennington et al. 2014, section 4.2). Windows end where a
document ends. `stream.py` removes rare tokens before distances are counted.

Stanford's program sums floating-point numbers in the order of its sorted runs. Here, 1/d is an integer in units of
2^-32 (for a window of 15 the rounding error is below 2^-28). Integer sums have the same bits in any order: over
threads, over parts of the text (`text_counts.py`), over machines (`cluster.py`) and on a GPU (`torch_backend.py`). Sums
are rounded to float32 once, at the end. An inverted index lists the occurrences of each token, and one thread computes
a row. Memory is 12 bytes per token of text and 8 per non-zero count; no V x V matrix is allocated.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.compiled import n_threads, njit
from tokalign_lab.vectors.stream import Stream

UNIT = 2.0**-32
"""The weight of one unit of a sum."""
_LARGEST_SUM = 2.0**31  # the weight at which an int64 of such units overflows


def count_contexts(
    stream: Stream,
    context_of: NDArray[np.int32],
    n_columns: int,
    window: int = 15,
    right_offset: int = 0,
    device: str | None = None,
) -> csr_array:
    """Count the contexts of every token of `stream`, weighted by 1 / distance.

    Returns float32 (n, n_columns), columns ascending; the same bits for any number of threads and on any device. Two
    occurrences of one token add 1/d twice, once from each side, as in Stanford's code.

    Parameters
    ----------
    stream : the text, of n distinct tokens
    context_of : int32 (n,), the column of each token as a neighbour; -1 for none
    n_columns : number of columns
    window : maximum distance, in tokens to each side
    right_offset : added to the column of a neighbour on the right; 0 counts both sides together (symmetric)
    device : "cpu", or a GPU such as "cuda"; None for a GPU if there is one
    """
    weights = weights_of(window, stream.counts)
    device = str(pick_device(device))
    if device != "cpu":
        from tokalign_lab.vectors.torch_backend import sum_contexts

        return to_float(sum_contexts(stream, context_of, n_columns, weights, right_offset, device))
    return RowSums(stream, context_of, n_columns, weights, right_offset).block(0, len(stream.ids), np.float32)


def weights_of(window: int, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 1/d for d from 1 to `window` in units of 2^-32, int64.

    Raises InputError if a token occurs so often (325 million times at a window of 15) that a sum might overflow.
    """
    weights = np.rint(1.0 / (UNIT * np.arange(1, window + 1))).astype(np.int64)
    most = int(counts.max(initial=0))
    if most * 2 * int(weights.sum()) * UNIT >= _LARGEST_SUM:
        raise InputError(f"One token occurs {most:,} times, more than can be counted; give a part of the text.")
    return weights


def to_float(sums: csr_array) -> csr_array:
    """Convert int64 sums in units to float32 counts, rounding once."""
    return csr_array(((sums.data * UNIT).astype(np.float32), sums.indices, sums.indptr), shape=sums.shape)


def sparse_rows(values: NDArray[Any], columns: NDArray[np.int32], starts: NDArray[Any], n_columns: int) -> csr_array:
    """Make a CSR matrix with int32 columns; scipy would convert them to the dtype of `starts` if that were int64."""
    starts = starts.astype(np.int32) if starts[-1] < 2**31 else starts
    return csr_array((values, columns, starts), shape=(len(starts) - 1, n_columns))


class RowSums:
    """The rows of a co-occurrence matrix; `block` computes some of them.

    Arguments are as in `count_contexts`; `weights` come from `weights_of`. `starts`, int64 (n + 1,), are the CSR starts
    of all rows; they are computed first.
    """

    def __init__(
        self,
        stream: Stream,
        context_of: NDArray[np.int32],
        n_columns: int,
        weights: NDArray[np.int64],
        right_offset: int = 0,
    ) -> None:
        self._n_columns = n_columns
        self._arguments = stream.tokens, stream.starts, stream.places, context_of, n_columns, weights, right_offset
        self.starts = np.zeros(len(stream.ids) + 1, dtype=np.int64)
        nothing = np.empty(0, np.int32), np.empty(0, np.int64)
        self._add_up(0, np.int64(1), self.starts[:-1], *nothing, self.starts[1:])
        np.cumsum(self.starts, out=self.starts)

    def block(self, first: int, last: int, dtype: Any) -> csr_array:
        """Return rows `first` to `last`: sums in units as int64, or counts as float32."""
        unit = np.int64(1) if dtype == np.int64 else np.float64(UNIT)
        starts = self.starts[first : last + 1] - self.starts[first]
        columns, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], dtype)
        self._add_up(first, unit, starts[:-1], columns, values, np.empty(last - first, np.int64))
        return sparse_rows(values, columns, starts, self._n_columns)

    def _add_up(self, first: int, unit: Any, *arrays: NDArray[Any]) -> None:
        # More shares than threads balance the work of frequent tokens; the result does not depend on the number.
        _add_rows(*self._arguments, 4 * n_threads(), first, unit, *arrays)


@njit()
def _add_row(tokens, places, context_of, weights, right_offset, sums, seen, mark, touched):  # type: ignore[no-untyped-def]
    """Add one row to `sums`; return the number of its non-zero columns, which are listed in `touched`."""
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


@njit(parallel=True)
def _add_rows(  # type: ignore[no-untyped-def]
    tokens, starts, places, context_of, n_columns, weights, right_offset, n_shares, first_row, unit, row_starts,
    columns, values, lengths,
):  # fmt: skip
    """Write the length of each row and, unless `columns` is empty, its columns and sums times `unit`."""
    for share in numba.prange(n_shares):
        sums = np.empty(n_columns, dtype=np.int64)
        seen = np.full(n_columns, -1, dtype=np.int32)
        touched = np.empty(n_columns, dtype=np.int32)
        for i in range(share, len(lengths), n_shares):
            row = first_row + i
            here = places[starts[row] : starts[row + 1]]
            n_touched = _add_row(tokens, here, context_of, weights, right_offset, sums, seen, row, touched)
            lengths[i] = n_touched
            if len(columns):
                found = np.sort(touched[:n_touched])
                for k in range(n_touched):
                    columns[row_starts[i] + k] = found[k]
                    values[row_starts[i] + k] = sums[found[k]] * unit
