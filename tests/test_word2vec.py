"""CBOW, skip-gram and FastText through gensim: reproducible, complete and right on real text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from texts import byte_corpus, corpus_of, random_corpus

from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.fasttext import (
    WECHSEL_SETTINGS,
    FastTextSettings,
    fasttext_vectors,
    fasttext_word_vectors,
)
from tokalign_lab.vectors.token_vectors import unit_rows
from tokalign_lab.vectors.word2vec import Word2VecSettings, word2vec_vectors

SMALL = Word2VecSettings(dimensions=20, epochs=2)
FEW_BUCKETS = FastTextSettings(dimensions=30, epochs=8, min_count=5, buckets=20_000)


@pytest.mark.parametrize("algorithm", ["cbow", "skip-gram"])
def test_every_frequent_token_gets_a_vector_and_the_same_bits_for_a_seed(algorithm: str) -> None:
    corpus = random_corpus()
    made = word2vec_vectors(corpus, 30, algorithm, SMALL, seed=1, cached=False)
    counts = np.bincount(corpus.ids, minlength=30)
    assert made.ids.tolist() == np.flatnonzero(counts >= 5).tolist()
    assert made.counts.tolist() == counts[made.ids].tolist()
    assert made.dimensions == 20
    again, other = (word2vec_vectors(corpus, 30, algorithm, SMALL, seed=seed, cached=False) for seed in (1, 2))
    assert again.rows.tobytes() == made.rows.tobytes()
    assert other.rows.tobytes() != made.rows.tobytes()


def test_tokens_in_like_contexts_come_close() -> None:
    # 1 and 2 occur between 3 and 4; 5 and 6 between 7 and 8.
    random = np.random.default_rng(0)
    documents = []
    for _ in range(400):
        a, b = ([3, int(random.choice([1, 2])), 4], [7, int(random.choice([5, 6])), 8])
        documents += [a, b]
    for algorithm in ("cbow", "skip-gram"):
        settings = Word2VecSettings(dimensions=16, window=2, epochs=40, sampling=0.0)
        made = word2vec_vectors(corpus_of(documents), 9, algorithm, settings, cached=False)
        unit = made.normalized()
        similar = unit @ unit.T
        place = {token: i for i, token in enumerate(made.ids.tolist())}
        assert similar[place[1], place[2]] > 0.8 > similar[place[1], place[5]]


def test_the_end_of_a_long_document_is_read() -> None:
    # gensim reads 10,000 words of a sentence; 1 and 2 stand only behind that.
    corpus = corpus_of([[0] * 12_000 + [1, 2] * 2000])
    still = word2vec_vectors(corpus, 3, settings=SMALL, cached=False)
    cut = corpus_of([[0] * 12_000, [1, 2] * 2000])
    moved = word2vec_vectors(cut, 3, settings=SMALL, cached=False)
    unread = Word2VecSettings(dimensions=20, epochs=2, learning_rate=1e-12)
    start = word2vec_vectors(corpus, 3, settings=unread, cached=False)
    for made in (still, moved):
        assert np.abs(made.rows_for(np.array([1, 2])) - start.rows_for(np.array([1, 2]))).max() > 1e-3


def test_word2vec_is_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    told: list[str] = []
    first = word2vec_vectors(byte_corpus(), 256, settings=SMALL, progress=lambda _, message: told.append(message))
    assert told[-1] == "epoch 2 of 2"
    with monkeypatch.context() as patch:
        patch.setattr("tokalign_lab.vectors.word2vec.train_on", None)  # a second training would fail
        assert word2vec_vectors(byte_corpus(), 256, settings=SMALL).rows.tobytes() == first.rows.tobytes()
    word2vec_vectors(byte_corpus(), 256, "skip-gram", SMALL)
    assert len(list((tmp_path / "vectors").iterdir())) == 2


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InputError, match="No token occurs 5 times"):
        word2vec_vectors(corpus_of([[1, 2, 3]]), 4, cached=False)
    with pytest.raises(InputError, match="no algorithm 'glove'"):
        word2vec_vectors(byte_corpus(), 256, "glove")
    with pytest.raises(InputError, match="Word2Vec needs epochs of at least 1"):
        Word2VecSettings(epochs=0)
    with pytest.raises(InputError, match="FastText needs longest of at least 5"):
        FastTextSettings(shortest=5, longest=4)


# --- FastText


def test_fasttext_knows_the_frequent_tokens_of_a_real_text(small_pair: TokenizedPair) -> None:
    corpus, vocabulary = small_pair.target_corpus, small_pair.target
    made = fasttext_vectors(corpus, vocabulary, FEW_BUCKETS, cached=False)
    counts = corpus.counts(vocabulary.size)
    assert made.ids.tolist() == np.flatnonzero(counts >= 5).tolist()
    assert made.counts.tolist() == counts[made.ids].tolist()
    # What fastText is for: "word" and " word" share n-grams, so they are neighbours.
    words = [vocabulary.token_bytes[i] for i in made.ids]
    place = {word: i for i, word in enumerate(words)}
    pairs = np.array(
        [(i, place[b" " + word]) for i, word in enumerate(words) if len(word) > 4 and b" " + word in place]
    )
    unit = unit_rows(made.rows - made.rows.mean(axis=0))
    twins = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]])
    strangers = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[np.roll(pairs[:, 1], 1)])
    assert len(pairs) > 50
    assert twins.mean() > strangers.mean() + 0.3
    again = fasttext_vectors(corpus, vocabulary, FEW_BUCKETS, cached=False)
    assert again.rows.tobytes() == made.rows.tobytes()


def test_fasttext_of_words_puts_both_vocabularies_into_one_space(small_pair: TokenizedPair) -> None:
    source, target = fasttext_word_vectors(
        small_pair.documents,
        [small_pair.source_corpus, small_pair.target_corpus],
        [small_pair.source, small_pair.target],
        FastTextSettings(dimensions=20, epochs=2, min_count=5, shortest=5, longest=5, buckets=20_000),
        cached=False,
    )
    for word in (b" return", b"return", b" walking"):
        ids = [np.array([v.id_of_bytes(word)]) for v in (small_pair.source, small_pair.target)]
        assert source.rows_for(ids[0]).tolist() == target.rows_for(ids[1]).tolist()
    vocabulary = small_pair.target
    absent = np.setdiff1d(np.arange(vocabulary.size), target.ids)
    assert vocabulary.id_of_bytes(b" ") in absent
    assert set(np.flatnonzero(vocabulary.is_control)) <= set(absent)
    assert (target.counts == 0).any()  # a token that the text never shows has a vector too
    assert np.abs(target.rows).sum(axis=1).min() > 0


def test_wechsels_settings_are_its_own() -> None:
    assert (WECHSEL_SETTINGS.dimensions, WECHSEL_SETTINGS.epochs, WECHSEL_SETTINGS.negative) == (100, 20, 10)
    assert (WECHSEL_SETTINGS.shortest, WECHSEL_SETTINGS.longest) == (5, 5)
