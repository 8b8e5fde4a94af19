"""A sentence encoder read once for two scores: the cosine of two texts' embeddings, and BERTScore of their tokens.

The packaged encoder (catalogue `minilm`, all-MiniLM-L6-v2) was trained on English: on other languages its vectors
mean little, and scores made with it say little. It reads the first 256 word pieces of a text.

BERTScore matches tokens one by one. Each token of the candidate x looks for the most similar token of the reference y,
and the other way round; vectors are contextual embeddings of length 1, so that a product is a cosine (Zhang et al.
2020, section 3):

    precision = mean over x of max over y of x . y        recall = mean over y of max over x of x . y
    F1 = 2 precision recall / (precision + recall)

The sentence score compares one vector a text, so that a text of the right subject scores high; this one asks for each
token. It is *BERTScore over MiniLM-L6*: the encoder is the packaged sentence encoder (its last layer) and not the
RoBERTa-large of the paper's tables, there is no idf weighting and no rescaling to a baseline, and the encoder's own
marks ([CLS], [SEP]) take no part. Figures can be compared with each other, not with those of the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.device import pick_device
from tokalign_lab.vectors.token_vectors import unit_rows

ENCODER_TOKENS = 512  # no encoder of ours reads further
# Marks that an encoder puts around a text; its unknown token stands for text and stays.
_MARKS = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Encoded:
    """What an encoder makes of one text.

    Parameters
    ----------
    sentence
        float32 (d,), of length 1.
    tokens
        float32 (n, d), rows of length 1, in the order of the text; marks such as [CLS] and [SEP] left out.
    """

    sentence: NDArray[np.float32]
    tokens: NDArray[np.float32]


class Encoder:
    """A sentence-transformers model, by catalogue name, folder or hub id.

    Raises
    ------
    InputError
        If there is no encoder of that name.
    """

    def __init__(self, name: str = "minilm") -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        from tokalign_lab import catalog

        logging.disable_progress_bar()  # the engine prints nothing by itself
        self._model: Any = SentenceTransformer(catalog.encoder_folder(name), device=str(pick_device()))
        held = (getattr(self._model.tokenizer, mark, None) for mark in _MARKS)
        self._marks = np.array([token_id for token_id in held if token_id is not None], np.int64)

    def read(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts, in order."""
        rows = self._model.encode(list(texts), batch_size=32, output_value=None, show_progress_bar=False)
        return [self._encoded(row) for row in rows]

    def _encoded(self, row: Any) -> Encoded:
        ids = row["input_ids"].cpu().numpy()
        kept = (row["attention_mask"].cpu().numpy() > 0) & ~np.isin(ids, self._marks)
        sentence = unit_rows(row["sentence_embedding"].cpu().numpy()[None])[0]
        return Encoded(sentence, unit_rows(row["token_embeddings"].cpu().numpy()[kept]))


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
