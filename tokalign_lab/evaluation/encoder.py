"""A sentence encoder read once for two scores: the embedding of a text, and those of its tokens in context.

The packaged encoder (catalogue `minilm`, all-MiniLM-L6-v2) was trained on English: on other languages its vectors
mean little, and scores made with it say little. It reads the first 256 word pieces of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        from tokalign_lab import catalog

        logging.disable_progress_bar()  # the engine prints nothing by itself
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = SentenceTransformer(catalog.encoder_folder(name), device=device)
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
