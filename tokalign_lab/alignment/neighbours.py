"""Exact nearest neighbours between two sets of vectors, in blocks, by cosine or CSLS.

A dense similarity matrix of two large vocabularies is tens of gigabytes, so queries go through in blocks and only the
k best of each are kept. Equal scores go to the lowest id; similarities are rounded to 2^-20 first, so that a tie is
a tie whatever order a product was added up in.

CSLS (Conneau et al. 2018, equation 3; TokAlign++ section 3) is 2 cos(x, y) - r_T(x) - r_S(y), where r is the mean
cosine to the k nearest vectors of the other side. It takes from a vector that is near to everything (a hub) what it
is near to everyone, and so does what argmax of a cosine cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.vectors.token_vectors import unit_rows

_BLOCK_NUMBERS = 1 << 25  # 128 MB of float32 similarities at a time
_GPU_PAYS = 1 << 32  # products below this many similarities are done before a GPU is awake


@dataclass(frozen=True)
class Candidates:
    """Ranked source tokens for some target tokens (or the other way round).

    Parameters
    ----------
    target_ids
        int64 (n,), the tokens that asked.
    candidate_ids
        int64 (n, k), the answers, best first.
    scores
        float32 (n, k), falling.
    """

    target_ids: NDArray[np.int64]
    candidate_ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.target_ids)


def nearest(
    queries: NDArray[Any], keys: NDArray[Any], k: int = 10, block: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k keys of the largest cosine to each query.

    Parameters
    ----------
    queries, keys
        float (n, d) and (m, d); scaled to length 1 here.
    k
        Answers a query; m where there are fewer keys.
    block
        Queries at a time; chosen for the memory when None.

    Returns
    -------
    positions
        int64 (n, k), rows of `keys`, best first, ties to the lowest.
    scores
        float32 (n, k), cosines.

    Raises
    ------
    InputError
        If there are no keys, or the vectors' lengths differ.
    """
    none = np.zeros(len(keys), dtype=np.float32)
    return _search(unit_rows(queries), unit_rows(keys), none, k, block)


def nearest_csls(
    queries: NDArray[Any],
    keys: NDArray[Any],
    k: int = 10,
    densities: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    block: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k keys of the largest CSLS to each query.

    Parameters
    ----------
    queries, keys, k, block
        As for `nearest`.
    densities
        r of each query and of each key, float32 (n,) and (m,), from `density`; give them when the queries are only
        a part of their space. Measured here between `queries` and `keys` when None.

    Returns
    -------
    positions, scores
        As from `nearest`, scores being CSLS.
    """
    of_queries, of_keys = density(queries, keys, block=block) if densities is None else densities
    positions, scores = _search(2 * unit_rows(queries), unit_rows(keys), of_keys, k, block)
    return positions, scores - of_queries[:, None]


def density(
    one: NDArray[Any], other: NDArray[Any], neighbourhood: int = 10, block: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean cosine of each vector to its nearest of the other side: r of CSLS, both ways.

    Parameters
    ----------
    one, other
        float (n, d) and (m, d); scaled to length 1 here.
    neighbourhood
        Number of neighbours (10 in both papers).
    block
        As for `nearest`.

    Returns
    -------
    of_one, of_other
        float32 (n,) and (m,).
    """
    one, other = unit_rows(one), unit_rows(other)
    return _mean_similarity(one, other, neighbourhood, block), _mean_similarity(other, one, neighbourhood, block)


def _mean_similarity(
    queries: NDArray[np.float32], keys: NDArray[np.float32], neighbourhood: int, block: int | None
) -> NDArray[np.float32]:
    if not len(queries):
        return np.zeros(0, dtype=np.float32)
    _, scores = _search(queries, keys, np.zeros(len(keys), dtype=np.float32), neighbourhood, block)
    return scores.mean(axis=1, dtype=np.float64).astype(np.float32)


def _search(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    penalty: NDArray[np.float32],
    k: int,
    block: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Top k of `queries @ keys.T - penalty`."""
    if not len(keys):
        raise InputError("There are no vectors to search among; give more text, so that tokens have vectors.")
    if queries.shape[1] != keys.shape[1]:
        raise InputError(
            f"Vectors of {queries.shape[1]} and of {keys.shape[1]} dimensions cannot be compared; "
            "align both sides with the same recipe."
        )
    k = min(k, len(keys))
    positions = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    block = block or max(1, _BLOCK_NUMBERS // len(keys))
    product = _product(keys, len(queries) * len(keys))
    for first in range(0, len(queries), block):
        here = slice(first, first + block)
        _top_k(product(queries[here]), penalty, positions[here], scores[here])
    return positions, scores


def _product(keys: NDArray[np.float32], n: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """How to multiply queries with keys: on the GPU if there is one and the work is worth it, else with numpy."""
    if n >= _GPU_PAYS:
        import torch

        if torch.cuda.is_available():
            on_device = torch.from_numpy(keys).cuda().T
            return lambda queries: (torch.from_numpy(queries).cuda() @ on_device).cpu().numpy()
    return lambda queries: queries @ keys.T


@numba.njit(parallel=True, cache=True)  # type: ignore[untyped-decorator]
def _top_k(similarity: Any, penalty: Any, positions: Any, scores: Any) -> None:
    k = positions.shape[1]
    for row in numba.prange(len(similarity)):
        best = np.full(k, -np.inf, dtype=np.float32)
        where = np.zeros(k, dtype=np.int64)
        for column in range(similarity.shape[1]):
            score = np.float32(np.rint((similarity[row, column] - penalty[column]) * 1048576.0) / 1048576.0)
            if score > best[k - 1]:
                # Later columns go behind equal scores, so that ties keep the lowest first.
                place = k - 1
                while place > 0 and score > best[place - 1]:
                    best[place], where[place] = best[place - 1], where[place - 1]
                    place -= 1
                best[place], where[place] = score, column
        positions[row], scores[row] = where, best
