"""Anchored vectors: both vocabularies in one space, from counts alone.

`glove.py` trains each vocabulary separately, so the two spaces must be made comparable afterwards. Here the tokens of
both vocabularies are counted in the *same* contexts: the shared tokens (anchors). So the rows of source and target
tokens have the same columns, and one factorisation of the stacked rows gives the vectors of both. There is no training,
no pivot and no mapping.

Features are positive pointwise mutual information, max(0, log p(t, c) / (p(t) p(c)^0.75)), with a smoothed distribution
of contexts and separate columns for left and right neighbours (Levy, Goldberg, Dagan 2015, sections 3.1 and 3.2).
Vectors are U S^p of a randomised SVD (Halko, Martinsson, Tropp 2011, algorithm 5.1), with p below 1 so that the first
directions do not dominate (Levy et al., section 3.3).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from threadpoolctl import threadpool_limits

from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.compiled import njit
from tokalign_lab.vectors.cooccurrence import count_contexts
from tokalign_lab.vectors.stream import Stream, make_stream
from tokalign_lab.vectors.strips import in_strips, product
from tokalign_lab.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

_NEGLIGIBLE = 1e-4  # share of the first singular value below which float32 values are rounding errors


def anchored_vectors(
    source: Corpus,
    target: Corpus,
    shared: tuple[NDArray[np.int64], NDArray[np.int64]],
    sizes: tuple[int, int],
    settings: AnchoredSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[TokenVectors, TokenVectors]:
    """Compute vectors in one space for the tokens of two vocabularies.

    Returns the vectors of source and target, for the tokens that occur `min_count` times and co-occur with an anchor
    more often than by chance; the same bits for any number of threads. Raises `InputError` if no shared token occurs
    `min_count` times in both texts.

    Parameters
    ----------
    source, target : the same text as ids of each vocabulary
    shared : source ids and target ids of the shared tokens that may be anchors, int64 (n,) each, in pairs, without
        held-out tokens
    sizes : `Vocabulary.size` of source and target
    settings : None for the defaults
    seed : seed of the randomised SVD
    progress : called before each step
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
        progress(0.05 + 0.25 * side, f"counting contexts of the {('source', 'target')[side]} tokens")
        features.append(_features(stream, ids, settings))
    progress(0.55, f"factorising {sum(len(stream.ids) for stream in streams):,} rows")
    rows = factorise(vstack(features, format="csr"), settings.dimensions, settings.power, settings.passes, seed)
    provenance = {"method": "anchored", "seed": seed, **asdict(settings), "anchors": len(anchors[0])}
    parts = np.split(rows, [len(streams[0].ids)])
    made = []
    for stream, counted, part, corpus in zip(streams, features, parts, (source, target), strict=True):
        met = np.diff(counted.indptr) > 0  # a token that co-occurs with no anchor above chance has no vector
        origin = {**provenance, "text_hash": corpus.text_hash, "without_anchors": int((~met).sum())}
        made.append(TokenVectors(stream.ids[met], part[met], stream.counts[met], corpus.vocabulary_fingerprint, origin))
    return made[0], made[1]


def choose_anchors(
    streams: list[Stream], shared: tuple[NDArray[np.int64], NDArray[np.int64]], n: int
) -> list[NDArray[np.int64]]:
    """Return source ids and target ids, int64 in pairs, of the at most `n` shared tokens most frequent in both texts.

    They are ranked by the lower of both counts; ties go to the lower target id.
    """
    counts = []
    for stream, ids in zip(streams, shared, strict=True):
        count = np.zeros(max(int(stream.ids.max(initial=-1)), int(ids.max(initial=-1))) + 1, dtype=np.int64)
        count[stream.ids] = stream.counts
        counts.append(count[ids])
    rarer = np.minimum(*counts)
    order = np.lexsort((shared[1], -rarer))
    order = order[rarer[order] > 0][:n]
    # Two target tokens may share one source token, which would be two equal columns.
    _, first = np.unique(shared[0][order], return_index=True)
    order = order[np.sort(first)]
    return [shared[0][order], shared[1][order]]


def _features(stream: Stream, anchors: NDArray[np.int64], settings: AnchoredSettings) -> csr_array:
    """Return the positive PMI of each token of `stream` with each anchor, (n, anchors) or (n, 2 anchors)."""
    n = len(anchors)
    context_of = np.full(len(stream.ids), -1, dtype=np.int32)
    context_of[np.searchsorted(stream.ids, anchors)] = np.arange(n, dtype=np.int32)
    n_columns, right_offset = (2 * n, n) if settings.sides_apart else (n, 0)
    return positive_pmi(
        count_contexts(stream, context_of, n_columns, settings.window, right_offset), settings.smoothing
    )


