"""A sentence encoder for two scores: the cosine of two texts' embeddings, and BERTScore of their tokens.

The packaged encoder (catalogue `minilm`, all-MiniLM-L6-v2) was trained on English; scores in other languages mean
little. It reads the first 256 word pieces of a text.

BERTScore matches each token of the candidate x with the most similar token of the reference y, and vice versa; vectors
are contextual embeddings of length 1, so that a dot product is a cosine (Zhang et al. 2020, section 3):

    precision = mean over x of max over y of x . y        recall = mean over y of max over x of x . y
    F1 = 2 precision recall / (precision + recall)

Here it is *BERTScore over MiniLM-L6*: the encoder is the last layer of the packaged sentence encoder and not the
RoBERTa-large of the paper's tables, without idf weights or rescaling to a baseline, and special tokens ([CLS], [SEP])
are excluded. Scores can be compared with each other, not with those of the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError, plain_read_errors
from tokalign_lab.vectors.token_vectors import unit_rows

ENCODER_TOKENS = 512  # more than any supported encoder reads
_KEPT = 400  # references of both directions of a pair; at most 160 MB
# Special tokens around a text; the unknown token is part of the text and is kept.
_MARKS = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Encoded:
    """Embeddings of one text.

    Attributes
    ----------
    sentence : float32 (d,), length 1
    tokens : float32 (n, d), rows of length 1, in the order of the text, without special tokens
    """

    sentence: NDArray[np.float32]
    tokens: NDArray[np.float32]


class Encoder:
    """A sentence-transformers model, by catalogue name, folder or hub id; `load_encoder` keeps the last one.

    Raises `InputError` if there is no encoder of that name, it cannot be loaded, or it has no pad token.
    """

    def __init__(self, name: str = "minilm") -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        from tokalign_lab import catalog

        logging.disable_progress_bar()  # the engine itself prints nothing
        folder = catalog.encoder_folder(name)
        with plain_read_errors(lambda reason: f"The encoder {name!r} cannot be loaded: {reason}."):
            self._model: Any = SentenceTransformer(folder, device=str(pick_device()))
        if getattr(self._model.tokenizer, "pad_token", None) is None:
            raise InputError(f"The encoder {name!r} has no pad token, so it reads no batch of texts; use another one.")
        held = (getattr(self._model.tokenizer, mark, None) for mark in _MARKS)
        self._marks = np.array([token_id for token_id in held if token_id is not None], np.int64)
        self._references: dict[str, Encoded] = {}

    def read(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts; return their embeddings in the same order."""
        rows = self._model.encode(list(texts), batch_size=32, output_value=None, show_progress_bar=False)
        return [self._encoded(row) for row in rows]

    def read_references(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts and keep the last `_KEPT`: every lexicon of a pair is compared with the same references."""
        known = self._references  # replaced as a whole, because panels read in two threads
        found = {text: known[text] for text in texts if text in known}
        new = [text for text in dict.fromkeys(texts) if text not in found]
        found |= zip(new, self.read(new), strict=True)
        self._references = dict(list((known | found).items())[-_KEPT:])
        return [found[text] for text in texts]

    def _encoded(self, row: Any) -> Encoded:
        ids = row["input_ids"].cpu().numpy()
        kept = (row["attention_mask"].cpu().numpy() > 0) & ~np.isin(ids, self._marks)
        sentence = unit_rows(row["sentence_embedding"].cpu().numpy()[None])[0]
        return Encoded(sentence, unit_rows(row["token_embeddings"].cpu().numpy()[kept]))


@lru_cache(maxsize=1)
def load_encoder(name: str = "minilm") -> Encoder:
    """Load an encoder; the last one is kept. Raises as `Encoder`."""
    return Encoder(name)


def bert_score(candidate: NDArray[np.float32], reference: NDArray[np.float32]) -> tuple[float, float, float]:
    """Compute BERTScore of two texts' tokens.

    Returns precision, recall and their harmonic mean F1, each -1 to 1 (in practice 0 to 1); 0 if a text has no token.

    Parameters
    ----------
    candidate, reference : float32 (m, d) and (n, d), rows of length 1
    """
    if not len(candidate) or not len(reference):
        return 0.0, 0.0, 0.0
    cosines = (candidate @ reference.T).clip(-1, 1)  # float32 lengths are 1 only approximately
    precision = float(cosines.max(axis=1).mean(dtype=np.float64))
    recall = float(cosines.max(axis=0).mean(dtype=np.float64))
    total = precision + recall
    # Cosines may be negative; then there is no harmonic mean.
    f1 = 2 * precision * recall / total if min(precision, recall) > 0 else 0.0
    return precision, recall, f1
