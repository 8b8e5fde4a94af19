"""Relative representations: two spaces compared through shared tokens.

A token is described by its cosines to 300 shared tokens (pivots), each measured in the token's own space (Moschella et
al. 2023; the "+ Align Rep." rows of TokAlign). This makes two spaces comparable that were trained separately, because a
shared token has similar cosines to the same pivots on both sides.

TokAlign's released script, and so the recipe `tokalign` (`as_cosines`), compares the descriptions by a plain dot
product. Then a token whose cosines to all pivots are large (a frequent, central token) beats the right token. The
recipe `tokalign-normalised` first scales the descriptions to length 1. On SmolLM2 to a 32k SentencePiece vocabulary the
script finds 0.8 % of held-out shared tokens, and 67 % with that step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.vectors.strips import product
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows

N_PIVOTS = 300
FEWEST_PIVOTS = 2  # with one pivot every description is +1 or -1


def choose_pivots(
    source: TokenVectors,
    target: TokenVectors,
    shared: tuple[NDArray[np.int64], NDArray[np.int64]],
    n: int = N_PIVOTS,
    seed: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sample at most n pivots from the shared tokens that have a vector on both sides.

    `shared` has source ids and target ids in pairs, without special and held-out tokens. Returns source ids and target
    ids, int64, in pairs, by ascending target id. Raises InputError if fewer than two shared tokens can be used.
    """
    places = np.flatnonzero((source.positions_of(shared[0]) >= 0) & (target.positions_of(shared[1]) >= 0))
    if len(places) < FEWEST_PIVOTS:
        raise InputError(
            f"Relative representations compare tokens through shared ones, but only {len(places)} shared tokens are "
            "frequent enough in the text on both sides; give more text, or use the recipe 'pieces'."
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(places)[:n])
    return shared[0][drawn], shared[1][drawn]


def relative_rows(vectors: TokenVectors, pivots: NDArray[Any], normalise: bool = True) -> NDArray[np.float32]:
    """Describe every token by its cosines to the pivots (ids with a vector), float32 (n, pivots).

    `normalise` scales descriptions to length 1; TokAlign's released script does not.
    """
    rows = product(vectors.normalized(), unit_rows(vectors.rows_for(pivots)).T)
    return unit_rows(rows) if normalise else rows


def relative_vectors(vectors: TokenVectors, pivots: NDArray[np.int64], normalise: bool = True) -> TokenVectors:
    """`relative_rows` as vectors of the same tokens, with the pivots in their provenance."""
    provenance = {**vectors.provenance, "method": "relative", "pivots": pivots.tolist()}
    rows = relative_rows(vectors, pivots, normalise)
    return TokenVectors(vectors.ids, rows, vectors.counts, vectors.vocabulary_fingerprint, provenance)


def as_cosines(
    queries: NDArray[np.float32], keys: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Add one dimension to both sides, so that the cosine ranks keys as their dot product with the query does.

    The new dimension is 0 in the queries and makes every key as long as the longest; (n, p) and (m, p) become
    (n, p + 1) and (m, p + 1). A cosine is then the dot product divided by the lengths of the query and the longest key.
    """
    squares = np.einsum("ij,ij->i", keys, keys, dtype=np.float64)
    missing = np.sqrt(squares.max(initial=0.0) - squares).astype(np.float32)
    none = np.zeros((len(queries), 1), np.float32)
    return np.concatenate([queries, none], axis=1), np.concatenate([keys, missing[:, None]], axis=1)
