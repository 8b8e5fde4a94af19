"""Tokens that stand out on the maps: the selected with their partners, the pinned, the found, the worst.

No widgets here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tokalign_lab.widgets.lexicon_view import LexiconView
from tokalign_lab.widgets.query import Query
from tokalign_lab.widgets.state import SPACES, LabState, Selection

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
