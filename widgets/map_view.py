"""Which tokens the two maps draw, where, in which colour, and what hovering over one says. No widgets here.

A browser draws 20,000 points a map and no more with good grace, so a map shows a sample: half the most frequent
tokens, half drawn at random (seeded), and on the source side first of all the partners of the target tokens shown.
Selected and pinned tokens are always drawn, on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from tokalign_lab.projection import Projection, turned_onto
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.widgets.figures import NO_VALUE, ORIGIN_COLOURS, MapPoints
from tokalign_lab.widgets.lexicon_view import LexiconView

MOST_DRAWN = 20_000  # beyond this, box and lasso selection take seconds in the browser
PARTNERS_NAMED = 3
MOST_NAMED = 25  # highlighted tokens that are written beside their points


class MapView:
    """Points of both maps.

    Parameters
    ----------
    view : the lexicon, ready to query
    source, target : token vectors of both sides
    drawn : points a map, at most `MOST_DRAWN`
    """

    def __init__(
        self, view: LexiconView, source: TokenVectors, target: TokenVectors, drawn: int = 3000, seed: int = 0
    ) -> None:
        self.view = view
        self.vectors = {"source": source, "target": target}
        drawn = min(drawn, MOST_DRAWN)
        chosen = _sample(target.ids, target.counts, drawn, seed)
        partners = np.intersect1d(view.partners("target", chosen), source.ids)[:drawn]
        rest = ~np.isin(source.ids, partners)
        filled = _sample(source.ids[rest], source.counts[rest], drawn - len(partners), seed)
        self.drawn = {"source": np.union1d(partners, filled), "target": chosen}
        self.projections: dict[str, Projection] = {}

    def place(self, source: Projection, target: Projection, shared: bool) -> None:
        """Take new places; two separate layouts are turned to lie alike."""
        if not shared:
            ids = self.drawn["target"]
            partners = self.view.source_of[ids]
            target = turned_onto(target, source, ids[partners >= 0], partners[partners >= 0])
        self.projections = {"source": source, "target": target}

    def points(self, space: str, colour_by: str) -> MapPoints:
        """Return the cloud of one map."""
        ids = self.drawn[space]
        return MapPoints(
            ids,
            self.projections[space].places_of(ids),
            self.hovers(space, ids),
            self._colours(space, ids, colour_by),
        )

    def highlighted(self, space: str, ids: np.ndarray) -> MapPoints:
        """Return selected tokens, or the partners of tokens selected on the other map, with their names when few."""
        placed = np.intersect1d(ids, self.vectors[space].ids)[:MOST_DRAWN]
        names = [self._label(space, i) for i in placed.tolist()] if len(placed) <= MOST_NAMED else [""] * len(placed)
        return MapPoints(placed, self.projections[space].places_of(placed), self.hovers(space, placed), names)

    def hovers(self, space: str, ids: np.ndarray) -> list[str]:
        """Say what hovering over each token says: its name, its partners, score and origin."""
        return [self._hover(space, i) for i in ids.tolist()]

    def _hover(self, space: str, i: int) -> str:
        view = self.view
        if space == "target":
            partner = self._label("source", int(view.source_of[i])) or "no single token"
            score = view.score[i]
            told = f"← {partner}<br>{view.origin.iat[i]}, score {_figure(score)}, {view.count[i]:,} times in the text"
        else:
            targets = view.partners("source", np.array([i]))
            named = ", ".join(self._label("target", int(t)) for t in targets[:PARTNERS_NAMED])
            more = f" and {len(targets) - PARTNERS_NAMED} more" if len(targets) > PARTNERS_NAMED else ""
            told = f"→ {named}{more}" if named else "no target token inherits from it"
        return f"<b>{self._label(space, i)}</b> (id {i})<br>{told}"

    def _label(self, space: str, i: int) -> str:
        return escape(self.view.labels.of(space, i))

    def _colours(self, space: str, ids: np.ndarray, colour_by: str) -> Sequence[Any]:
        table = self.view.lexicon.table if space == "target" else self.view.lexicon.reverse
        if colour_by == "origin":
            return [ORIGIN_COLOURS.get(name, NO_VALUE) for name in table["origin"].to_numpy()[ids]]
        if colour_by == "score":
            return table["score"].to_numpy(np.float64)[ids].round(4)
        vectors = self.vectors[space]
        counts = vectors.counts[np.searchsorted(vectors.ids, ids)]
        return np.log10(counts + 1.0).round(3)


def _sample(ids: np.ndarray, counts: np.ndarray, n: int, seed: int) -> np.ndarray:
    """`n` ids, ascending: half the most frequent, half any of the others."""
    if n >= len(ids):
        return ids
    ranked = np.argsort(-counts, kind="stable")
    frequent, others = ranked[: n // 2], ranked[n // 2 :]
    drawn = np.random.default_rng(seed).choice(others, n - n // 2, replace=False)
    return np.sort(ids[np.concatenate([frequent, drawn])])


def _figure(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "none"
