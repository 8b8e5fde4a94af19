"""Vectors of two vocabularies that can be compared with each other, and the search in them.

`tokalign` trains GloVe on either side and describes each token by its cosines to shared pivots (`relative.py`);
`anchored` counts both sides against the same shared tokens and needs no such step (`vectors/anchored.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.neighbours import Candidates, density, nearest, nearest_csls
from tokalign_lab.alignment.relative import N_PIVOTS, choose_pivots, relative_rows
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, part
from tokalign_lab.vectors.anchored import AnchoredSettings, anchored_vectors
from tokalign_lab.vectors.glove import GloveSettings, glove_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import SharedTokens

N_CANDIDATES = 10


@dataclass
class Space:
    """Vectors of two vocabularies that can be compared with each other.

    `densities` holds r of CSLS for target and source vectors; None compares by cosine.
    """

    source: TokenVectors
    target: TokenVectors
    densities: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    parameters: dict[str, Any]


def make_space(
    pair: TokenizedPair, recipe: str, shared: SharedTokens, seed: int, progress: Progress | None = None
) -> Space | None:
    """Vectors of both vocabularies as `recipe` makes them comparable; None for a recipe without vectors.

    GloVe vectors come from the cache where the same text was trained on before: they do not depend on `shared`.
    """
    ids = (shared.source_ids, shared.target_ids)
    if recipe == "anchored":
        settings = AnchoredSettings()
        vectors = anchored_vectors(
            pair.source_corpus, pair.target_corpus, ids, (pair.source.size, pair.target.size), settings, seed, progress
        )
        densities = density(vectors[1].rows, vectors[0].rows)
        return Space(*vectors, densities, asdict(settings))
    if recipe == "tokalign":
        _check_shared(shared)
        glove = GloveSettings()
        trained = (
            glove_vectors(pair.source_corpus, pair.source.size, glove, seed, part(progress, 0.0, 0.5)),
            glove_vectors(pair.target_corpus, pair.target.size, glove, seed, part(progress, 0.5, 1.0)),
        )
        pivots = choose_pivots(*trained, ids, N_PIVOTS, seed)
        described = [_described(vectors, side) for vectors, side in zip(trained, pivots, strict=True)]
        return Space(described[0], described[1], None, {**asdict(glove), "pivots": len(pivots[0])})
    return None


def find_candidates(
    space: Space, target_ids: NDArray[np.int64], source_is_control: NDArray[np.bool_], k: int = N_CANDIDATES
) -> Candidates:
    """Rank the source tokens most similar to each of `target_ids`; tokens without a vector are left out.

    Parameters
    ----------
    space
        Comparable vectors.
    target_ids
        int64 (n,).
    source_is_control
        bool (source size,); special tokens are never candidates.
    k
        Candidates a token.

    Returns
    -------
    Candidates
        At most n rows.
    """
    allowed = np.flatnonzero(~source_is_control[space.source.ids])
    asking = space.target.positions_of(target_ids)
    asking = asking[asking >= 0]
    queries, keys = space.target.rows[asking], space.source.rows[allowed]
    if space.densities is None:
        positions, scores = nearest(queries, keys, k)
    else:
        of_target, of_source = space.densities
        positions, scores = nearest_csls(queries, keys, k, (of_target[asking], of_source[allowed]))
    return Candidates(space.target.ids[asking], space.source.ids[allowed][positions], scores)


def turned_space(space: Space) -> Space:
    """Return the same vectors with source and target exchanged, for the other direction."""
    densities = None if space.densities is None else (space.densities[1], space.densities[0])
    return Space(space.target, space.source, densities, space.parameters)


def _check_shared(shared: SharedTokens) -> None:
    if not len(shared):
        raise InputError(
            "The two vocabularies share no token, and the recipe 'tokalign' compares tokens through shared ones; "
            "use the recipe 'pieces', or overlap='bytes'."
        )


def _described(vectors: TokenVectors, pivots: NDArray[np.int64]) -> TokenVectors:
    provenance = {**vectors.provenance, "method": "relative", "pivots": pivots.tolist()}
    rows = relative_rows(vectors, pivots)
    return TokenVectors(vectors.ids, rows, vectors.counts, vectors.vocabulary_fingerprint, provenance)
