"""Anchored vectors: both vocabularies in one space at once, from counts alone.

Against `glove.py`, which trains each vocabulary by itself so that the two spaces must be compared afterwards, this
counts every token of either vocabulary against the *same* contexts: the tokens that both vocabularies have. The row
of a source token and the row of a target token then mean the same thing from the start, and one factorisation of the
stacked rows gives both their vectors. No training, no pivots, no mapping.

Features are positive pointwise mutual information, max(0, log p(t, c) / (p(t) p(c)^0.75)), with the contexts'
distribution smoothed and with neighbours on the left and on the right kept apart (Levy, Goldberg, Dagan 2015,
sections 3.1 and 3.2). Vectors are U S^p of a randomised SVD (Halko, Martinsson, Tropp 2011, algorithm 5.1), with p
below 1 so that the first directions do not drown the others (Levy et al., section 3.3).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.cooccurrence import Counts, count_contexts
from tokalign_lab.vectors.stream import Stream, make_stream
from tokalign_lab.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

_NEGLIGIBLE = 1e-4  # share of the first singular value that float32 cannot tell from zero


def anchored_vectors(
    source: Corpus,
    target: Corpus,
    shared: tuple[NDArray[np.int64], NDArray[np.int64]],
    sizes: tuple[int, int],
    settings: AnchoredSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[TokenVectors, TokenVectors]:
    """Give the tokens of two vocabularies vectors in one space.

    Parameters
    ----------
    source, target
        The same text as ids of either vocabulary.
    shared
        Source ids and target ids of the shared tokens that may serve as contexts, int64 (n,) each, in pairs. Leave
        out the tokens that a test hides.
    sizes
        `Vocabulary.size` of source and target.
    settings, seed, progress
        The seed draws the start of the randomised SVD.

    Returns
    -------
    TokenVectors, TokenVectors
        Of source and target, for the tokens that occur `min_count` times and meet an anchor more often than chance.

    Raises
    ------
    InputError
        If no shared token occurs `min_count` times in both texts.
    """
    settings = settings or AnchoredSettings()
    streams = [
        make_stream(corpus.ids, corpus.offsets, size, settings.min_count)
        for corpus, size in zip((source, target), sizes, strict=True)
    ]
    anchors = choose_anchors(streams, shared, settings.anchors)
    if not len(anchors[0]):
        raise InputError(
            f"The two vocabularies share no token that occurs {settings.min_count} times in the text, and anchored "
            "vectors need shared tokens; give more text, or use the recipe 'pieces'."
        )
    features = []
    for side, (stream, ids) in enumerate(zip(streams, anchors, strict=True)):
        if progress is not None:
            progress(0.05 + 0.25 * side, f"counting contexts of the {('source', 'target')[side]} tokens")
        features.append(_features(stream, ids, settings))
    if progress is not None:
        progress(0.55, f"factorising {sum(len(stream.ids) for stream in streams):,} rows")
    stacked = Counts(
        np.concatenate([features[0].starts, features[1].starts[1:] + features[0].starts[-1]]),
        np.concatenate([features[0].columns, features[1].columns]),
        np.concatenate([features[0].values, features[1].values]),
    )
    n_columns = len(anchors[0]) * (2 if settings.sides_apart else 1)
    rows = factorise(stacked, n_columns, settings.dimensions, settings.power, settings.passes, seed)
    provenance = {"method": "anchored", "seed": seed, **asdict(settings), "anchors": len(anchors[0])}
    cut = len(streams[0].ids)
    made = []
    for stream, counted, part, corpus in zip(
        streams, features, (rows[:cut], rows[cut:]), (source, target), strict=True
    ):
        met = np.diff(counted.starts) > 0  # a token that met no anchor more often than chance has no vector
        origin = {**provenance, "text_hash": corpus.text_hash, "without_anchors": int((~met).sum())}
        made.append(TokenVectors(stream.ids[met], part[met], stream.counts[met], corpus.vocabulary_fingerprint, origin))
    return made[0], made[1]


def choose_anchors(
    streams: list[Stream], shared: tuple[NDArray[np.int64], NDArray[np.int64]], n: int
) -> list[NDArray[np.int64]]:
    """Take the `n` shared tokens that are frequent in both texts (by the rarer side; ties to the lower target id).

    Returns
    -------
    list
        Source ids and target ids of the anchors, int64, in pairs.
    """
    counts = []
    for stream, ids in zip(streams, shared, strict=True):
        count = np.zeros(max([int(stream.ids.max(initial=-1)), int(ids.max(initial=-1))]) + 1, dtype=np.int64)
        count[stream.ids] = stream.counts
        counts.append(count[ids])
    rarer = np.minimum(*counts)
    order = np.lexsort((shared[1], -rarer))
    order = order[rarer[order] > 0][:n]
    # Two target tokens may share one source token; as two contexts they would be the same column twice.
    _, first = np.unique(shared[0][order], return_index=True)
    order = order[np.sort(first)]
    return [shared[0][order], shared[1][order]]


def _features(stream: Stream, anchors: NDArray[np.int64], settings: AnchoredSettings) -> Counts:
    """Positive PMI of each token of `stream` with each anchor, (n, anchors) or (n, 2 anchors)."""
    n = len(anchors)
    context_of = np.full(len(stream.ids), -1, dtype=np.int32)
    context_of[np.searchsorted(stream.ids, anchors)] = np.arange(n, dtype=np.int32)
    n_columns = 2 * n if settings.sides_apart else n
    counts = count_contexts(stream, context_of, n_columns, settings.window, n if settings.sides_apart else 0)
    return positive_pmi(counts, n_columns, settings.smoothing)


def positive_pmi(counts: Counts, n_columns: int, smoothing: float = 0.75) -> Counts:
    """Turn counts into max(0, log p(t, c) / (p(t) p(c)^smoothing)), p(c)^smoothing scaled to sum to 1.

    Parameters
    ----------
    counts
        (n, n_columns), values above 0.
    n_columns
        Number of columns.
    smoothing
        Exponent of the contexts' distribution; below 1 it takes weight from rare contexts.

    Returns
    -------
    Counts
        Same shape; what is not above 0 is left out.
    """
    n = len(counts.starts) - 1
    row_of = np.repeat(np.arange(n), np.diff(counts.starts))
    values = counts.values.astype(np.float64)
    row_sums = np.bincount(row_of, weights=values, minlength=n)
    column_sums = np.bincount(counts.columns, weights=values, minlength=n_columns) ** smoothing
    column_sums[column_sums == 0] = 1.0
    share = column_sums / column_sums.sum()
    pmi = np.log(values / (row_sums[row_of] * share[counts.columns]))
    kept = pmi > 0
    lengths = np.bincount(row_of[kept], minlength=n)
    return Counts(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), counts.columns[kept], pmi[kept].astype(np.float32)
    )


def factorise(
    matrix: Counts, n_columns: int, dimensions: int = 300, power: float = 0.25, passes: int = 3, seed: int = 0
) -> NDArray[np.float32]:
    """U S^power of the first singular vectors of a sparse matrix.

    Parameters
    ----------
    matrix
        (n, n_columns).
    n_columns
        Number of columns.
    dimensions
        Number of singular vectors; fewer where the matrix has fewer rows or columns.
    power
        Exponent of the singular values.
    passes
        Power iterations; each sharpens the spectrum once more.
    seed
        Of the random start.

    Returns
    -------
    ndarray
        float32 (n, at most dimensions), fewer where the matrix has a lower rank; signs fixed so that each column's
        largest entry is positive.
    """
    n = len(matrix.starts) - 1
    width = min(dimensions + 16, n, n_columns)
    turned = _transpose(matrix, n_columns)
    basis = np.random.default_rng(seed).standard_normal((n_columns, width), dtype=np.float32)
    for _ in range(passes):
        basis = _orthonormal(_times(matrix, basis))
        basis = _orthonormal(_times(turned, basis))
    left = _times(matrix, basis)
    # The right singular vectors of a tall matrix are the eigenvectors of its small Gram matrix.
    squares, right = np.linalg.eigh(left.T.astype(np.float64) @ left)
    s = np.sqrt(np.maximum(squares[::-1], 0.0))
    # A small power would blow the rounding errors of a matrix of lower rank up into directions of their own.
    width = max(1, min(dimensions, int((s > _NEGLIGIBLE * s[0]).sum())))
    us = left @ right[:, ::-1][:, :width].astype(np.float32)
    signs = np.sign(us[np.abs(us).argmax(axis=0), np.arange(width)])
    scale = np.where(s[:width] > 0, s[:width], 1.0) ** (power - 1)
    return (us * (np.where(signs == 0, 1, signs) * scale)).astype(np.float32)


def _orthonormal(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find an orthonormal basis of the columns' span by the small Gram matrix, a tall QR at the price of a product."""
    squares, turn = np.linalg.eigh(rows.T.astype(np.float64) @ rows)
    kept = squares > 1e-10 * squares[-1]
    if not kept.any():
        kept[-1] = True
    return rows @ (turn[:, kept] / np.sqrt(np.maximum(squares[kept], 1e-30))).astype(np.float32)


def _transpose(matrix: Counts, n_columns: int) -> Counts:
    row_of = np.repeat(np.arange(len(matrix.starts) - 1, dtype=np.int32), np.diff(matrix.starts))
    order = np.argsort(matrix.columns, kind="stable")
    lengths = np.bincount(matrix.columns, minlength=n_columns)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Counts(starts, row_of[order], matrix.values[order])


def _times(matrix: Counts, dense: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sparse times dense, float32; each row is added up by one thread."""
    result = np.zeros((len(matrix.starts) - 1, dense.shape[1]), dtype=np.float32)
    _multiply(matrix.starts, matrix.columns, matrix.values, np.ascontiguousarray(dense), result)
    return result


@numba.njit(parallel=True, cache=True, fastmath={"contract", "nsz"})  # type: ignore[untyped-decorator]
def _multiply(starts: Any, columns: Any, values: Any, dense: Any, result: Any) -> None:
    for row in numba.prange(len(result)):
        for i in range(starts[row], starts[row + 1]):
            value = values[i]
            other = dense[columns[i]]
            for k in range(len(other)):
                result[row, k] += value * other[k]
