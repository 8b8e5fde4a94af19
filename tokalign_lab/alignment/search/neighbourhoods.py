"""Nearest neighbours of a pair's tokens in both spaces, and the share of them that agree.

A pair of the lexicon is reliable if the neighbours of the target token have partners that are neighbours of its source
token. The share of k neighbours for which this holds is the neighbour overlap; it follows the Embedding Comparator
(Boggust et al. 2022) and cev's neighbourhood metric. It needs no common coordinates, so it works for any two spaces.

Neighbours are exact, by cosine. For the overlap they are searched among the most frequent tokens of each side
(`REFERENCE`), so that the value of a token does not depend on the other tokens of the call, and tens of thousands of
tokens take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.search.neighbours import nearest
from tokalign_lab.vectors.token_vectors import TokenVectors, row_norms

NEIGHBOURS = 10
REFERENCE = 20_000  # tokens of each side among which the overlap searches neighbours


class Neighbourhood:
    """Neighbours of one token at a time, by one matrix-vector product; `neighbours.nearest` takes many at once."""

    def __init__(self, vectors: TokenVectors) -> None:
        self.vectors = vectors
        self._norms = row_norms(vectors.rows).astype(np.float32)

    def of(self, token_id: int, k: int = 8) -> list[tuple[int, float]]:
        """Find the k nearest other tokens: (id, cosine), nearest first; none if the token has no vector."""
        (place,) = self.vectors.positions_of(np.array([token_id]))
        if place < 0 or not self.vectors.dimensions:
            return []
        rows: NDArray[np.float32] = self.vectors.rows
        cosines = (rows @ rows[place]) / (self._norms * self._norms[place])
        cosines[place] = -np.inf
        k = min(k, len(cosines) - 1)
        best = np.argpartition(-cosines, k)[:k] if k < len(cosines) - 1 else np.flatnonzero(np.isfinite(cosines))
        best = best[np.lexsort((best, -cosines[best]))]
        return [(int(self.vectors.ids[i]), float(cosines[i])) for i in best]


class Neighbour(NamedTuple):
    """A neighbour of a pair's token, and whether its partner is among the neighbours in the other space."""

    id: int
    cosine: float
    matched: bool


def around_pair(
    spaces: Mapping[str, Neighbourhood], pair: Mapping[str, int], source_of: NDArray[Any], k: int = NEIGHBOURS
) -> dict[str, list[Neighbour]]:
    """Find the k nearest other tokens of both tokens of a pair, by space: "source" and "target".

    Many targets may use one source: it matches if any of the target's neighbours uses it.

    Parameters
    ----------
    spaces : the neighbourhood of each space
    pair : the token of each space, -1 for none
    source_of : int (target size,), the source token of each target token, -1 for none
    """
    source, target = (spaces[space].of(pair[space], k) for space in ("source", "target"))
    sources, used = {i for i, _ in source}, {int(source_of[i]) for i, _ in target}
    return {
        "source": [Neighbour(i, cosine, i in used) for i, cosine in source],
        "target": [Neighbour(i, cosine, int(source_of[i]) in sources) for i, cosine in target],
    }


class Neighbourhoods:
    """The neighbour overlap of tokens in the two spaces that a lexicon links; the spaces may have different dimensions.

    `source_of` is as for `around_pair`; `k` is the number of neighbours that are compared. `spaces` has both spaces.
    """

    def __init__(
        self, source: TokenVectors, target: TokenVectors, source_of: NDArray[Any], k: int = NEIGHBOURS
    ) -> None:
        self.spaces = {"source": Neighbourhood(source), "target": Neighbourhood(target)}
        self._source_of = np.asarray(source_of, dtype=np.int64)
        self._k = k
        of_target = _most_frequent(target)
        partners = self._partners(of_target)
        known = partners[source.positions_of(partners) >= 0]
        self._reference = {"target": of_target, "source": np.union1d(known, _most_frequent(source))}

    def overlap(self, target_ids: NDArray[Any]) -> NDArray[np.float32]:
        """Return the share of each target token's neighbours whose partners are neighbours of its own partner.

        The partner is not its own neighbour, so tokens with the same source do not confirm each other. Returns float32
        (n,), 0 to 1; NaN for a token that has no vector, no partner, or a partner without a vector.
        """
        target_ids = np.asarray(target_ids, dtype=np.int64)
        shares = np.full(len(target_ids), np.nan, dtype=np.float32)
        partners = self._partners(target_ids)
        valid = (self.spaces["target"].vectors.positions_of(target_ids) >= 0) & (partners >= 0)
        valid &= self.spaces["source"].vectors.positions_of(partners) >= 0
        if not valid.any():
            return shares
        unique, where = np.unique(partners[valid], return_inverse=True)
        theirs = self._nearest_known("source", unique)[where]
        ours = self._partners(self._nearest_known("target", target_ids[valid]))
        inside = (ours[:, :, None] == theirs[:, None, :]).any(axis=2) & (ours >= 0)
        shares[valid] = inside.mean(axis=1)
        return shares

    def _nearest_known(self, space: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find the k nearest reference tokens other than the token itself, int64 (n, k)."""
        vectors, reference = self.spaces[space].vectors, self._reference[space]
        found, _ = nearest(vectors.rows_for(ids), vectors.rows_for(reference), self._k + 1)
        answers = reference[found]
        itself = answers == ids[:, None]
        itself[~itself.any(axis=1), -1] = True  # not among its own neighbours: drop the farthest
        return answers[~itself].reshape(len(ids), -1)

    def _partners(self, target_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        known = target_ids < len(self._source_of)
        return np.where(known, self._source_of[np.where(known, target_ids, 0)], -1)


def _most_frequent(vectors: TokenVectors) -> NDArray[np.int64]:
    """Return the ids of the reference tokens of one side, ascending."""
    return np.sort(vectors.ids[np.argsort(-vectors.counts, kind="stable")[:REFERENCE]])
