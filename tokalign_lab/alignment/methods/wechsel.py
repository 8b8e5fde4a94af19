"""WECHSEL (Minixhofer et al. 2022) within one language: every row is a softmax over ten neighbours.

    row = sum_i softmax(cos(u, u_i) / 0.1) * source row of neighbour i,   i over the 10 source tokens nearest to u

u are FastText vectors of the tokens' text, from words between white space (`vectors/fasttext.py`). The paper maps two
languages' vectors onto each other with a dictionary; where the text is the same, one training serves both
vocabularies. Against FOCUS nothing is copied but special tokens: a token that both vocabularies have is mixed from its
neighbours like any other, and since the vector knows no white space, "the" and " the" are one. What FastText has no
vector for (white space, parts of characters) gets a random row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.search.neighbours import nearest
from tokalign_lab.progress import part
from tokalign_lab.vectors.fasttext import fasttext_word_vectors

NEIGHBOURS = 10
TEMPERATURE = 0.1


def wechsel_rows(rows: LexiconRows, inputs: Inputs) -> dict[str, Any]:
    """Make all rows but those of special tokens.

    Parameters
    ----------
    rows
        With special tokens already copied by role; copies of shared tokens, where there are any, are made anew.
    inputs
        The text in both tokenizations. The random rows are drawn when the model is rearranged.

    Raises
    ------
    InputError
        If the text is too short for FastText.
    """
    pair = inputs.pair
    source, target = fasttext_word_vectors(
        pair.documents,
        (pair.source_corpus, pair.target_corpus),
        (pair.source, pair.target),
        seed=inputs.seed,
        progress=part(inputs.progress, 0.0, 0.8),
    )
    _reopen(rows, np.flatnonzero(rows.origin == "identical"))
    asking = np.isin(target.ids, open_ids(rows, pair.target))
    found, scores = nearest(target.rows[asking], source.rows, NEIGHBOURS)
    powers = np.exp((scores - scores[:, :1]) / np.float32(TEMPERATURE))  # mix scales them to sum to 1
    for target_id, neighbours, weights, cosines in zip(
        target.ids[asking].tolist(), source.ids[found], powers, scores, strict=True
    ):
        rows.mix(target_id, neighbours.tolist(), weights.tolist(), "aligned")
        rows.candidates(target_id, neighbours, cosines)
    rows.fill(open_ids(rows, pair.target), "random")
    return {}


def _reopen(rows: LexiconRows, ids: NDArray[np.int64]) -> None:
    """Make rows holes again."""
    fresh = LexiconRows(rows.size)
    for name in ("source_id", "score", "margin", "origin", "mean_weight"):
        getattr(rows, name)[ids] = getattr(fresh, name)[ids]
    for i in ids.tolist():
        rows.sources[i], rows.weights[i] = fresh.sources[i], fresh.weights[i]
