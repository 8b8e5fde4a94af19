"""Co-occurrence counts of a whole text, within a memory limit, and cached by content.

`cooccurrence.py` counts a text that fits into memory. Here a text is split into as many parts as the limit requires,
also inside documents. The sums of each part are written to disk as a sorted run, and the runs are merged, both in
blocks of rows. Sums are integers, so the result has the same bits for any limit. (Stanford's `cooccur` does this with
floating-point numbers and one record per pair.)

The counts are cached under the hash of text, tokenizer, window and minimum count, and every GloVe training on that text
uses them: 8 bytes per pair, 170 MB for 19 million tokens of English at a window of 15. They are memory-mapped.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.files import cache_folder, cached_folder, hash_of
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.compiled import n_threads
from tokalign_lab.vectors.cooccurrence import RowSums, sparse_rows, to_float, weights_of
from tokalign_lab.vectors.stream import Kept, Stream, keep_frequent, part_stream

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

MAX_BYTES = 2 * 2**30
"""Maximum bytes of memory for counting; less than a notebook has."""
_VERSION = "1"  # raise it when the counts of the same text change
_TOKEN_BYTES = 16  # per token of a part: its number, a document end, a position in the index
_PAIR_BYTES = 24  # per pair of a block of rows: column and sum, and the conversion of the sum to float32
_MERGE_BYTES = 36  # per pair while a block is merged: column and sum, three times (the sum so far, input, output)


@dataclass(frozen=True)
class TextCounts:
    """Co-occurrence counts of a text.

    Parameters
    ----------
    ids : int64 (n,), the tokens that occur at least `min_count` times, ascending
    occurrences : int64 (n,), number of occurrences of each
    counts : float32 (n, n), symmetric, weighted by 1 / distance
    """

    ids: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    counts: csr_array


def text_counts(
    corpus: Corpus,
    vocabulary_size: int,
    window: int = 15,
    min_count: int = 5,
    max_bytes: int = MAX_BYTES,
    progress: Progress = silent,
    cached: bool = True,
    device: str | None = None,
) -> TextCounts:
    """Count co-occurrences of tokens in a text, or load the counts from the cache.

    Raises `InputError` if no token occurs `min_count` times, or `max_bytes` is too low for this vocabulary and text.

    Parameters
    ----------
    corpus, vocabulary_size, cached : as in `glove.glove_vectors`
    window, min_count : maximum distance, in tokens to each side; minimum occurrences of a token
    max_bytes : maximum memory for counting; more is faster, and the result is the same. The tokenised text is
        memory-mapped and not included.
    progress : called before every part of the text
    device : "cpu", or a GPU such as "cuda", on which each part is counted; None for a GPU if there is one
    """

    def count(folder: Path) -> None:
        kept = kept_tokens(corpus, vocabulary_size, min_count)
        weights = weights_of(window, kept.counts)
        bounds, budget = split_text(kept, len(corpus.ids), window, max_bytes)
        where = str(pick_device(device))

        def blocks_of(part: int) -> Iterator[csr_array]:
            progress(part / len(bounds), f"counting co-occurrences, part {part + 1} of {len(bounds)}")
            # The stream gets no name, so that its memory is freed before the next one is made.
            return sum_blocks(
                part_stream(corpus.ids, corpus.offsets, kept, *bounds[part], window), weights, budget // 2, where
            )

        if len(bounds) == 1:
            write_counts(folder, kept, blocks_of(0))
        else:
            runs = [write_rows(folder / f"run-{part}", blocks_of(part)) for part in range(len(bounds))]
            merge_runs(folder, kept, runs, budget)

    return load_or_count(corpus, window, min_count, count, cached)


def load_or_count(
    corpus: Corpus, window: int, min_count: int, count: Callable[[Path], None], cached: bool = True
) -> TextCounts:
    """Load the counts of this text from the cache, or call `count`, which writes them to a folder, and cache it."""
    if not cached:
        with tempfile.TemporaryDirectory(prefix="tokalign-counts-") as name:
            count(Path(name))
            return _read_counts(Path(name))  # the mapped files stay readable after they are deleted
    key = json.dumps({"window": window, "min_count": min_count}, sort_keys=True)
    parts = [_VERSION, corpus.vocabulary_fingerprint, corpus.reading, corpus.text_hash, key]
    folder = cache_folder() / "counts" / hash_of(item.encode() for item in parts)[:32]
    return _read_counts(cached_folder(folder, count))


def kept_tokens(corpus: Corpus, vocabulary_size: int, min_count: int) -> Kept:
    """Find the tokens that occur at least `min_count` times. Raises InputError if there are none."""
    kept = keep_frequent(corpus.ids, vocabulary_size, min_count)
    if not len(kept.ids):
        raise InputError(f"No token occurs {min_count} times in the text; give more text.")
    return kept


def split_text(kept: Kept, n_tokens: int, window: int, max_bytes: int) -> tuple[list[tuple[int, int]], int]:
    """Split a text so that counting one part, and merging all parts, stays within `max_bytes`.

    Returns the begin and end of each part, and the bytes for a part and its blocks of rows, or for merging. Raises
    InputError if the limit is too low for the vocabulary and the text.
    """
    n = len(kept.ids)
    # The row that each thread sums, and the arrays with ids and counts of the tokens.
    fixed = n_threads() * 16 * n + 12 * len(kept.number_of) + 48 * n
    # A part takes half of the budget, which makes 2 * _TOKEN_BYTES * n_tokens / budget parts. The merge needs the row
    # starts of all parts at once, and one row, which may have n columns in each part.
    widest = math.isqrt(2 * _TOKEN_BYTES * n_tokens * n * (8 + _MERGE_BYTES)) + 1
    margin = 2 * window + 64
    least = max(widest, 2 * _PAIR_BYTES * n, 4 * _TOKEN_BYTES * margin)
    if max_bytes < fixed + least:
        raise InputError(
            f"Counting {n_tokens:,} tokens of {n:,} kinds needs at least {(fixed + least) / 1e6:.1f} MB of memory, "
            f"but max_bytes allows {max_bytes / 1e6:.1f} MB; allow more."
        )
    budget = max_bytes - fixed
    size = budget // (2 * _TOKEN_BYTES) - margin
    return [(first, min(first + size, n_tokens)) for first in range(0, n_tokens, size)], budget


def sum_blocks(stream: Stream, weights: NDArray[np.int64], max_bytes: int, device: str = "cpu") -> Iterator[csr_array]:
    """Yield the sums of a part of a text, in blocks of rows that fit in `max_bytes`; on a GPU as one block."""
    n = len(stream.ids)
    every_token = np.arange(n, dtype=np.int32)
    if device != "cpu":
        from tokalign_lab.vectors.torch_backend import sum_contexts

        yield sum_contexts(stream, every_token, n, weights, 0, device)
        return
    rows = RowSums(stream, every_token, n, weights)
    for first, last in row_blocks(rows.starts, max_bytes // _PAIR_BYTES):
        yield rows.block(first, last, np.int64)


def merge_runs(folder: Path, kept: Kept, runs: list[Path], max_bytes: int = MAX_BYTES) -> None:
    """Write the counts of all runs to `folder` and remove the runs."""
    write_counts(folder, kept, merged_blocks(runs, len(kept.ids), max_bytes))
    for run in runs:
        shutil.rmtree(run)


def write_counts(folder: Path, kept: Kept, blocks: Iterable[csr_array]) -> None:
    """Write sums as counts: ids.npy, occurrences.npy, starts.npy, columns.i32 and values.f32."""
    write_rows(folder, map(to_float, blocks), "values.f32")
    np.save(folder / "ids.npy", kept.ids)
    np.save(folder / "occurrences.npy", kept.counts)


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

    for first, last in row_blocks(at_most, for_pairs // _MERGE_BYTES):
        yield reduce(add, (rows_of(run, own[first : last + 1]) for run, own in zip(runs, starts, strict=True)))


def row_blocks(starts: NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of blocks of at most `size` pairs, with at least one row each."""
    first, n = 0, len(starts) - 1
    while first < n:
        last = int(np.searchsorted(starts, starts[first] + size, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield first, last
        first = last


def _read_counts(folder: Path) -> TextCounts:
    ids, occurrences, starts = (np.load(folder / f"{name}.npy") for name in ("ids", "occurrences", "starts"))
    columns, values = np.zeros(0, np.int32), np.zeros(0, np.float32)
    if starts[-1]:  # NumPy cannot memory-map an empty file
        columns = np.memmap(folder / "columns.i32", np.int32, "r")
        values = np.memmap(folder / "values.f32", np.float32, "r")
    return TextCounts(ids, occurrences, sparse_rows(values, columns, starts, len(ids)))
