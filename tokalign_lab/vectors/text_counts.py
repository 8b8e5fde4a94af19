"""Co-occurrence counts of a whole text, within a bound of memory, and kept by content.

`cooccurrence.py` counts what fits into memory. Here a text is cut into parts, wherever the bound asks for it, inside
documents too; each part's sums go to disk as a sorted run, a block of rows at a time; and the runs are merged, again a
block of rows at a time. Sums are whole numbers, so the result has the same bits for any bound. (Stanford's `cooccur`
does this with floating-point numbers and one record a pair, which its `shuffle` must then sort out.)

Counts of a text stay in the cache folder, named by the hash of text, tokenizer, window and least count, and every
GloVe training on that text takes them from there: 8 bytes a pair, 170 MB for 19 million tokens of English at a window
of 15. They are read through memory maps.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.files import cache_folder, cached_folder, hash_of
from tokalign_lab.progress import Progress
from tokalign_lab.vectors.cooccurrence import Counts, RowSums, to_float, weights_of
from tokalign_lab.vectors.spill import MERGE_BYTES, Block, merged_blocks, remove_runs, row_blocks, write_run
from tokalign_lab.vectors.stream import Kept, Stream, keep_frequent, part_stream

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

MAX_BYTES = 2 * 2**30
"""Memory that counting may hold at once; less than a notebook has."""
_VERSION = "1"  # raise it when the counts of the same text change
_TOKEN_BYTES = 16  # of a part: the number of each token, the end of a document, a place in the index
_PAIR_BYTES = 24  # of a block of rows: column and sum, and the sum as it becomes a float32


@dataclass(frozen=True)
class TextCounts:
    """How often the tokens of a text meet each other.

    Parameters
    ----------
    ids
        int64 (n,), the tokens that occur often enough, ascending.
    occurrences
        int64 (n,), how often each occurs.
    counts
        (n, n), symmetric.
    """

    ids: NDArray[np.int64]
    occurrences: NDArray[np.int64]
    counts: Counts


def text_counts(
    corpus: Corpus,
    vocabulary_size: int,
    window: int = 15,
    min_count: int = 5,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
    cached: bool = True,
    device: str | None = None,
) -> TextCounts:
    """Count which tokens of a text meet, or find the counts of an earlier time.

    Parameters
    ----------
    corpus, vocabulary_size, cached
        As in `glove.glove_vectors`.
    window, min_count
        Farthest distance that counts, in tokens to either side; least number of occurrences of a token that is kept.
    max_bytes
        Memory that counting may hold at once; more of it is faster, and the result is the same. The tokenised text
        is memory-mapped and does not count; nor does a result that is not cached.
    progress
        Told after every part of the text.
    device
        "cpu", or a GPU such as "cuda", on which each part is counted; a GPU where there is one when None.

    Raises
    ------
    InputError
        If no token occurs `min_count` times, or `max_bytes` is too little for this vocabulary and this text.
    """

    def count(folder: Path) -> None:
        kept = kept_tokens(corpus, vocabulary_size, min_count)
        weights = weights_of(window, kept.counts)
        bounds, budget = cut_text(kept, len(corpus.ids), window, max_bytes)
        where = str(pick_device(device))

        def blocks_of(part: int) -> Iterator[Block]:
            if progress is not None:
                progress(part / len(bounds), f"counting co-occurrences, part {part + 1} of {len(bounds)}")
            # No name for the stream: it must be gone before the next one is made.
            return sum_blocks(
                part_stream(corpus.ids, corpus.offsets, kept, *bounds[part], window), weights, budget // 2, where
            )

        if len(bounds) == 1:
            write_counts(folder, kept, blocks_of(0))
            return
        runs = [write_run(folder / f"run-{part}", blocks_of(part)) for part in range(len(bounds))]
        write_counts(folder, kept, merged_blocks(runs, len(kept.ids), budget))
        remove_runs(runs)

    return remembered_counts(corpus, window, min_count, count, cached)


def remembered_counts(
    corpus: Corpus, window: int, min_count: int, count: Callable[[Path], None], cached: bool = True
) -> TextCounts:
    """Open the counts of this text from the cache folder, or have `count` write them into a folder and keep it."""
    if not cached:
        with tempfile.TemporaryDirectory(prefix="tokalign-counts-") as name:
            count(Path(name))
            return _read_counts(Path(name), mapped=False)
    key = json.dumps({"window": window, "min_count": min_count}, sort_keys=True)
    parts = [_VERSION, corpus.vocabulary_fingerprint, corpus.text_hash, key]
    folder = cache_folder() / "counts" / hash_of(item.encode() for item in parts)[:32]
    return _read_counts(cached_folder(folder, count), mapped=True)


def kept_tokens(corpus: Corpus, vocabulary_size: int, min_count: int) -> Kept:
    """Find the tokens that occur `min_count` times.

    Raises
    ------
    InputError
        If there is none.
    """
    kept = keep_frequent(corpus.ids, vocabulary_size, min_count)
    if not len(kept.ids):
        raise InputError(f"No token occurs {min_count} times in the text; give more text.")
    return kept


def cut_text(kept: Kept, n_tokens: int, window: int, max_bytes: int) -> tuple[list[tuple[int, int]], int]:
    """Where to cut a text so that counting a part of it, and merging all parts, keeps the bound.

    Returns
    -------
    bounds
        First and last position of each part.
    budget
        Bytes for a part and its blocks of rows, or for merging.

    Raises
    ------
    InputError
        If the bound is too low for the vocabulary and the text.
    """
    n = len(kept.ids)
    # The row that each thread adds up, and the arrays that name and count the tokens.
    fixed = numba.get_num_threads() * 16 * n + 12 * len(kept.number_of) + 48 * n
    # A part takes half of the budget, which makes 2 * _TOKEN_BYTES * n_tokens / budget parts; when they are merged,
    # the starts of all their rows are there at once, and a row may be n wide in each and must fit.
    widest = math.isqrt(2 * _TOKEN_BYTES * n_tokens * n * (8 + MERGE_BYTES)) + 1
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


def sum_blocks(stream: Stream, weights: NDArray[np.int64], max_bytes: int, device: str = "cpu") -> Iterator[Block]:
    """Add up the rows of a part of a text, in blocks that fit `max_bytes`; a GPU gives all of them as one block."""
    n = len(stream.ids)
    everyone = np.arange(n, dtype=np.int32)
    if device != "cpu":
        from tokalign_lab.vectors.torch_backend import sum_contexts

        yield sum_contexts(stream, everyone, n, weights, 0, device)
        return
    rows = RowSums(stream, everyone, n, weights)
    for first, last in row_blocks(rows.starts, max_bytes // _PAIR_BYTES):
        starts = rows.starts[first : last + 1] - rows.starts[first]
        columns, sums = np.empty(starts[-1], dtype=np.int32), np.empty(starts[-1], dtype=np.int64)
        rows.fill(first, last, columns, sums)
        yield starts, columns, sums


def write_counts(folder: Path, kept: Kept, blocks: Iterator[Block]) -> None:
    """Write finished sums as counts: ids.npy, occurrences.npy, starts.npy, columns.i32 and values.f32."""
    starts = [np.zeros(1, dtype=np.int64)]
    with open(folder / "columns.i32", "wb") as columns_file, open(folder / "values.f32", "wb") as values_file:
        for block_starts, columns, sums in blocks:
            starts.append(starts[-1][-1] + block_starts[1:])
            columns.tofile(columns_file)
            to_float(sums).tofile(values_file)
    np.save(folder / "ids.npy", kept.ids)
    np.save(folder / "occurrences.npy", kept.counts)
    np.save(folder / "starts.npy", np.concatenate(starts))


def _read_counts(folder: Path, mapped: bool) -> TextCounts:
    starts = np.load(folder / "starts.npy")
    columns, values = (
        _read_flat(folder / name, dtype, mapped)
        for name, dtype in (("columns.i32", np.int32), ("values.f32", np.float32))
    )
    if not len(columns) == len(values) == starts[-1]:
        raise ValueError(f"{folder} is cut off")
    counts = Counts(starts, columns, values)
    return TextCounts(np.load(folder / "ids.npy"), np.load(folder / "occurrences.npy"), counts)


def _read_flat(path: Path, dtype: Any, mapped: bool) -> NDArray[Any]:
    if not mapped or not path.stat().st_size:  # numpy cannot map an empty file
        return np.fromfile(path, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))
