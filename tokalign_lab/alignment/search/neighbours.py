"""Exact nearest neighbours between two sets of vectors, by cosine or CSLS.

CSLS (Conneau et al. 2018, equation 3; TokAlign++ section 3) is 2 cos(x, y) - r_T(x) - r_S(y), where r is the mean
cosine to the k nearest vectors of the other side. It penalises hubs: vectors that are close to everything. CSLS needs
two passes over all similarities: one for r of both sides (`density`), one for the neighbours. `block_search.py` runs a
pass on the CPU, `gpu_search.py` on a GPU; both give the same ids and scores, to the last bit. Scores are rounded to
2^-20 and ties go to the lowest id (docs/decisions/0014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.token_vectors import unit_rows

if TYPE_CHECKING:
    from tokalign_lab.alignment.search.block_search import Best

_NEIGHBOURHOOD = 10  # k of CSLS, in both papers
_GPU_PAYS = 1 << 32  # similarities; a CPU computes fewer in less time than it takes to start a GPU


@dataclass(frozen=True)
class Candidates:
    """Ranked source tokens for some target tokens, or the other way round.

    `target_ids`, int64 (n,), are the queries; `candidate_ids`, int64 (n, k), their candidates, best first; `scores` are
    float32 (n, k), descending.
    """

    target_ids: NDArray[np.int64]
    candidate_ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.target_ids)


def nearest(queries: NDArray[Any], keys: NDArray[Any], k: int = 10) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k keys with the largest cosine to each query.

    Returns positions, int64 (n, k), rows of `keys`, best first, ties to the lowest; and cosines, float32 (n, k).
    Raises `InputError` if there are no keys, or the dimensions differ.

    Parameters
    ----------
    queries, keys : float (n, d) and (m, d); scaled to length 1 here
    k : results per query; m if there are fewer keys
    """
    _check(queries, keys)
    return _best(unit_rows(queries), unit_rows(keys), k)[:2]


def nearest_csls(
    queries: NDArray[Any],
    keys: NDArray[Any],
    k: int = 10,
    densities: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k keys with the largest CSLS to each query.

    Returns positions and CSLS scores as `nearest`. Raises `InputError` if there are no keys, or the dimensions differ.

    Parameters
    ----------
    queries, keys, k : as for `nearest`
    densities : r of each query and of each key, float32 (n,) and (m,), from `density`; required if `queries` or `keys`
        are only a part of their space. None computes them between `queries` and `keys`.
    """
    _check(queries, keys)
    of_queries, of_keys = density(queries, keys) if densities is None else densities
    # One more dimension on each side makes 2 cos - r of the key a dot product: (2 x, -1) . (y, r).
    query_rows = np.concatenate([2 * unit_rows(queries), np.full((len(queries), 1), -1, np.float32)], axis=1)
    key_rows = np.concatenate([unit_rows(keys), of_keys[:, None]], axis=1)
    positions, scores, _ = _best(query_rows, key_rows, k)
    return positions, scores - of_queries[:, None]


def density(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return r of CSLS for both sides, float32 (n,) and (m,): the mean cosine to the ten nearest of the other side.

    `one` and `other`, float (n, d) and (m, d), are scaled to length 1 here. Raises InputError if one side has no
    vectors, or the dimensions differ.
    """
    _check(one, other)
    _check(other, one)
    _, of_one, of_other = _best(unit_rows(one), unit_rows(other), _NEIGHBOURHOOD, of_keys=True)
    means = of_one.mean(axis=1, dtype=np.float64), of_other.mean(axis=1, dtype=np.float64)
    return means[0].astype(np.float32), means[1].astype(np.float32)


def one_to_one(candidates: Candidates) -> NDArray[np.int64]:
    """Choose one candidate for each of n target tokens so that none is chosen twice.

    TokAlign describes a one-to-one mapping but copies the same source row to many target tokens; the model then spreads
    one token's probability over all of them. Of the assignments that serve the most tokens, this one has the highest
    sum of scores (the linear assignment problem; Jonker and Volgenant 1987, on the sparse graph of candidates). Returns
    int64 (n,): the index of a token's chosen candidate, -1 for none.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n, k = candidates.candidate_ids.shape
    if not n:
        return np.zeros(0, np.int64)
    sources, column = np.unique(candidates.candidate_ids, return_inverse=True)
    column = column.reshape(n, k)
    # Costs are above 0, because 0 means no edge. Each token has one more column, "nothing", which costs more than any
    # other assignment could save.
    cost = 1.0 + (candidates.scores.max() - candidates.scores).astype(np.float64)
    nothing = np.full((n, 1), cost.max() * (n + 1))
    columns = np.concatenate([column, len(sources) + np.arange(n)[:, None]], axis=1)
    values = np.concatenate([cost, nothing], axis=1)
    starts = np.arange(0, n * (k + 1) + 1, k + 1)
    graph = csr_array((values.ravel(), columns.ravel(), starts), shape=(n, len(sources) + n))
    rows, given = min_weight_full_bipartite_matching(graph)
    chosen = np.full(n, -1, np.int64)
    served = given < len(sources)
    hit = column[rows[served]] == given[served][:, None]
    chosen[rows[served]] = hit.argmax(axis=1)
    return chosen


def _best(queries: NDArray[np.float32], keys: NDArray[np.float32], k: int, of_keys: bool = False) -> Best:
    """Search on a GPU if there is one and the work is large enough."""
    # Importing numba and torch takes a second each, and panels that only show a lexicon need neither.
    if len(queries) * len(keys) >= _GPU_PAYS and (device := pick_device()).type == "cuda":
        from tokalign_lab.alignment.search import gpu_search

        return gpu_search.best(device, queries, keys, k, of_keys)
    from tokalign_lab.alignment.search import block_search

    return block_search.best(queries, keys, k, of_keys)


def _check(queries: NDArray[Any], keys: NDArray[Any]) -> None:
    if not len(keys):
        raise InputError("There are no vectors to search among; give more text, so that tokens have vectors.")
    if queries.shape[1] != keys.shape[1]:
        raise InputError(
            f"Vectors of {queries.shape[1]} and of {keys.shape[1]} dimensions cannot be compared; "
            "align both sides with the same recipe."
        )
