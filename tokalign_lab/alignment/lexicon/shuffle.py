"""A lexicon with a share of its rows shuffled (TokAlign figure 11).

Shuffling more and more of a good lexicon gives lexicons between it and chance, on which a score has to follow the
quality of the model.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon

_OF_A_ROW = ("source_id", "sources", "weights", "mean_weight")


def shuffled(lexicon: Lexicon, share: float, seed: int = 0) -> Lexicon:
    """Return a lexicon in which the sources of a share (0 to 1) of all rows, shared tokens included, are shuffled.

    Both directions change; output rows that differ from input rows do not.
    """
    table, random = lexicon.table.copy(), np.random.default_rng(seed)
    chosen = np.flatnonzero(random.random(len(table)) < share)
    shuffled_rows = random.permutation(chosen)
    for column in _OF_A_ROW:
        values = table[column].to_numpy().copy()
        values[chosen] = values[shuffled_rows]
        table[column] = values
    reverse = lexicon.reverse.copy()
    target_of = reverse["target_id"].to_numpy().copy()
    there = np.flatnonzero((target_of >= 0) & (random.random(len(target_of)) < share))
    target_of[there] = target_of[random.permutation(there)]
    reverse["target_id"] = target_of
    return Lexicon(table, reverse, lexicon.provenance)
