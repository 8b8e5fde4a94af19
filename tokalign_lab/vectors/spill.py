"""Sums that do not fit into memory: rows on disk, and the merge of the runs that the parts of a text write.

Each part of a text writes its sums as one run. Blocks of rows are read from all runs and added. Sums are integers (see
`cooccurrence.py`), so neither the order of the runs nor the size of the blocks changes the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokalign_lab.vectors.cooccurrence import sparse_rows

MERGE_BYTES = 36
"""Bytes per pair while a block is merged: column and sum, three times (the sum so far, the input, the output)."""


def write_rows(folder: Path, blocks: Iterable[csr_array], values: str = "sums.i64") -> Path:
    """Write blocks of rows one after another: starts.npy, columns.i32 and the file `values`; return the folder."""
    folder.mkdir(exist_ok=True)
    starts = [np.zeros(1, dtype=np.int64)]
    with open(folder / "columns.i32", "wb") as columns_file, open(folder / values, "wb") as values_file:
        for block in blocks:
            starts.append(starts[-1][-1] + block.indptr[1:])
            block.indices.astype(np.int32, copy=False).tofile(columns_file)
            block.data.tofile(values_file)
            del block  # before the next one is made
    np.save(folder / "starts.npy", np.concatenate(starts))
    return folder


def merged_blocks(runs: Sequence[Path], n: int, max_bytes: int) -> Iterator[csr_array]:
    """Yield the sum of all runs, int64 rows of n columns, in blocks of rows that fit in `max_bytes`."""
    starts = [np.load(run / "starts.npy", mmap_mode="r") for run in runs]
    at_most = reduce(add, starts, np.zeros(n + 1, dtype=np.int64))
    for_pairs = max(max_bytes - 8 * n * len(runs), max_bytes // 4)  # the row starts of all runs take the difference

    def rows_of(run: Path, own: NDArray[np.int64]) -> csr_array:
        begin, size = int(own[0]), int(own[-1] - own[0])
        columns = np.fromfile(run / "columns.i32", np.int32, size, offset=4 * begin)
        sums = np.fromfile(run / "sums.i64", np.int64, size, offset=8 * begin)
        return sparse_rows(sums, columns, own - begin, n)

    for first, last in row_blocks(at_most, for_pairs // MERGE_BYTES):
        yield reduce(add, (rows_of(run, own[first : last + 1]) for run, own in zip(runs, starts, strict=True)))


def row_blocks(starts: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of blocks of at most `size` pairs, with at least one row each."""
    first, n = 0, len(starts) - 1
    while first < n:
        last = int(np.searchsorted(starts, starts[first] + size, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield first, last
        first = last
