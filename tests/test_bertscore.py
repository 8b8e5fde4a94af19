"""BERTScore: known values, its definition, and sentences with an obvious ranking by similarity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny import tiny_model, tiny_tokenizer

from tokalign_lab import catalog
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.encoder import Encoder, bert_score
from tokalign_lab.vectors.token_vectors import unit_rows


def test_by_hand() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    score = bert_score(np.array([east, north], np.float32), np.array([east], np.float32))
    assert score == (0.5, 1.0, pytest.approx(2 / 3))  # "north" has nothing to match
    between = np.array([[np.sqrt(0.5), np.sqrt(0.5)]], np.float32)
    score = bert_score(between, np.array([east, north], np.float32))
    assert score[:2] == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))


def test_a_text_without_tokens_scores_nothing_and_opposites_have_no_mean() -> None:
    one, none = np.ones((1, 1), np.float32), np.zeros((0, 1), np.float32)
    for texts in ((one, none), (none, one), (none, none)):
        assert bert_score(*texts) == (0, 0, 0)
    assert bert_score(one, -one) == (-1, -1, 0)


def rows(number: int) -> st.SearchStrategy[np.ndarray]:
    values = st.floats(-1, 1, width=32)
    return arrays(np.float32, st.tuples(st.integers(1, number), st.just(3)), elements=values).map(unit_rows)


@given(rows(5), rows(4))
def test_scores_are_those_of_the_definition(candidate: np.ndarray, reference: np.ndarray) -> None:
    precision, recall, f1 = bert_score(candidate, reference)
    assert precision == pytest.approx(np.mean([max(float(x @ y) for y in reference) for x in candidate]), abs=1e-5)
    assert recall == pytest.approx(np.mean([max(float(x @ y) for x in candidate) for y in reference]), abs=1e-5)
    rounding = 1e-12  # of the harmonic mean
    assert -1 <= min(precision, recall) <= f1 + rounding or f1 == 0
    assert f1 - rounding <= max(precision, recall, 0) <= 1
    assert bert_score(reference, candidate)[:2] == (recall, precision)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder("minilm")


def test_special_tokens_are_left_out_and_one_pass_gives_both_embeddings(encoder: Encoder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["The quiet river runs to the sea.", "Rain.", "a ☃ b"]
    model = SentenceTransformer(catalog.encoder_folder("minilm"), device="cpu")
    plain = model.encode(texts, normalize_embeddings=True)
    for text, encoded, sentence in zip(texts, encoder.read(texts), plain, strict=True):
        pieces = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(encoded.tokens) == len(pieces)  # [CLS] and [SEP] are out, [UNK] is in
        assert np.allclose(encoded.sentence, sentence, atol=1e-5)
        assert np.allclose(np.linalg.norm(encoded.tokens, axis=1), 1, atol=1e-5)


def test_references_are_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Rain.", "Snow.", "Rain."]
    first = encoder.read_references(texts)
    monkeypatch.setattr(encoder._model, "encode", lambda texts, **_: [] if not texts else pytest.fail("encoded again"))
    assert [id(one) for one in encoder.read_references(texts[::-1])] == [id(one) for one in first[::-1]]
    assert first[0] is first[2]
    assert not np.array_equal(first[0].sentence, first[1].sentence)


def test_equal_texts_score_one_and_less_similar_texts_less(encoder: Encoder) -> None:
    texts = (
        "The committee approved the new budget on Friday.",
        "On Friday the new budget was approved by the committee.",
        "The committee refused the old budget on Monday.",
        "Penguins cannot fly but swim very well.",
    )
    reference, *others = encoder.read(texts)
    assert bert_score(reference.tokens, reference.tokens)[2] == pytest.approx(1, abs=1e-5)
    turned, changed, unrelated = (bert_score(other.tokens, reference.tokens)[2] for other in others)
    assert 1 > turned > changed > unrelated + 0.2


def test_half_a_text_has_high_precision_and_low_recall(encoder: Encoder) -> None:
    whole, half = encoder.read(["Open the door and feed the cat.", "Open the door."])
    precision, recall, _ = bert_score(half.tokens, whole.tokens)
    assert precision > recall + 0.1


def test_a_missing_encoder_is_named() -> None:
    with pytest.raises(InputError, match="no-such-encoder"):
        Encoder("no-such-encoder")


def test_a_folder_that_is_no_encoder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    tokenizer = tiny_tokenizer(300)
    tokenizer.pad_token = None
    tiny_model("llama", len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for name, reason in (("empty", "cannot be loaded: "), ("model", "has no pad token")):
        with pytest.raises(InputError, match=rf"The encoder .*{name}' {reason}"):
            Encoder(str(tmp_path / name))
