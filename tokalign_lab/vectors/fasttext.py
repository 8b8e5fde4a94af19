"""FastText vectors (Bojanowski et al. 2017), by which FOCUS and WECHSEL compare tokens.

The vector of a word is the mean of its own vector and those of its character n-grams. So " walking" and " walked" are
neighbours even if both are rare, and a word that is not in the text still has a vector.

FOCUS (Dobler and de Melo 2023) trains on the tokens of the *target* tokenizer; the raw string of a token is a word.
WECHSEL (Minixhofer et al. 2022) trains on words; the vector of a token is that of its text, mostly from n-grams, so one
training serves both vocabularies in one space. Its package splits words with a tokenizer for English; here words are
separated by white space.

gensim trains both. It silently drops the words of a sentence beyond 10,000, so longer documents are split into pieces
of that length, where windows end too. gensim gets one worker: several would race over the same rows, and the result
would differ from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, silent
from tokalign_lab.spelling import text_of
from tokalign_lab.vectors.token_vectors import TokenVectors, load_or_train

if TYPE_CHECKING:
    from gensim.models import FastText

    from tokalign_lab.corpus import Corpus
    from tokalign_lab.documents import Document
    from tokalign_lab.vocabulary import Vocabulary

_LONGEST_SENTENCE = 10_000  # gensim's MAX_SENTENCE_LEN


@dataclass(frozen=True)
class FastTextSettings:
    """Settings of one training; the defaults are FOCUS's (CBOW, 3 epochs, 10 negatives) except for two.

    `dimensions` is 300, as for every other method here; FOCUS's package uses 100. `buckets` is the number of rows that
    n-grams are hashed into. fastText's 2,000,000 rows take 2.4 GB at 300 dimensions; the n-grams of a vocabulary fit a
    quarter of them.
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


WECHSEL_SETTINGS = FastTextSettings(dimensions=100, epochs=20, min_count=5, shortest=5, longest=5)
"""WECHSEL's settings for training vectors on a text."""


def fasttext_vectors(
    corpus: Corpus,
    vocabulary: Vocabulary,
    settings: FastTextSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> TokenVectors:
    """Train FastText on a tokenised text with each token's raw string as a word, as FOCUS does; cached.

    `settings` are FOCUS's if None; other arguments are as in `glove.glove_vectors`. Raises InputError if no token
    occurs `min_count` times.
    """
    settings = settings or FastTextSettings()
    key = {"method": "fasttext", "seed": seed, **asdict(settings)}

    def train() -> TokenVectors:
        words = np.array([vocabulary.raw_token(i) for i in range(vocabulary.size)], dtype=object)
        sentences = _Sentences(lambda: (words[corpus[document]].tolist() for document in range(len(corpus))))
        known = _train(settings, seed, sentences, progress).wv
        id_of = {word: i for i, word in enumerate(words)}
        ids = np.array([id_of[word] for word in known.index_to_key], dtype=np.int64)
        order = np.argsort(ids)
        counts, provenance = known.expandos["count"][order], {**key, "text_hash": corpus.text_hash}
        return TokenVectors(ids[order], known.vectors[order], counts, vocabulary.fingerprint, provenance)

    return load_or_train(corpus, key, train)


def fasttext_word_vectors(
    documents: Sequence[Document],
    corpora: Sequence[Corpus],
    vocabularies: Sequence[Vocabulary],
    settings: FastTextSettings = WECHSEL_SETTINGS,
    seed: int = 0,
    progress: Progress = silent,
) -> list[TokenVectors]:
    """Train FastText once on the words of `documents`; each token of each vocabulary gets the vector of its text.

    A token that is not in the text also has a vector, with a count of 0. There are no vectors for control tokens, parts
    of characters, white space, and text that is no word of the documents and too short for an n-gram: fastText has only
    zeros for them, and WECHSEL gives them random rows. Raises `InputError` if no word occurs `min_count` times.

    Parameters
    ----------
    documents : the text
    corpora : the same text as ids of each of `vocabularies`, for counts and text hash
    vocabularies : the vocabularies whose tokens get vectors, all in one space
    settings : WECHSEL's by default
    seed, progress : as in `fasttext_vectors`
    """
    key = {"method": "fasttext-words", "seed": seed, **asdict(settings)}
    trained: list[FastText] = []
    sentences = _Sentences(lambda: (document.text.split() for document in documents))

    def look_up(corpus: Corpus, vocabulary: Vocabulary) -> TokenVectors:
        if not trained:
            trained.append(_train(settings, seed, sentences, progress))
        known = trained[0].wv
        found: dict[int, Any] = {}
        for token_id, token in enumerate(vocabulary.token_bytes):
            word = text_of(token).strip()
            # An n-gram may include the "<" and ">" that fastText puts around every word.
            if word and (word in known.key_to_index or len(word) + 2 >= settings.shortest):
                found[token_id] = known.get_vector(word)
        ids = np.array(list(found), dtype=np.int64)
        rows = np.array(list(found.values()), dtype=np.float32).reshape(len(ids), settings.dimensions)
        counts = corpus.counts(vocabulary.size)[ids]
        return TokenVectors(ids, rows, counts, vocabulary.fingerprint, {**key, "text_hash": corpus.text_hash})

    return [
        load_or_train(corpus, key, partial(look_up, corpus, vocabulary))
        for corpus, vocabulary in zip(corpora, vocabularies, strict=True)
    ]


class _Sentences:
    """Documents as sentences that gensim does not truncate; it iterates once to count words, and once per epoch."""

    def __init__(self, documents: Callable[[], Iterable[list[str]]]) -> None:
        self._documents = documents

    def __iter__(self) -> Iterator[list[str]]:
        for words in self._documents():
            for start in range(0, len(words), _LONGEST_SENTENCE):
                yield words[start : start + _LONGEST_SENTENCE]


def _train(settings: FastTextSettings, seed: int, sentences: _Sentences, progress: Progress) -> FastText:
    """Train over all epochs. Raises InputError if no word occurs `min_count` times."""
    from gensim.models import FastText
    from gensim.models.callbacks import CallbackAny2Vec

    class Reporter(CallbackAny2Vec):  # type: ignore[misc]  # gensim has no types
        done = 0

        def on_epoch_end(self, model: Any) -> None:
            self.done += 1
            progress(self.done / model.epochs, f"epoch {self.done} of {model.epochs}")

    model = FastText(
        sg=0, vector_size=settings.dimensions, window=settings.window, min_count=settings.min_count,
        negative=settings.negative, alpha=settings.learning_rate, sample=settings.sampling, epochs=settings.epochs,
        min_n=settings.shortest, max_n=settings.longest, bucket=settings.buckets, seed=seed, workers=1,
    )  # fmt: skip
    progress(0.0, "counting words")
    model.build_vocab(sentences)
    if not len(model.wv):  # gensim would raise a RuntimeError about its internal vocabulary
        raise InputError(f"No token occurs {settings.min_count} times in the text; give more text.")
    model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs, callbacks=[Reporter()])
    return model
