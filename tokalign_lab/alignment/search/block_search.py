"""The best of a product of two matrices without the product: row by row, or of rows and columns in one pass.

A dense similarity matrix of two large vocabularies is tens of gigabytes. Here each thread multiplies out a block that
its own cache holds, looks through it and forgets it. Against an argmax over the matrix this changes what a product is
good for: a float32 sum of d terms of two unit vectors is known to d 2^-24 only (Higham 2002, section 3.1), in whatever
order a library adds it up, so it serves to pass over what is surely not among the best, 64 at a time. What may be is
added up again in float64 and rounded to 2^-20. Equal vectors therefore have equal scores, equal scores go to the lowest
row, and ids and scores are the same for any size of block, number of threads and BLAS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

_BLOCK = (256, 1024)  # queries and keys at a time: 1 MB of similarities
_CHUNK = 64  # similarities that are passed over, or looked at one by one, together
GRID = 1048576.0  # scores are multiples of 1 / GRID


def best_of_rows(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    penalty: NDArray[np.float32],
    factor: float,
    k: int,
    block: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k largest of each row of `factor * queries @ keys.T - penalty`.

    Parameters
    ----------
    queries, keys
        float32 (n, d) and (m, d), rows of length 1 (or 0).
    penalty
        float32 (m,).
    factor
        1 or 2.
    k
        Answers a query; m where there are fewer keys.
    block
        Queries, and keys, at a time.

    Returns
    -------
    positions, scores
        int64 and float32 (n, k), best first, ties to the lowest position.
    """
    k = min(k, len(keys))
    positions = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    slack = error_bound(queries.shape[1], factor)

    def search(rows: slice) -> None:
        here = queries[rows]
        for first, similarity in _products(here, keys, block):
            _offer_to_rows(
                similarity, here, keys, first, penalty, np.float32(factor), slack, positions[rows], scores[rows]
            )

    _in_threads(search, len(queries), block)
    return positions, scores


