"""Exact nearest neighbours between two sets of vectors, by cosine or CSLS.

CSLS (Conneau et al. 2018, equation 3; TokAlign++ section 3) is 2 cos(x, y) - r_T(x) - r_S(y), where r is the mean
cosine to the k nearest vectors of the other side. It takes from a vector that is near to everything (a hub) what it
is near to everyone, and so does what argmax of a cosine cannot. It costs two passes over all similarities: one for r of
both sides (`density`), one for the neighbours. How a pass is made is the business of `block_search.py`, or of
`gpu_search.py` where there is a GPU; both give the same ids and scores, to the last bit. Similarities are rounded to
2^-20 and equal scores go to the lowest id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.vectors.token_vectors import unit_rows

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
        Queries, and keys, at a time; chosen for the cache when None.

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
    no_penalty = np.zeros(len(keys), dtype=np.float32)
    return _search(queries, keys, no_penalty, 1, k, block)


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
    positions, scores = _search(queries, keys, of_keys, 2, k, block)
    return positions, scores - of_queries[:, None]


def density(
    one: NDArray[Any], other: NDArray[Any], neighbourhood: int = 10, block: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean cosine of each vector to its nearest of the other side: r of CSLS, both ways, in one pass.

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

    Raises
    ------
    InputError
        If one side has no vectors, or their lengths differ.
    """
    from tokalign_lab.alignment.search import block_search, gpu_search

    _check(one, other)
    _check(other, one)
    device = _device(len(one) * len(other))
    one, other = unit_rows(one), unit_rows(other)
    if device is None:
        of_one, of_other = block_search.best_of_both(one, other, neighbourhood, block)
    else:
        of_one, of_other = gpu_search.best_of_both_on(device, one, other, neighbourhood, block)
    means = of_one.mean(axis=1, dtype=np.float64), of_other.mean(axis=0, dtype=np.float64)
    return means[0].astype(np.float32), means[1].astype(np.float32)


def _search(
    queries: NDArray[Any], keys: NDArray[Any], penalty: NDArray[np.float32], factor: float, k: int, block: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Top k of `factor * cosine - penalty`."""
    # numba takes a second to import, and panels that only show a lexicon need none of it
    from tokalign_lab.alignment.search import block_search, gpu_search

    _check(queries, keys)
    device = _device(len(queries) * len(keys))
    queries, keys = unit_rows(queries), unit_rows(keys)
    if device is None:
        return block_search.best_of_rows(queries, keys, penalty, factor, k, block)
    return gpu_search.best_of_rows_on(device, queries, keys, penalty, factor, k, block)


def _check(queries: NDArray[Any], keys: NDArray[Any]) -> None:
    if not len(keys):
        raise InputError("There are no vectors to search among; give more text, so that tokens have vectors.")
    if queries.shape[1] != keys.shape[1]:
        raise InputError(
            f"Vectors of {queries.shape[1]} and of {keys.shape[1]} dimensions cannot be compared; "
            "align both sides with the same recipe."
        )


def _device(n: int) -> str | None:
    """Where to search among n similarities: a GPU if there is one and the work is worth it."""
    if n < _GPU_PAYS:
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None
