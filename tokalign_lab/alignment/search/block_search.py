"""The k largest entries in each row of a matrix product on the CPU, without the full product.

A dense similarity matrix of two large vocabularies is tens of gigabytes. Here each thread multiplies a block that fits
its cache, scans it and discards it. A float32 sum of d products is accurate to d 2^-24 times the vectors' lengths, in
any order of addition (Higham 2002, section 3.1). So float32 is used to skip products that cannot be among the best, 64
at a time; the others are computed again in float64 and rounded to 2^-20. Equal vectors therefore have equal scores,
ties go to the lowest row, and the result is the same for any block size, number of threads and BLAS
(docs/decisions/0014 has the cost).
"""

from __future__ import annotations

from queue import SimpleQueue

import numba
import numpy as np
from numpy.typing import NDArray

from tokalign_lab.vectors.compiled import njit
from tokalign_lab.vectors.strips import in_strips

BLOCK = (256, 1024)
"""Queries and keys at a time: 1 MB of products."""
GRID = 1048576.0
"""Scores are multiples of 1 / GRID."""
_CHUNK = 64  # products that are skipped together, or checked one by one

Best = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]


def best(queries: NDArray[np.float32], keys: NDArray[np.float32], k: int, of_keys: bool = False) -> Best:
    """Find the k largest entries in each row of `queries @ keys.T`, and in each column in the same pass.

    Returns positions and scores, int64 and float32 (n, k), best first, ties to the lowest position; and the scores of
    the columns, float32 (m, k), best first; fewer than k if there are fewer queries; (m, 0) without `of_keys`.

    Parameters
    ----------
    queries, keys : float32 (n, d) and (m, d)
    k : results per query; m if there are fewer keys
    of_keys : also find the largest of each column
    """
    scores = np.full((len(queries), min(k, len(keys))), -np.inf, dtype=np.float32)
    positions = np.zeros(scores.shape, dtype=np.int64)
    columns = np.full((min(k, len(queries)) if of_keys else 0, len(keys)), -np.inf, dtype=np.float32)
    slack = error_bound(queries, keys)
    # Threads share the rows, so each has separate column results; merging them gives the same result in any order.
    n_threads = numba.get_num_threads()
    mine: SimpleQueue[NDArray[np.float32]] = SimpleQueue()
    for _ in range(n_threads):
        mine.put(columns.copy())

    def search(rows: slice) -> None:
        here, own = queries[rows], mine.get()
        scratch = np.empty(len(here) * min(BLOCK[1], len(keys)), dtype=np.float32)
        try:
            for first in range(0, len(keys), BLOCK[1]):
                some = keys[first : first + BLOCK[1]]
                product = np.matmul(here, some.T, out=scratch[: len(here) * len(some)].reshape(len(here), len(some)))
                _offer_to_rows(product, here, keys, first, slack, positions[rows], scores[rows])
                if len(own):
                    _offer_to_columns(product, here, keys, first, slack, own)
        finally:  # otherwise the next thread would wait forever
            mine.put(own)

    in_strips(search, len(queries), min(BLOCK[0], max(1, -(-len(queries) // n_threads))))
    while not mine.empty():
        columns = -np.sort(-np.concatenate([columns, mine.get()]), axis=0)[: len(columns)]
    return positions, scores, columns.T


def rank_candidates(
    queries: NDArray[np.float32], keys: NDArray[np.float32], found: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k best of the candidate keys `found`, int64 (n, at least k), of each query, scored as in `best`."""
    positions = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    _rank_candidates(queries, keys, np.sort(found, axis=1), positions, scores)
    return positions, scores


def error_bound(queries: NDArray[np.float32], keys: NDArray[np.float32]) -> np.float32:
    """Return the largest error of a float32 product, including the rounding of a score."""
    longest = [float(np.einsum("ij,ij->i", rows, rows).max(initial=0.0)) ** 0.5 for rows in (queries, keys)]
    return np.float32(1.01 * queries.shape[1] * 2.0**-24 * longest[0] * longest[1] + 2.0**-21)


@njit(nogil=True, fastmath={"reassoc", "contract"})
def _dot(one, other):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(one)):
        total += np.float64(one[i]) * np.float64(other[i])
    return total


@njit(nogil=True)
def _score(query, key):  # type: ignore[no-untyped-def]
    return np.float32(np.rint(_dot(query, key) * GRID) / GRID)


@njit(nogil=True)
def _insert(score, position, scores, positions):  # type: ignore[no-untyped-def]
    # Positions arrive in ascending order and are inserted after equal scores, so the lowest comes first.
    place = len(scores) - 1
    if not score > scores[place]:
        return
    while place > 0 and score > scores[place - 1]:
        scores[place], positions[place] = scores[place - 1], positions[place - 1]
        place -= 1
    scores[place], positions[place] = score, position


@njit(nogil=True)
def _offer_to_rows(product, queries, keys, first, slack, positions, scores):  # type: ignore[no-untyped-def]
    k = scores.shape[1]
    for row in range(len(product)):
        for start in range(0, product.shape[1], _CHUNK):
            # A slice, not indices: without a check for negative indices, the compiler vectorises the loop.
            here = product[row, start : start + _CHUNK]
            limit = scores[row, k - 1] - slack
            found = False
            for j in range(len(here)):
                found |= here[j] > limit
            if not found:
                continue
            for j in range(len(here)):
                if here[j] > scores[row, k - 1] - slack:
                    key = first + start + j
                    _insert(_score(queries[row], keys[key]), key, scores[row], positions[row])


@njit(nogil=True)
def _offer_to_columns(product, queries, keys, first, slack, best):  # type: ignore[no-untyped-def]
    k = len(best)
    nowhere = np.zeros(k, dtype=np.int64)
    for row in range(len(product)):
        for start in range(0, product.shape[1], _CHUNK):
            here = product[row, start : start + _CHUNK]
            worst = best[k - 1, first + start : first + start + len(here)]
            found = False
            for j in range(len(here)):
                found |= here[j] > worst[j] - slack
            if not found:
                continue
            for j in range(len(here)):
                if here[j] > worst[j] - slack:
                    column = first + start + j
                    _insert(_score(queries[row], keys[column]), 0, best[:, column], nowhere)


@njit(nogil=True)
def _rank_candidates(queries, keys, found, positions, scores):  # type: ignore[no-untyped-def]
    for row in range(len(queries)):
        for key in found[row]:
            _insert(_score(queries[row], keys[key]), key, scores[row], positions[row])
