"""Bytes per token by language: how well a tokenizer compresses a text.

Measured on the Universal Declaration of Human Rights in the package, which has the same content in each language. Few
bytes per token mean long sequences; a language whose tokens are single bytes has 1.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    corpus = Corpus.build([documents[code] for code in LANGUAGES], vocabulary)
    tokens = corpus.offsets[1:] - corpus.offsets[:-1]
    rates = corpus.byte_lengths / tokens.clip(min=1)
    return dict(zip(LANGUAGES, rates.tolist(), strict=True))


def tokens_by_slice(vocabulary: Vocabulary, documents: Sequence[Document]) -> dict[str, tuple[int, int]]:
    """Return UTF-8 bytes and tokens by slice of a text, in descending order of bytes."""
    corpus = Corpus.build(documents, vocabulary)
    tokens, names = np.diff(corpus.offsets), np.array([document.slice for document in documents])
    counts = {
        str(name): (int(corpus.byte_lengths[names == name].sum()), int(tokens[names == name].sum()))
        for name in np.unique(names)
    }
    return dict(sorted(counts.items(), key=lambda item: -item[1][0]))
