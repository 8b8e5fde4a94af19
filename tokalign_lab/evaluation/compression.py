"""How many bytes a token stands for, language by language: what a tokenizer costs before any model is asked.

Measured on the declaration of human rights that comes with the package, one text a language and the same content in
each, so that languages can be compared with one another. Few bytes a token mean long sequences: a language written
byte by byte has 1.
"""

from __future__ import annotations

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
"""Language codes of the packaged text and their names; the first twelve are those that are shown first."""


def bytes_per_token(vocabulary: Vocabulary) -> dict[str, float]:
    """Bytes a token by language code, in the order of `LANGUAGES`.

    The tokenised text is kept in the cache under the tokenizer's fingerprint, so the second time costs next to nothing.
    """
    documents = {
        made["slice"]: Document(made["text"], made["name"], made["group"], made["slice"]) for made in udhr_documents()
    }
    corpus = Corpus.build([documents[code] for code in LANGUAGES], vocabulary)
    tokens = corpus.offsets[1:] - corpus.offsets[:-1]
    rates = corpus.byte_lengths / tokens.clip(min=1)
    return dict(zip(LANGUAGES, rates.tolist(), strict=True))
