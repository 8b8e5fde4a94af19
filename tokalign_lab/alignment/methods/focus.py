"""FOCUS (Dobler and de Melo 2023): a row is a sparse, convex mix of shared tokens with similar contexts.

    w = sparsemax(cos(v, v_1), ..., cos(v, v_n)),    row = sum_i w_i * source row of shared token i

v are FastText vectors of the *target* tokens only (`vectors/fasttext.py`), so no mapping between two spaces is needed:
shared tokens, whose rows are copied, connect the vocabularies. Sparsemax (Martins and Astudillo 2016) returns the point
of the simplex nearest to the cosines; unlike softmax, it gives most tokens a weight of exactly zero. A token without a
vector gets a random row.

Shared tokens are found by bytes. The authors' package compares decoded text without leading white space. So it copies
the row of one run of spaces or line ends to another; this implementation does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.errors import InputError
from tokalign_lab.progress import part
from tokalign_lab.vectors.fasttext import fasttext_vectors

_N_CANDIDATES = 10  # listed in the lexicon, of those with a weight
_BLOCK_NUMBERS = 1 << 23  # 64 MB of float64 cosines at a time


def focus_rows(rows: LexiconRows, inputs: Inputs) -> dict[str, Any]:
    """Make the open rows from the shared ones, which must be copied already.

    `rearrange` samples the random rows. Raises InputError if no shared token has a vector.
    """
    pair, progress = inputs.pair, inputs.progress
    vectors = fasttext_vectors(pair.target_corpus, pair.target, seed=inputs.seed, progress=part(progress, 0.0, 0.7))
    unit = vectors.normalized()
    copied = rows.origin[vectors.ids] == "identical"
    if not copied.any():
        raise InputError(
            f"No token that {pair.source.name} and {pair.target.name} share is frequent in the text, and FOCUS mixes "
            "only those; give more text, or use the recipe 'pieces'."
        )
    shared_sources, shared_vectors = rows.source_id[vectors.ids[copied]], unit[copied]
    new = np.flatnonzero(np.isin(vectors.ids, open_ids(rows, pair.target)))
    block = max(1, _BLOCK_NUMBERS // len(shared_vectors))
    for first in range(0, len(new), block):
        here = new[first : first + block]
        progress(0.7 + 0.3 * first / len(new), "mixing shared tokens")
        # Rounded, so that weights do not depend on the order of addition; in float64, whose error is far below the
        # rounding step.
        cosines = np.rint((unit[here].astype(np.float64) @ shared_vectors.T.astype(np.float64)) * 2**20) / 2**20
        for place, weights, scores in zip(here, sparsemax(cosines), cosines, strict=True):
            target_id, chosen = int(vectors.ids[place]), np.flatnonzero(weights)
            rows.mix(target_id, shared_sources[chosen].tolist(), weights[chosen].tolist(), "aligned")
            best = chosen[np.argsort(-scores[chosen], kind="stable")][:_N_CANDIDATES]
            rows.candidates(target_id, shared_sources[best], scores[best])
    rows.fill(open_ids(rows, pair.target), "random")
    return {}


def sparsemax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project each row of `scores`, (n, m), onto the simplex: the nearest weights that are at least 0 and sum to 1.

    The weights are max(score - threshold, 0). The threshold is found as in Michelot (1986): choose it so that the
    weights of the active scores sum to 1, drop the scores at or below it, and repeat until none is dropped.
    """
    active = np.ones(scores.shape, dtype=bool)
    while True:
        total = np.where(active, scores, 0.0).sum(axis=1)
        threshold = ((total - 1) / active.sum(axis=1))[:, None]
        still = active & (scores > threshold)
        if (still == active).all():
            return np.where(active, scores - threshold, 0.0)
        active = still
