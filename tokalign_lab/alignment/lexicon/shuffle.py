"""A lexicon with a share of its rows shuffled (TokAlign figure 11).

Larger shares give lexicons of quality between the original and chance. A useful score falls with the quality of the
models made from them.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon

_OF_A_ROW = ("source_id", "sources", "weights", "mean_weight")


def shuffled(lexicon: Lexicon, share: float, seed: int = 0) -> Lexicon:
    """Return a lexicon in which the sources of a share (0 to 1) of all rows, shared tokens included, are shuffled.

    Both directions are shuffled; separate output rows are not.
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
