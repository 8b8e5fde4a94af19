"""WECHSEL (Minixhofer et al. 2022) within one language: every row is a softmax over ten neighbours.

    row = sum_i softmax(cos(u, u_i) / 0.1) * source row of neighbour i,   i over the 10 source tokens nearest to u

u are FastText vectors of the tokens' text, trained on the words of the text (`vectors/fasttext.py`). The paper maps the
vectors of two languages onto each other with a dictionary; here one training on the same text serves both vocabularies.
Unlike in FOCUS, only special tokens are copied: a shared token is a mixture of its neighbours like any other token.
Vectors ignore white space, so "the" and " the" have the same one. A token without a FastText vector (white space, parts
of characters) gets a random row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.search.neighbours import nearest
from tokalign_lab.progress import part
from tokalign_lab.vectors.fasttext import fasttext_word_vectors

NEIGHBOURS = 10
TEMPERATURE = 0.1


def wechsel_rows(rows: LexiconRows, inputs: Inputs) -> dict[str, Any]:
    """Make all rows except those of special tokens, which must be copied already.

    `rearrange` samples the random rows. Raises InputError if the text is too short for FastText.
    """
    pair = inputs.pair
    source, target = fasttext_word_vectors(
        pair.documents, (pair.source_corpus, pair.target_corpus), (pair.source, pair.target), seed=inputs.seed,
        progress=part(inputs.progress, 0.0, 0.8),
    )  # fmt: skip
    queried = np.isin(target.ids, open_ids(rows, pair.target))
    found, scores = nearest(target.rows[queried], source.rows, NEIGHBOURS)
    powers = np.exp((scores - scores[:, :1]) / np.float32(TEMPERATURE))  # mix scales them to sum to 1
    for target_id, neighbours, weights, cosines in zip(
        target.ids[queried].tolist(), source.ids[found], powers, scores, strict=True
    ):
        rows.mix(target_id, neighbours.tolist(), weights.tolist(), "aligned")
        rows.candidates(target_id, neighbours, cosines)
    rows.fill(open_ids(rows, pair.target), "random")
    return {}