def best_of_both(
    one: NDArray[np.float32], other: NDArray[np.float32], k: int, block: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find the k largest cosines of each row and of each column of `one @ other.T`, in one pass.

    Parameters
    ----------
    one, other
        float32 (n, d) and (m, d), rows of length 1 (or 0).
    k, block
        As for `best_of_rows`.

    Returns
    -------
    of_one, of_other
        float32 (n, k) and (k, m), best first; fewer than k where the other side has fewer.
    """
    of_one = np.full((len(one), min(k, len(other))), -np.inf, dtype=np.float32)
    of_other = np.full((min(k, len(one)), len(other)), -np.inf, dtype=np.float32)
    positions = np.zeros(of_one.shape, dtype=np.int64)
    no_penalty = np.zeros(len(other), dtype=np.float32)
    slack = error_bound(one.shape[1])
    # Threads share out the rows, so each keeps columns of its own; what is best of them all is the same in any order.
    mine: SimpleQueue[NDArray[np.float32]] = SimpleQueue()
    for _ in range(numba.get_num_threads()):
        mine.put(of_other.copy())

    def search(rows: slice) -> None:
        here, columns = one[rows], mine.get()
        try:
            for first, similarity in _products(here, other, block):
                _offer_to_rows(
                    similarity, here, other, first, no_penalty, np.float32(1), slack, positions[rows], of_one[rows]
                )
                _offer_to_columns(similarity, here, other, first, slack, columns)
        finally:  # or the next thread would wait for them for ever
            mine.put(columns)

    _in_threads(search, len(one), block)
    while not mine.empty():
        both = np.concatenate([of_other, mine.get()])
        of_other = -np.sort(-both, axis=0)[: len(of_other)]
    return of_one, of_other


def settle(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    penalty: NDArray[np.float32],
    factor: float,
    found: NDArray[np.int64],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k best of the keys that `found`, int64 (n, at least k), lists for each query, as `best_of_rows` does."""
    positions = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    _settle(queries, keys, penalty, np.float32(factor), np.sort(found, axis=1), positions, scores)
    return positions, scores


def error_bound(dimensions: int, factor: float = 1.0) -> np.float32:
    """Most that float32 can be wrong about factor * cosine - penalty, with a last bit for each step after the sum."""
    return np.float32(factor * 1.01 * dimensions * 2.0**-24 + 2.0**-21)


def _products(
    queries: NDArray[np.float32], keys: NDArray[np.float32], block: int | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Similarities of all `queries` to some keys after others, and the first of those; all in the same memory."""
    n_keys = block or _BLOCK[1]
    room = np.empty(len(queries) * min(n_keys, len(keys)), dtype=np.float32)
    for first in range(0, len(keys), n_keys):
        some = keys[first : first + n_keys]
        similarity = room[: len(queries) * len(some)].reshape(len(queries), len(some))
        yield first, np.matmul(queries, some.T, out=similarity)


def _in_threads(search: Callable[[slice], None], n: int, block: int | None) -> None:
    """Call `search` with all blocks of n rows, on all threads.

    BLAS gets one thread in each: threads that wait for each other after every block, as its own would, lose more than
    they win, the more so on a machine that does other work too.
    """
    n_threads = numba.get_num_threads()
    n_rows = block or min(_BLOCK[0], max(1, -(-n // n_threads)))
    rows = [slice(first, min(n, first + n_rows)) for first in range(0, n, n_rows)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(search, rows))


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _dot(one, other):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(one)):
        total += np.float64(one[i]) * np.float64(other[i])
    return total


@numba.njit(nogil=True, cache=True)
def _score(query, key, penalty, factor):  # type: ignore[no-untyped-def]
    return np.float32(np.rint((factor * _dot(query, key) - penalty) * GRID) / GRID)


@numba.njit(nogil=True, cache=True)
def _insert(score, position, scores, positions):  # type: ignore[no-untyped-def]
    # Positions come in rising order and go behind equal scores, so that ties keep the lowest first.
    place = len(scores) - 1
    if not score > scores[place]:
        return
    while place > 0 and score > scores[place - 1]:
        scores[place], positions[place] = scores[place - 1], positions[place - 1]
        place -= 1
    scores[place], positions[place] = score, position


@numba.njit(nogil=True, cache=True)
def _offer_to_rows(  # type: ignore[no-untyped-def]
    similarity, queries, keys, first, penalty, factor, slack, positions, scores
):
    k = scores.shape[1]
    for row in range(len(similarity)):
        for start in range(0, similarity.shape[1], _CHUNK):
            # Slices, not indices: without a sign to check, the compiler makes the loop one vector comparison.
            here = similarity[row, start : start + _CHUNK]
            there = penalty[first + start : first + start + len(here)]
            limit = scores[row, k - 1] - slack
            found = False
            for j in range(len(here)):
                found |= factor * here[j] - there[j] > limit
            if not found:
                continue
            for j in range(len(here)):
                if factor * here[j] - there[j] > scores[row, k - 1] - slack:
                    key = first + start + j
                    _insert(_score(queries[row], keys[key], there[j], factor), key, scores[row], positions[row])


@numba.njit(nogil=True, cache=True)
def _offer_to_columns(similarity, queries, keys, first, slack, best):  # type: ignore[no-untyped-def]
    k = len(best)
    for row in range(len(similarity)):
        for start in range(0, similarity.shape[1], _CHUNK):
            here = similarity[row, start : start + _CHUNK]
            worst = best[k - 1, first + start : first + start + len(here)]
            found = False
            for j in range(len(here)):
                found |= here[j] > worst[j] - slack
            if not found:
                continue
            for j in range(len(here)):
                if here[j] > worst[j] - slack:
                    column = first + start + j
                    score = _score(queries[row], keys[column], np.float32(0), np.float32(1))
                    if score > worst[j]:
                        place = k - 1
                        while place > 0 and score > best[place - 1, column]:
                            best[place, column] = best[place - 1, column]
                            place -= 1
                        best[place, column] = score


@numba.njit(nogil=True, cache=True)
def _settle(queries, keys, penalty, factor, found, positions, scores):  # type: ignore[no-untyped-def]
    for row in range(len(queries)):
        for key in found[row]:
            _insert(_score(queries[row], keys[key], penalty[key], factor), key, scores[row], positions[row])
