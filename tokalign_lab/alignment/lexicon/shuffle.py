"""A lexicon spoiled on purpose: a share of its rows dealt out anew (TokAlign figure 11).

What a lexicon is worth shows when it is lost. Shuffling more and more of a good lexicon gives lexicons between it and
chance, on which a score has to follow what the model says.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon

_OF_A_ROW = ("source_id", "sources", "weights", "mean_weight")


def shuffled(lexicon: Lexicon, share: float, seed: int = 0) -> Lexicon:
    """Deal the sources of a share of all rows out anew among themselves, shared tokens included, in both directions.

    Parameters
    ----------
    lexicon
        Left as it is. One whose output rows are made apart keeps those.
    share
        0 to 1.
    seed
        Of the choice and of the deal.
    """
    table, random = lexicon.table.copy(), np.random.default_rng(seed)
    chosen = np.flatnonzero(random.random(len(table)) < share)
    dealt = random.permutation(chosen)
    for column in _OF_A_ROW:
        values = table[column].to_numpy().copy()
        values[chosen] = values[dealt]
        table[column] = values
    reverse = lexicon.reverse.copy()
    target_of = reverse["target_id"].to_numpy().copy()
    there = np.flatnonzero((target_of >= 0) & (random.random(len(target_of)) < share))
    target_of[there] = target_of[random.permutation(there)]
    reverse["target_id"] = target_of
    return Lexicon(table, reverse, lexicon.provenance)
