"""Each source token to at most one target token: the assignment of the highest total score.

TokAlign describes a one-to-one mapping but copies the same source row to many target tokens, and a model with one row
many times spreads one token's probability over all of them. Here no row is used twice. Every target token gets one of
its candidates or none; the assignment serves the most tokens and, among those, has the highest sum of scores (the
linear assignment problem; Jonker and Volgenant 1987, on the sparse graph of candidates).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.search.neighbours import Candidates


def one_to_one(candidates: Candidates) -> NDArray[np.int64]:
    """Choose one candidate for each of n target tokens so that none is chosen twice.

    Returns int64 (n,): which of its candidates a token gets, -1 for none.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n, k = candidates.candidate_ids.shape
    if not n:
        return np.zeros(0, np.int64)
    sources, column = np.unique(candidates.candidate_ids, return_inverse=True)
    column = column.reshape(n, k)
    # Costs are above 0, because 0 is no edge. A token's own column for "nothing" costs more than any other assignment
    # could save.
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
