"""Bytes per token by language: how well a tokenizer compresses a text.

Measured on the Universal Declaration of Human Rights in the package, which has the same content in each language. Few
bytes per token mean long sequences; a language whose tokens are single bytes has 1. So does one that the tokenizer
cannot spell: each byte that no token spells counts as a token, because an unknown token for each word is no gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import numpy as np

from tokalign_lab.catalog.texts import udhr_documents
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.vocabulary import Vocabulary

LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "pt": "Portuguese", "ru": "Russian",
    "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "ar": "Arabic", "hi": "Hindi", "sw": "Swahili",
    "bn": "Bengali", "el": "Greek", "fa": "Persian", "ha": "Hausa", "he": "Hebrew", "id": "Indonesian",
    "it": "Italian", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "yo": "Yoruba",
}  # fmt: skip
"""Language codes of the text and their names; the first twelve are shown first."""


def bytes_per_token(vocabulary: Vocabulary) -> dict[str, float]:
    """Return bytes per token by language code, in the order of `LANGUAGES`.

    The tokenized text is cached by the tokenizer's fingerprint.
    """
    documents = {
        made["slice"]: Document(made["text"], made["name"], made["group"], made["slice"]) for made in udhr_documents()
    }
    sizes = tokens_by_slice(vocabulary, [documents[code] for code in LANGUAGES])
    return {code: sizes[code][0] / sizes[code][1] for code in LANGUAGES}


def tokens_by_slice(vocabulary: Vocabulary, documents: Sequence[Document]) -> dict[str, tuple[int, int]]:
    """Return UTF-8 bytes and tokens (and unspelled bytes) by slice of a text, in descending order of bytes."""
    corpus = Corpus.build(documents, vocabulary)
    names, lengths = np.array([document.slice for document in documents]), token_lengths(vocabulary)
    counts = {
        str(name): (
            int(corpus.byte_lengths[names == name].sum()),
            count_tokens(lengths, corpus, documents, names == name)[1],
        )
        for name in np.unique(names)
    }
    return dict(sorted(counts.items(), key=lambda item: -item[1][0]))


def count_tokens(
    lengths: np.ndarray[Any, np.dtype[np.int64]],
    corpus: Corpus,
    documents: Sequence[Document],
    here: np.ndarray[Any, np.dtype[np.bool_]],
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int, int]:
    """Count in documents `here`, bool (documents,), each token, all tokens with the unspelled bytes, and these.

    `lengths` are the `token_lengths`. Accents that a tokenizer joins to their letters (Unicode NFC) are spelled.
    """
    counts = np.bincount(corpus.ids[here[corpus.document_of]], minlength=len(lengths))
    joined = "".join(normalize("NFC", documents[place].text) for place in np.flatnonzero(here).tolist())
    n_bytes = min(int(corpus.byte_lengths[here].sum()), len(joined.encode("utf-8", "surrogatepass")))
    unspelled = max(n_bytes - int(counts @ lengths), 0)
    return counts, int(counts.sum()) + unspelled, unspelled


def token_lengths(vocabulary: Vocabulary) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the bytes of each token, int64 (vocab_size,), 0 for special tokens."""
    return np.array([len(token or b"") for token in vocabulary.token_bytes], np.int64)
