"""The tokens that both maps draw, and their positions. No widgets here.

A browser draws 20,000 points a map and no more with good grace, so a map shows a sample: first what must be seen (the
pinned, the found, the worst), then half the most frequent tokens and half drawn at random (seeded), and on the source
side before these the partners of the target tokens shown. All others are counted, not dropped: `density` tells where
they are. A closer look samples again among the tokens inside the window.

Places are whole numbers on a grid of `GRID` steps a side. A layout has no units, and short numbers keep what a box over
20,000 points sends back to the kernel small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tokalign_lab.projection import Projection, turned_onto
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.state import SPACES, LabState, Query, Selection
from ..lexicon.view import LexiconView

MOST_DRAWN = 20_000  # beyond this, box and lasso selection take seconds in the browser
GRID = 100_000
EDGE = 3_000  # free space around a map
CELLS = 128  # of the density, a side
Window = tuple[float, float, float, float]  # x from, x to, y from, y to, on the grid
WHOLE: Window = (-EDGE, GRID + EDGE, -EDGE, GRID + EDGE)


class MapView:
    """Points of both maps.

    Parameters
    ----------
    view : the lexicon, ready to query
    source, target : token vectors of both sides
    drawn : points a map, at most `MOST_DRAWN`
    seed : of the random half of a sample
    """

    def __init__(
        self, view: LexiconView, source: TokenVectors, target: TokenVectors, drawn: int = 3000, seed: int = 0
    ) -> None:
        self.view = view
        self.vectors = {"source": source, "target": target}
        self.at_most = max(1, min(drawn, MOST_DRAWN))
        self.drawn = {space: np.zeros(0, dtype=np.int64) for space in SPACES}
        self.inside = {space: len(self.vectors[space]) for space in SPACES}
        self._places = {space: np.zeros((0, 2), dtype=np.int64) for space in SPACES}
        random = np.random.default_rng(seed)
        # Ranks that never change: a closer look keeps what was drawn before where it fits.
        self._by_count = {space: _ranks(np.argsort(-v.counts, kind="stable")) for space, v in self.vectors.items()}
        self._by_chance = {space: random.permutation(len(v)) for space, v in self.vectors.items()}

    def place(self, source: Projection, target: Projection, shared: bool) -> None:
        """Take new places; two separate layouts are turned to lie alike, each on a grid of its own."""
        if shared:
            both = np.concatenate([source.xy, target.xy])
            ends = {space: (both.min(axis=0), both.max(axis=0)) for space in SPACES}
        else:
            partners = self.view.source_of[target.ids]
            target = turned_onto(target, source, target.ids[partners >= 0], partners[partners >= 0])
            ends = {s: (p.xy.min(axis=0), p.xy.max(axis=0)) for s, p in (("source", source), ("target", target))}
        for space, projection in (("source", source), ("target", target)):
            low, high = ends[space]
            self._places[space] = np.rint((projection.xy - low) / np.maximum(high - low, 1e-12) * GRID).astype(np.int64)

    def sample(self, windows: Mapping[str, Window], always: Mapping[str, np.ndarray]) -> None:
        """Choose again which tokens are drawn: those of `always` (ids), then a sample of what is inside each window."""
        chosen: dict[str, np.ndarray] = {}
        for space in ("target", "source"):
            vectors = self.vectors[space]
            seen = np.flatnonzero(self._within(space, windows[space]))
            self.inside[space] = len(seen)
            first = vectors.positions_of(always[space])
            first = first[first >= 0][: self.at_most]
            if space == "source":
                partners = vectors.positions_of(self.view.partners("target", chosen["target"]))
                first = np.concatenate([first, np.intersect1d(partners[partners >= 0], seen)])
                first = first[np.sort(np.unique(first, return_index=True)[1])][: self.at_most]
            rest = np.setdiff1d(seen, first)
            positions = np.union1d(first, self._picked(space, rest, self.at_most - len(np.unique(first))))
            chosen[space] = vectors.ids[positions.astype(np.int64)]
        self.drawn = chosen

    def _picked(self, space: str, positions: np.ndarray, n: int) -> np.ndarray:
        """`n` of these rows: half the most frequent, half any of the others."""
        if n >= len(positions):
            return positions
        half = n // 2
        ordered = positions[np.argsort(self._by_count[space][positions])]
        others = ordered[half:]
        return np.concatenate([ordered[:half], others[np.argsort(self._by_chance[space][others])][: n - half]])

    def places_of(self, space: str, ids: np.ndarray) -> np.ndarray:
        """Places of tokens that have a vector, int64 (n, 2) on the grid."""
        return self._places[space][self.vectors[space].positions_of(ids)]

    def placed(self, space: str, ids: np.ndarray) -> np.ndarray:
        """Those of the tokens that have a vector, each once, ascending."""
        ids = np.unique(np.asarray(ids, dtype=np.int64))
        return ids[self.vectors[space].positions_of(ids) >= 0]

    def density(self, space: str, window: Window) -> np.ndarray:
        """Tokens inside the window that are not drawn, uint8 (CELLS, CELLS), rows upwards; on a log scale, 0 for none.

        255 is the fullest cell.
        """
        rest = self._within(space, window)
        rest[self.vectors[space].positions_of(self.drawn[space])] = False
        x0, x1, y0, y1 = window
        cells = (self._places[space][rest] - (x0, y0)) / (x1 - x0, y1 - y0) * CELLS
        column, row = np.minimum(cells.astype(np.int64), CELLS - 1).T
        counts = np.bincount(row * CELLS + column, minlength=CELLS * CELLS).reshape(CELLS, CELLS)
        heights = np.log1p(counts)
        return np.rint(255 * heights / max(float(heights.max()), 1e-9)).astype(np.uint8)

    def _within(self, space: str, window: Window) -> np.ndarray:
        x, y = self._places[space].T
        return (x >= window[0]) & (x <= window[1]) & (y >= window[2]) & (y <= window[3])

    def segments(self, windows: Mapping[str, Window], pairs: np.ndarray) -> np.ndarray:
        """Return the ends of the lines between partners as shares of their map's width and height, float (n, 2, 2).

        `pairs`, int (n, 2), holds source and target ids; a pair that is not in view on both sides is left out.
        """
        ends, seen = [], np.ones(len(pairs), dtype=bool)
        for side, space in enumerate(SPACES):
            ids = pairs[:, side]
            seen &= self.vectors[space].positions_of(ids) >= 0
            x0, x1, y0, y1 = windows[space]
            share = (self.places_of(space, ids) - (x0, y0)) / (x1 - x0, y1 - y0)
            seen &= ((share >= 0) & (share <= 1)).all(axis=1)
            ends.append(share)
        return np.stack(ends, axis=1)[seen]


def _ranks(order: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


MOST_FOUND = 500  # of those that a search or filter finds, the most frequent
WORST = 50


def marked_tokens(view: LexiconView, state: LabState, worst: bool) -> dict[str, dict[str, np.ndarray]]:
    """Ids by space, int64 (n,), for each of "pinned", "found" and "worst"; found and worst pairs on both maps.

    Parameters
    ----------
    view : the lexicon
    state : has the pins, and the query; nothing is found while no filter is set
    worst : whether the pairs of the lowest score are asked for

    Raises
    ------
    InputError
        For a regular expression that cannot be read.
    """
    targets = {name: np.zeros(0, dtype=np.int64) for name in ("found", "worst")}
    asked = replace(state.query, selected=False, sort="frequency", reverse=False)
    if asked != Query():
        targets["found"] = view.rows(asked)[:MOST_FOUND]
    if worst:
        ranked = view.rows(Query(sort="worst"))
        # what has no score comes first there, but has no vector either, and so no place on a map
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
    """Source and target ids of the pairs of these target tokens, int64 (n, 2); tokens without a source left out."""
    targets = targets[targets < len(view.source_of)]
    pairs = np.stack([view.source_of[targets], targets], axis=1)
    return pairs[pairs[:, 0] >= 0]
