"""The cache of trained vectors.

Training GloVe on a text takes minutes and does not depend on the other vocabulary or on held-out shared tokens. So
`align`, its held-out check and the next session share one training. The name of the folder is a hash of everything that
the vectors depend on: the text, the tokenizer and the settings, but no path or date.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tokalign_lab.files import cache_folder, cached_folder, hash_of
from tokalign_lab.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

_VERSION = "1"  # raise it when a method's result changes for the same settings


def load_or_train(
    corpus: Corpus, settings: dict[str, Any], train: Callable[[], TokenVectors], cached: bool = True
) -> TokenVectors:
    """Load the vectors of this text and these settings from the cache, or train and cache them."""
    if not cached:
        return train()
    parts = [_VERSION, corpus.vocabulary_fingerprint, corpus.text_hash, json.dumps(settings, sort_keys=True)]
    folder = cache_folder() / "vectors" / hash_of(item.encode() for item in parts)[:32]
    kept = cached_folder(folder, lambda temporary: train().save(temporary / "vectors.npz"))
    return TokenVectors.load(kept / "vectors.npz")
