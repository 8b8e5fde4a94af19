"""Corpora of artificial ids, for the mechanics only: they cannot check quality."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from tokalign_lab.corpus import Corpus
from tokalign_lab.vectors.cooccurrence import count_contexts
from tokalign_lab.vectors.stream import Stream

KILOBYTE = ("All human beings are born free and equal in dignity and rights. " * 16).encode()


def corpus_of(documents: list[list[int]], fingerprint: str = "v", text_hash: str = "t") -> Corpus:
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in documents])]).astype(np.int64)
    ids = np.array([i for ids in documents for i in ids], dtype=np.int32)
    return Corpus(ids, offsets, np.diff(offsets), fingerprint, text_hash)


def byte_corpus(data: bytes = KILOBYTE) -> Corpus:
    return corpus_of([list(line) for line in data.split(b".")])


def random_corpus(n_documents: int = 40, size: int = 30, seed: int = 0) -> Corpus:
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, size + 1)
    lengths = random.integers(5, 200, n_documents)
    return corpus_of([random.choice(size, n, p=shares / shares.sum()).tolist() for n in lengths])


def cooccurrence(stream: Stream, window: int = 15, device: str | None = None) -> csr_array:
    """Return the co-occurrence counts of all tokens of a text, (n, n)."""
    n = len(stream.ids)
    return count_contexts(stream, np.arange(n, dtype=np.int32), n, window, device=device)
