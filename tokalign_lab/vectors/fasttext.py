"""FastText vectors (Bojanowski et al. 2017), by which FOCUS and WECHSEL compare tokens.

Unlike in `word2vec.py`, a word is the mean of its own vector and those of its character n-grams, so that " walking" and
" walked" are neighbours even if both are rare, and a word that is not in the text still has a vector.

FOCUS (Dobler and de Melo 2023) trains on the text as the *target* tokenizer cuts it; the tokenizer's own string of a
token is a word. WECHSEL (Minixhofer et al. 2022) trains on words and takes the vector of each token's text, mostly from
its n-grams; one training then serves both vocabularies in one space. Its package cuts words with a tokenizer for
English; here words are separated by white space. gensim trains both; see `word2vec.py` for sentences and workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, silent
from tokalign_lab.spelling import text_of
from tokalign_lab.vectors.store import remembered
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vectors.word2vec import Sentences, Word2VecSettings, gensim_settings, pieces, train_on, vectors_of

if TYPE_CHECKING:
    from gensim.models import FastText

    from tokalign_lab.corpus import Corpus
    from tokalign_lab.documents import Document
    from tokalign_lab.vocabulary import Vocabulary


@dataclass(frozen=True)
class FastTextSettings(Word2VecSettings):
    """Settings of one training; the defaults are FOCUS's (CBOW, 3 epochs, 10 negatives) except for two.

    `dimensions` is 300, as for every other method here; FOCUS's package uses 100. `buckets`: fastText hashes n-grams
    into 2,000,000 rows, which is 2.4 GB at 300 dimensions for any text; the n-grams of a vocabulary fit a quarter.
    """

    window: int = 5
    epochs: int = 3
    min_count: int = 10
    negative: int = 10
    learning_rate: float = 0.05
    sampling: float = 1e-4
    shortest: int = 3
    longest: int = 6
    buckets: int = 500_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.longest < self.shortest:
            raise InputError(f"FastText needs longest of at least {self.shortest}, but got {self.longest}.")


WECHSEL_SETTINGS = FastTextSettings(dimensions=100, epochs=20, min_count=5, shortest=5, longest=5)
"""WECHSEL's settings when there are no vectors to download."""


def fasttext_vectors(
    corpus: Corpus,
    vocabulary: Vocabulary,
    settings: FastTextSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
    cached: bool = True,
) -> TokenVectors:
    """Train FastText on a tokenised text with each token's own string as a word, as FOCUS does.

    `settings` are FOCUS's when None; other arguments are as in `glove.glove_vectors`. Raises InputError if no token
    occurs `min_count` times.
    """
    settings = settings or FastTextSettings()
    key = {"method": "fasttext", "seed": seed, **asdict(settings)}

    def train() -> TokenVectors:
        raw = [vocabulary.raw_token(i) for i in range(vocabulary.size)]
        model = _train(settings, seed, Sentences(corpus, np.array(raw, dtype=object)), progress)
        return vectors_of(model, raw, corpus, key)

    return remembered(corpus, key, train, cached)


def fasttext_word_vectors(
    documents: Sequence[Document],
    corpora: Sequence[Corpus],
    vocabularies: Sequence[Vocabulary],
    settings: FastTextSettings = WECHSEL_SETTINGS,
    seed: int = 0,
    progress: Progress = silent,
    cached: bool = True,
) -> list[TokenVectors]:
    """Train FastText once on the words of `documents`, and give each token of each vocabulary the vector of its text.

    Parameters
    ----------
    documents
        The text.
    corpora
        The same text as ids of each of `vocabularies`; counts and hash come from there.
    vocabularies
        Whose tokens get vectors, all in one space.
    settings
        WECHSEL's by default.
    seed, progress, cached
        As in `fasttext_vectors`.

    Returns
    -------
    list of TokenVectors
        One for each vocabulary. A token that is not in the text has a vector too, with a count of 0. There are no
        vectors for control tokens, parts of characters, white space, and text that is too short for an n-gram and not
        a word of the text: fastText has only zeros for them, and WECHSEL gives them random rows.

    Raises
    ------
    InputError
        If no word occurs `min_count` times.
    """
    key = {"method": "fasttext-words", "seed": seed, **asdict(settings)}
    trained: list[FastText] = []

    def look_up(corpus: Corpus, vocabulary: Vocabulary) -> TokenVectors:
        if not trained:
            trained.append(_train(settings, seed, _Words(documents), progress))
        known = trained[0].wv
        found: dict[int, Any] = {}
        for token_id, token in enumerate(vocabulary.token_bytes):
            word = text_of(token).strip()
            # An n-gram may begin with "<" and end with ">", which fastText puts around every word.
            if word and (word in known.key_to_index or len(word) + 2 >= settings.shortest):
                found[token_id] = known.get_vector(word)
        ids = np.array(list(found), dtype=np.int64)
        rows = np.array(list(found.values()), dtype=np.float32).reshape(len(ids), settings.dimensions)
        counts = corpus.counts(vocabulary.size)[ids]
        return TokenVectors(ids, rows, counts, vocabulary.fingerprint, {**key, "text_hash": corpus.text_hash})

    return [
        remembered(corpus, key, partial(look_up, corpus, vocabulary), cached)
        for corpus, vocabulary in zip(corpora, vocabularies, strict=True)
    ]


class _Words:
    """Documents as lists of the words that white space separates."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents

    def __iter__(self) -> Iterator[list[str]]:
        for document in self.documents:
            yield from pieces(document.text.split())


def _train(settings: FastTextSettings, seed: int, sentences: Any, progress: Progress) -> FastText:
    from gensim.models import FastText

    ngrams = {"min_n": settings.shortest, "max_n": settings.longest, "bucket": settings.buckets}
    model = FastText(sg=0, **ngrams, **gensim_settings(settings, seed))
    train_on(model, sentences, settings.min_count, progress)
    return model
