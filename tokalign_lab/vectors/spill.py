"""Sums that do not fit into memory: sorted runs on disk, and their merge.

Each part of a text leaves its sums as one run, row after row and in each row column after column. Runs are read
side by side, a block of rows at a time, and added up. Sums are whole numbers (see `cooccurrence.py`), so neither the
order of the runs nor the size of the blocks changes a bit of what comes out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

# Rows one after another: where each starts (from 0), columns, sums in units.
Block = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]

MERGE_BYTES = 36
"""Of a pair in a block that is merged: column and sum as they come in and as they go out, and the float32."""


def write_run(folder: Path, blocks: Iterator[Block]) -> Path:
    """Write one part's sums, starts.npy, columns.i32 and sums.i64, and return the folder."""
    folder.mkdir()
    starts = [np.zeros(1, dtype=np.int64)]
    with open(folder / "columns.i32", "wb") as columns_file, open(folder / "sums.i64", "wb") as sums_file:
        for block_starts, columns, sums in blocks:
            starts.append(starts[-1][-1] + block_starts[1:])
            columns.tofile(columns_file)
            sums.tofile(sums_file)
    np.save(folder / "starts.npy", np.concatenate(starts))
    return folder


def remove_runs(runs: Sequence[Path]) -> None:
    """Remove what `write_run` wrote."""
    for run in runs:
        shutil.rmtree(run)


def merged_blocks(runs: Sequence[Path], n: int, max_bytes: int) -> Iterator[Block]:
    """Add up the runs of all parts, in blocks of rows that fit `max_bytes`."""
    run_starts = [np.load(run / "starts.npy", mmap_mode="r") for run in runs]
    at_most = np.zeros(n + 1, dtype=np.int64)
    for starts in run_starts:
        at_most += starts
    for_pairs = max(max_bytes - 8 * n * len(runs), max_bytes // 4)  # the rest is for the starts of all runs' rows
    for first, last in row_blocks(at_most, for_pairs // MERGE_BYTES):
        begins = np.stack([starts[first : last + 1] for starts in run_starts])
        columns = np.empty(at_most[last] - at_most[first], dtype=np.int32)
        sums = np.empty(len(columns), dtype=np.int64)
        filled = 0
        for run, own in zip(runs, begins, strict=True):
            size = own[-1] - own[0]
            _read_into(run / "columns.i32", own[0], columns[filled : filled + size])
            _read_into(run / "sums.i64", own[0], sums[filled : filled + size])
            own += filled - own[0]
            filled += size
        lengths = np.zeros(last - first + 1, dtype=np.int64)
        n_shares = 4 * numba.get_num_threads()
        _merged_lengths(begins, columns, sums, n, n_shares, lengths[1:])
        starts = np.cumsum(lengths)
        merged = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.int64)
        _fill_merged(begins, columns, sums, n, n_shares, starts, *merged)
        del columns, sums
        yield starts, *merged


def _read_into(path: Path, first: int, array: NDArray[Any]) -> None:
    with open(path, "rb") as file:
        file.seek(int(first) * array.itemsize)
        file.readinto(array.data)


def row_blocks(starts: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """First and last row of blocks of at most `size` pairs, and of at least one row."""
    first, n = 0, len(starts) - 1
    while first < n:
        last = int(np.searchsorted(starts, starts[first] + size, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield first, last
        first = last


@numba.njit(cache=True)
def _merge_row(begins, columns, sums, row, total, seen, touched):  # type: ignore[no-untyped-def]
    """Add up one row of all runs into `total`; return how many columns of it, listed in `touched`, there are."""
    n_touched = 0
    for run in range(len(begins)):
        for i in range(begins[run, row], begins[run, row + 1]):
            column = columns[i]
            if seen[column] != row:
                seen[column] = row
                total[column] = 0
                touched[n_touched] = column
                n_touched += 1
            total[column] += sums[i]
    return n_touched


@numba.njit(parallel=True, cache=True)
def _merged_lengths(begins, columns, sums, n, n_shares, lengths):  # type: ignore[no-untyped-def]
    for share in numba.prange(n_shares):
        total = np.empty(n, dtype=np.int64)
        seen = np.full(n, -1, dtype=np.int32)
        touched = np.empty(n, dtype=np.int32)
        for row in range(share, len(lengths), n_shares):
            lengths[row] = _merge_row(begins, columns, sums, row, total, seen, touched)


@numba.njit(parallel=True, cache=True)
def _fill_merged(begins, columns, sums, n, n_shares, starts, out_columns, out_sums):  # type: ignore[no-untyped-def]
    for share in numba.prange(n_shares):
        total = np.empty(n, dtype=np.int64)
        seen = np.full(n, -1, dtype=np.int32)
        touched = np.empty(n, dtype=np.int32)
        for row in range(share, len(starts) - 1, n_shares):
            n_touched = _merge_row(begins, columns, sums, row, total, seen, touched)
            found = np.sort(touched[:n_touched])
            for k in range(n_touched):
                out_columns[starts[row] + k] = found[k]
                out_sums[starts[row] + k] = total[found[k]]
