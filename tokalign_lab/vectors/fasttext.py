"""FastText vectors (Bojanowski et al. 2017), which FOCUS and WECHSEL compare tokens by.

Against `word2vec.py`, a word is the mean of its own vector and those of its character n-grams, so that " walking" and
" walked" are neighbours even where both are rare, and a word that the text never showed still has a vector.

FOCUS (Dobler and de Melo 2023) trains on the text as the *target* tokenizer cuts it: a token, written as the
tokenizer writes it, is a word. WECHSEL (Minixhofer et al. 2022) trains on words and asks for the
vector of each token's text, mostly through its n-grams; one training then serves both vocabularies in one space. Its
package cuts words with a tokenizer for English; here they stand between white space.
gensim trains both; see `word2vec.py` for its sentences and why it gets one worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress
from tokalign_lab.spelling import text_of
from tokalign_lab.vectors.store import check_at_least_one, remembered
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vectors.word2vec import (
    Sentences,
    gensim_settings,
    pieces,
    train_on,
    vectors_of,
)

if TYPE_CHECKING:
    from gensim.models import FastText

    from tokalign_lab.corpus import Corpus
    from tokalign_lab.documents import Document
    from tokalign_lab.vocabulary import Vocabulary


@dataclass(frozen=True)
class FastTextSettings:
    """Settings of one training; the defaults are FOCUS's (CBOW, 3 epochs, 10 negatives) but for two.

    `dimensions` is 300, as every other method's here; FOCUS's package takes 100. `buckets`: fastText hashes n-grams
    into 2,000,000 rows, which is 2.4 GB at 300 dimensions whatever the text; the n-grams of a vocabulary fit a quarter.
    """

    dimensions: int = 300
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
        names = ("dimensions", "window", "epochs", "min_count", "negative", "shortest", "buckets")
        check_at_least_one("FastText", self, *names)
        if self.longest < self.shortest:
            raise InputError(f"FastText needs longest of at least {self.shortest}, but got {self.longest}.")
        if not (self.learning_rate > 0 and self.sampling >= 0):
            raise InputError("FastText needs a learning_rate above 0 and a sampling of at least 0.")


WECHSEL_SETTINGS = FastTextSettings(dimensions=100, epochs=20, min_count=5, shortest=5, longest=5)
"""As WECHSEL trains where there are no vectors to download: 100 dimensions, 20 epochs, n-grams of 5 characters."""


def fasttext_vectors(
    corpus: Corpus,
    vocabulary: Vocabulary,
    settings: FastTextSettings | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    cached: bool = True,
) -> TokenVectors:
    """Train FastText on a tokenised text, each token a word, as FOCUS does.

    Parameters
    ----------
    corpus
        The text as ids of `vocabulary`.
    vocabulary
        Whose strings (`Vocabulary.raw_token`) are the words.
    settings
        FOCUS's when None.
    seed, progress, cached
        As in `word2vec.word2vec_vectors`.

    Raises
    ------
    InputError
        If no token occurs `min_count` times.
    """
    settings = settings or FastTextSettings()
    key = {"method": "fasttext", "seed": seed, **asdict(settings)}

    def train() -> TokenVectors:
        raw = [vocabulary.raw_token(i) for i in range(vocabulary.size)]
        model = _train(settings, seed, Sentences(corpus, np.array(raw, dtype=object)), progress)
        return vectors_of(model, raw, corpus, key)

    return remembered(corpus, key, train) if cached else train()


def fasttext_word_vectors(
    documents: Sequence[Document],
    corpora: Sequence[Corpus],
    vocabularies: Sequence[Vocabulary],
    settings: FastTextSettings = WECHSEL_SETTINGS,
    seed: int = 0,
    progress: Progress | None = None,
    cached: bool = True,
) -> list[TokenVectors]:
    """Train FastText on words between white space once, and give each token of each vocabulary the vector of its text.

    Parameters
    ----------
    documents
        The text.
    corpora
        The same text as ids of each of `vocabularies`; counts and hash come from there.
    vocabularies
        Whose tokens get vectors, all in one space.
    settings
        WECHSEL's own by default.
    seed, progress, cached
        As in `fasttext_vectors`.

    Returns
    -------
    list of TokenVectors
        One for each vocabulary. A token that the text never shows has a vector too, with a count of 0. Left out are
        control tokens, parts of characters, white space, and text that is too short for an n-gram and no word of
        the text: fastText has nothing but zeros for them, and WECHSEL gives them random rows.

    Raises
    ------
    InputError
        If no word occurs `min_count` times.
    """
    key = {"method": "fasttext-words", "seed": seed, **asdict(settings)}
    trained: list[FastText] = []

    def read_off(corpus: Corpus, vocabulary: Vocabulary) -> TokenVectors:
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

    made = []
    for corpus, vocabulary in zip(corpora, vocabularies, strict=True):

        def make(corpus: Corpus = corpus, vocabulary: Vocabulary = vocabulary) -> TokenVectors:
            return read_off(corpus, vocabulary)

        made.append(remembered(corpus, key, make) if cached else make())
    return made


class _Words:
    """Documents as lists of the words between white space."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents

    def __iter__(self) -> Iterator[list[str]]:
        for document in self.documents:
            yield from pieces(document.text.split())


def _train(settings: FastTextSettings, seed: int, sentences: Any, progress: Progress | None) -> FastText:
    from gensim.models import FastText

    ngrams = {"min_n": settings.shortest, "max_n": settings.longest, "bucket": settings.buckets}
    model = FastText(sg=0, **ngrams, **gensim_settings(settings, seed))
    train_on(model, sentences, settings.min_count, progress)
    return model
