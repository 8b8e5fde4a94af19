"""The position of each token on its map, and the tokens that are marked or joined by lines.

A map has a point for every token that has a vector. A point's index is its row in the token vectors. This module
contains no widgets.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tokalign_lab.projection import Projection, rotated_onto
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.state import SPACES, LabState, Query, Selection
from ..lexicon.view import LexiconView

EDGE = 0.97  # positions are from -EDGE to EDGE; the canvas is from -1 to 1


class MapView:
    """Points of both maps.

    Attributes
    ----------
    xy : for each space, float32 (n, 2), the position of each token with a vector
    """

    def __init__(self, view: LexiconView, source: TokenVectors, target: TokenVectors) -> None:
        self.view = view
        self.vectors = {"source": source, "target": target}
        self.xy = {space: np.zeros((len(some), 2), dtype=np.float32) for space, some in self.vectors.items()}

    def place(self, source: Projection, target: Projection, shared: bool) -> None:
        """Set new positions; the target's layout is rotated onto the source's unless both share one."""
        if shared:
            both = np.concatenate([source.xy, target.xy])
            ends = {space: (both.min(axis=0), both.max(axis=0)) for space in SPACES}
        else:
            partners = self.view.source_of[target.ids]
            target = rotated_onto(target, source, target.ids[partners >= 0], partners[partners >= 0])
            ends = {s: (p.xy.min(axis=0), p.xy.max(axis=0)) for s, p in (("source", source), ("target", target))}
        for space, projection in (("source", source), ("target", target)):
            low, high = ends[space]
            shares = (projection.xy - low) / np.maximum(high - low, 1e-12)
            self.xy[space] = ((2 * shares - 1) * EDGE).astype(np.float32)

    def points_of(self, space: str, ids: np.ndarray) -> np.ndarray:
        """Return the points of these tokens, each once, ascending, int64 (n,); tokens without a vector have none."""
        points = self.vectors[space].positions_of(np.asarray(ids, dtype=np.int64))
        chosen = np.zeros(len(self.vectors[space]), dtype=bool)
        chosen[points[points >= 0]] = True
        return np.flatnonzero(chosen)

    def lines(self, pairs: np.ndarray) -> np.ndarray:
        """Return the points of pairs that have one on both maps, int64 (m, 2).

        `pairs` are source and target ids, int (n, 2).
        """
        ends = [self.vectors[space].positions_of(pairs[:, side]) for side, space in enumerate(SPACES)]
        both = np.stack(ends, axis=1).astype(np.int64)
        return both[(both >= 0).all(axis=1)]


MOST_FOUND = 500  # tokens of a search or filter to mark, the most frequent first
WORST = 50


def marked_tokens(view: LexiconView, state: LabState, worst: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the ids to mark, int64 (n,) by space, for each of "pinned", "found" and "worst".

    Found and worst pairs are marked on both maps. Raises `InputError` for an invalid regular expression.

    Parameters
    ----------
    view : the lexicon
    state : holds the pins and the query; a query without filters finds nothing
    worst : whether to mark the pairs with the lowest score
    """
    targets = {name: np.zeros(0, dtype=np.int64) for name in ("found", "worst")}
    asked = replace(state.query, selected=False, sort="frequency", reverse=False)
    if asked != Query():
        targets["found"] = view.rows(asked)[:MOST_FOUND]
    if worst:
        ranked = view.rows(Query(sort="worst"))
        # rows without a score come first in this order; they have no vector, so they are on no map
        targets["worst"] = ranked[np.isfinite(view.score[ranked])][:WORST]
    pins = {space: np.array([i for where, i in state.pins if where == space], dtype=np.int64) for space in SPACES}
    pairs = {
        name: {"source": view.partners("target", ids)[:MOST_FOUND], "target": ids} for name, ids in targets.items()
    }
    return {"pinned": pins, **pairs}


def with_partners(view: LexiconView, chosen: Selection) -> dict[str, np.ndarray]:
    """Return the ids of the selected tokens and of their partners, int64 (n,) by space."""
    ids = {space: np.zeros(0, dtype=np.int64) for space in SPACES}
    if chosen:
        other = "source" if chosen.space == "target" else "target"
        ids[chosen.space] = np.asarray(chosen.ids, dtype=np.int64)
        ids[other] = view.partners(chosen.space, ids[chosen.space])
    return ids


def pairs_of(view: LexiconView, targets: np.ndarray) -> np.ndarray:
    """Return source and target ids of the pairs of these target tokens, int64 (n, 2); none for one without a source."""
    targets = targets[targets < len(view.source_of)]
    pairs = np.stack([view.source_of[targets], targets], axis=1)
    return pairs[pairs[:, 0] >= 0]