def positive_pmi(counts: csr_array, smoothing: float = 0.75) -> csr_array:
    """Convert counts (n, m) to max(0, log p(t, c) / (p(t) p(c)^smoothing)), p(c)^smoothing scaled to sum to 1.

    `smoothing` below 1 reduces the PMI of rare contexts. Zeros are not stored.
    """
    n, m = counts.shape
    row_of = np.repeat(np.arange(n), np.diff(counts.indptr))
    values = counts.data.astype(np.float64)
    row_sums = np.bincount(row_of, weights=values, minlength=n)
    column_sums = np.bincount(counts.indices, weights=values, minlength=m) ** smoothing
    column_sums[column_sums == 0] = 1.0
    share = column_sums / column_sums.sum()
    pmi = np.log(values / (row_sums[row_of] * share[counts.indices]))
    data = np.maximum(pmi, 0).astype(np.float32)
    result = csr_array((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    result.eliminate_zeros()
    return result


def factorise(
    matrix: csr_array, dimensions: int = 300, power: float = 0.25, passes: int = 3, seed: int = 0
) -> NDArray[np.float32]:
    """Return U S^power of the first singular vectors of a sparse matrix; the same bits for any number of threads.

    The result is float32 (n, dimensions), with fewer columns if the rank is lower; signs are chosen so that the entry
    of each column with the largest absolute value is positive.

    Parameters
    ----------
    matrix : float32 (n, m)
    dimensions : number of singular vectors; fewer if the matrix has fewer rows or columns
    power : exponent of the singular values
    passes : number of power iterations; more approximate the singular vectors better
    seed : seed of the random start
    """
    n, m = matrix.shape
    width = min(dimensions + 16, n, m)
    transposed = matrix.T.tocsr()
    basis = np.random.default_rng(seed).standard_normal((m, width), dtype=np.float32)
    for _ in range(passes):
        basis = _orthonormal(_times(matrix, basis))
        basis = _orthonormal(_times(transposed, basis))
    left = _times(matrix, basis)
    # The right singular vectors of a tall matrix are the eigenvectors of its small Gram matrix.
    squares, right = _eigen(left)
    s = np.sqrt(np.maximum(squares[::-1], 0.0))
    # If the rank is lower, a small power would amplify rounding errors into spurious directions.
    width = max(1, min(dimensions, int((s > _NEGLIGIBLE * s[0]).sum())))
    us = product(left, right[:, ::-1][:, :width].astype(np.float32))
    signs = np.sign(us[np.abs(us).argmax(axis=0), np.arange(width)])
    scale = np.where(s[:width] > 0, s[:width], 1.0) ** (power - 1)
    return (us * (np.where(signs == 0, 1, signs) * scale)).astype(np.float32)


def _orthonormal(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an orthonormal basis of the columns' span, from the small Gram matrix, which is cheaper than a QR."""
    squares, rotation = _eigen(rows)
    kept = squares > 1e-10 * squares[-1]
    if not kept.any():
        kept[-1] = True
    return product(rows, (rotation[:, kept] / np.sqrt(np.maximum(squares[kept], 1e-30))).astype(np.float32))


def _eigen(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues, ascending, and eigenvectors of `rows.T @ rows` in float64."""
    grams = in_strips(lambda strip: rows[strip].T.astype(np.float64) @ rows[strip], len(rows), 4096)
    with threadpool_limits(1, user_api="blas"):
        values, vectors = np.linalg.eigh(sum(grams))
    return values, vectors


def _times(matrix: csr_array, dense: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply a sparse by a dense matrix in float32; one thread computes each row."""
    result = np.zeros((matrix.shape[0], dense.shape[1]), dtype=np.float32)
    _multiply(matrix.indptr, matrix.indices, matrix.data, np.ascontiguousarray(dense), result)
    return result


@njit(parallel=True, fastmath={"contract", "nsz"})
def _multiply(starts: Any, columns: Any, values: Any, dense: Any, result: Any) -> None:
    for row in numba.prange(len(result)):
        for i in range(starts[row], starts[row + 1]):
            value = values[i]
            other = dense[columns[i]]
            for k in range(len(other)):
                result[row, k] += value * other[k]
