"""FastText through gensim: reproducible, complete and right on real text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from texts import corpus_of

from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.fasttext import (
    WECHSEL_SETTINGS,
    FastTextSettings,
    _Sentences,
    fasttext_vectors,
    fasttext_word_vectors,
)
from tokalign_lab.vectors.token_vectors import unit_rows

FEW_BUCKETS = FastTextSettings(dimensions=30, epochs=8, min_count=5, buckets=20_000)


def test_no_word_of_a_long_document_is_dropped() -> None:
    # gensim reads only 10,000 words of a sentence.
    words = [str(i) for i in range(25_000)]
    sentences = _Sentences(lambda: [words, ["one"]])
    for _ in range(2):  # it is read again at each epoch
        read = list(sentences)
        assert max(map(len, read)) == 10_000
        assert [word for sentence in read for word in sentence] == [*words, "one"]


def test_fasttext_knows_the_frequent_tokens_of_a_real_text(
    small_pair: TokenizedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, vocabulary = small_pair.target_corpus, small_pair.target
    reported: list[str] = []
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "first"))
    made = fasttext_vectors(corpus, vocabulary, FEW_BUCKETS, progress=lambda _, message: reported.append(message))
    assert reported[-1] == "epoch 8 of 8"
    counts = corpus.counts(vocabulary.size)
    assert made.ids.tolist() == np.flatnonzero(counts >= 5).tolist()
    assert made.counts.tolist() == counts[made.ids].tolist()
    # "word" and " word" share n-grams, so fastText makes them neighbours.
    words = [vocabulary.token_bytes[i] for i in made.ids]
    place = {word: i for i, word in enumerate(words)}
    pairs = np.array(
        [(i, place[b" " + word]) for i, word in enumerate(words) if len(word) > 4 and b" " + word in place]
    )
    unit = unit_rows(made.rows - made.rows.mean(axis=0))
    partners = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]])
    strangers = np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[np.roll(pairs[:, 1], 1)])
    assert len(pairs) > 50
    assert partners.mean() > strangers.mean() + 0.3
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "second"))
    again = fasttext_vectors(corpus, vocabulary, FEW_BUCKETS)
    assert again.rows.tobytes() == made.rows.tobytes()
    monkeypatch.setattr("tokalign_lab.vectors.fasttext._train", None)  # a third training would fail
    assert fasttext_vectors(corpus, vocabulary, FEW_BUCKETS).rows.tobytes() == made.rows.tobytes()


def test_a_text_without_frequent_tokens_is_refused(small_pair: TokenizedPair) -> None:
    with pytest.raises(InputError, match="No token occurs 10 times"):
        fasttext_vectors(corpus_of([[1, 2, 3]]), small_pair.target)


def test_fasttext_of_words_puts_both_vocabularies_into_one_space(small_pair: TokenizedPair) -> None:
    source, target = fasttext_word_vectors(
        small_pair.documents,
        [small_pair.source_corpus, small_pair.target_corpus],
        [small_pair.source, small_pair.target],
        FastTextSettings(dimensions=20, epochs=2, min_count=5, shortest=5, longest=5, buckets=20_000),
    )
    for word in (b" return", b"return", b" walking"):
        ids = [np.array([v.id_of_bytes(word)]) for v in (small_pair.source, small_pair.target)]
        assert source.rows_for(ids[0]).tolist() == target.rows_for(ids[1]).tolist()
    vocabulary = small_pair.target
    absent = np.setdiff1d(np.arange(vocabulary.size), target.ids)
    assert vocabulary.id_of_bytes(b" ") in absent
    assert set(np.flatnonzero(vocabulary.is_control)) <= set(absent)
    assert (target.counts == 0).any()  # a token that does not occur in the text also has a vector
    assert np.abs(target.rows).sum(axis=1).min() > 0


def test_wechsel_vectors_have_the_settings_of_wechsel() -> None:
    assert (WECHSEL_SETTINGS.dimensions, WECHSEL_SETTINGS.epochs, WECHSEL_SETTINGS.negative) == (100, 20, 10)
    assert (WECHSEL_SETTINGS.shortest, WECHSEL_SETTINGS.longest) == (5, 5)
