"""BERTScore: the meaning of tokens in context, matched one by one.

Each token of the candidate x looks for the most similar token of the reference y, and the other way round; vectors
are contextual embeddings of length 1, so that a product is a cosine (Zhang et al. 2020, section 3):

    precision = mean over x of max over y of x . y        recall = mean over y of max over x of x . y
    F1 = 2 precision recall / (precision + recall)

The sentence score compares one vector a text, so that a text of the right subject scores high; this one asks for each
token. It is *BERTScore over MiniLM-L6*: the encoder is the packaged sentence encoder (its last layer) and not the
RoBERTa-large of the paper's tables, there is no idf weighting and no rescaling to a baseline, and the encoder's own
marks ([CLS], [SEP]) take no part. Figures can be compared with each other, not with those of the papers. The encoder
reads English; see `encoder`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BertScore:
    """Precision, recall and their harmonic mean F1, each -1 to 1 (in practice 0 to 1)."""

    precision: float
    recall: float
    f1: float


def bert_score(candidate: NDArray[np.float32], reference: NDArray[np.float32]) -> BertScore:
    """Match the tokens of two texts greedily.

    Parameters
    ----------
    candidate, reference
        float32 (m, d) and (n, d), rows of length 1.

    Returns
    -------
    BertScore
        Zero where either text has no token.
    """
    if not len(candidate) or not len(reference):
        return BertScore(0.0, 0.0, 0.0)
    cosines = (candidate @ reference.T).clip(-1, 1)  # lengths are 1 only as far as float32 goes
    precision = float(cosines.max(axis=1).mean(dtype=np.float64))
    recall = float(cosines.max(axis=0).mean(dtype=np.float64))
    total = precision + recall
    # Cosines may be negative; then there is no harmonic mean, and nothing was matched.
    f1 = 2 * precision * recall / total if min(precision, recall) > 0 else 0.0
    return BertScore(precision, recall, f1)
