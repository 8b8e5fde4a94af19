"""CBOW and skip-gram (Mikolov et al. 2013) on token ids: the other two rows of TokAlign's table 6.

`glove.py` fits the logarithm of counts. These methods read the text and learn to distinguish a true neighbour from k
drawn ones: maximise log s(c . w) + sum_k log s(-n_k . w), with s the logistic function, c the context and w the word.
CBOW takes the mean of the window as c and predicts the word; skip-gram takes the word and predicts each neighbour
separately, which is slower and better for rare tokens.

gensim trains. A token's id is its word, a document its sentence. gensim silently drops all of a sentence beyond 10,000
words, so a longer document is cut into pieces of that length, and windows end there too. There is one worker: several
race over the same rows, and the result would differ from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.store import check_at_least_one, remembered
from tokalign_lab.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

ALGORITHMS = ("cbow", "skip-gram")
_LONGEST_SENTENCE = 10_000  # gensim's MAX_SENTENCE_LEN


@dataclass(frozen=True)
class Word2VecSettings:
    """Settings of one training: window, dimensions and least count as the paper's GloVe, others as word2vec's."""

    dimensions: int = 300
    window: int = 15
    epochs: int = 5
    min_count: int = 5
    negative: int = 5
    learning_rate: float = 0.025
    sampling: float = 1e-3

    def __post_init__(self) -> None:
        method = type(self).__name__.removesuffix("Settings")
        check_at_least_one(method, self)
        if not (self.learning_rate > 0 and self.sampling >= 0):
            raise InputError(f"{method} needs a learning_rate above 0 and a sampling of at least 0.")


def word2vec_vectors(
    corpus: Corpus,
    vocabulary_size: int,
    algorithm: str = "cbow",
    settings: Word2VecSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
    cached: bool = True,
) -> TokenVectors:
    """Train CBOW or skip-gram ("cbow", "skip-gram") on a tokenised text, or load an earlier training from the cache.

    Arguments are as in `glove.glove_vectors`; the same seed gives the same bits. Raises InputError for another
    algorithm, or if no token occurs `min_count` times.
    """
    if algorithm not in ALGORITHMS:
        raise InputError(f"There is no algorithm '{algorithm}'; choose 'cbow' or 'skip-gram'.")
    settings = settings or Word2VecSettings()
    key = {"method": algorithm, "seed": seed, **asdict(settings)}

    def train() -> TokenVectors:
        from gensim.models import Word2Vec

        words = [str(i) for i in range(vocabulary_size)]
        model = Word2Vec(sg=int(algorithm == "skip-gram"), **gensim_settings(settings, seed))
        train_on(model, Sentences(corpus, np.array(words, dtype=object)), settings.min_count, progress)
        return vectors_of(model, words, corpus, key)

    return remembered(corpus, key, train, cached)


class Sentences:
    """A corpus as lists of words that can be read once an epoch; `words` has the word of each id, str (size,)."""

    def __init__(self, corpus: Corpus, words: NDArray[np.object_]) -> None:
        self.corpus = corpus
        self.words = words

    def __iter__(self) -> Iterator[list[str]]:
        for document in range(len(self.corpus)):
            yield from pieces(self.words[self.corpus[document]].tolist())


def pieces(words: list[str]) -> Iterator[list[str]]:
    """Cut a document into sentences that gensim does not truncate."""
    for start in range(0, len(words), _LONGEST_SENTENCE):
        yield words[start : start + _LONGEST_SENTENCE]


def gensim_settings(settings: Any, seed: int) -> dict[str, Any]:
    """Return the settings that both of gensim's models have, by gensim's names."""
    return {
        "vector_size": settings.dimensions, "window": settings.window, "min_count": settings.min_count,
        "negative": settings.negative, "alpha": settings.learning_rate, "sample": settings.sampling,
        "epochs": settings.epochs, "seed": seed, "workers": 1,
    }  # fmt: skip


def vectors_of(model: Any, words: Sequence[str], corpus: Corpus, key: dict[str, Any]) -> TokenVectors:
    """Return the vectors of a trained gensim model; `words` has the word of each token id."""
    id_of = {word: i for i, word in enumerate(words)}
    ids = np.array([id_of[word] for word in model.wv.index_to_key], dtype=np.int64)
    order = np.argsort(ids)
    counts = model.wv.expandos["count"][order]
    provenance = {**key, "text_hash": corpus.text_hash}
    return TokenVectors(ids[order], model.wv.vectors[order], counts, corpus.vocabulary_fingerprint, provenance)


def train_on(model: Any, sentences: Any, min_count: int, progress: Progress) -> None:
    """Train a gensim model over all its epochs. Raises InputError if no word occurs `min_count` times."""
    from gensim.models.callbacks import CallbackAny2Vec

    class Reporter(CallbackAny2Vec):  # type: ignore[misc]  # gensim has no types
        done = 0

        def on_epoch_end(self, model: Any) -> None:
            self.done += 1
            progress(self.done / model.epochs, f"epoch {self.done} of {model.epochs}")

    progress(0.0, "counting words")
    model.build_vocab(sentences)
    if not len(model.wv):  # gensim would raise a RuntimeError about its own vocabulary
        raise InputError(f"No token occurs {min_count} times in the text; give more text.")
    model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs, callbacks=[Reporter()])
