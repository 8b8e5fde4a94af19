"""GloVe and anchored vectors: finite, reproducible and correct."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, random_array
from texts import KILOBYTE, byte_corpus, cooccurrence, corpus_of, random_corpus
from threadpoolctl import threadpool_limits

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.progress import silent
from tokalign_lab.vectors import torch_backend
from tokalign_lab.vectors.anchored import (
    AnchoredSettings,
    anchored_vectors,
    choose_anchors,
    factorise,
    positive_pmi,
)
from tokalign_lab.vectors.glove import GloveSettings, glove_vectors, train_glove
from tokalign_lab.vectors.stream import make_stream

# --- GloVe


def test_one_step_of_glove_is_adagrad_on_the_papers_loss() -> None:
    one_pair = csr_array(np.array([[0, 2.5], [0, 0]], np.float32))
    settings = GloveSettings(dimensions=3, iterations=1, min_count=1)
    rows, losses = train_glove(one_pair, settings, seed=3)
    # The same by hand: initial values as in train_glove, one step of AdaGrad with sums of squares that begin at 1.
    random = np.random.default_rng(3)
    random.permutation(1)
    words = (random.random((2, 4), dtype=np.float32) - 0.5) / 4
    contexts = (random.random((2, 4), dtype=np.float32) - 0.5) / 4
    error = words[0, :3] @ contexts[1, :3] + words[0, 3] + contexts[1, 3] - np.log(2.5)
    weighted = (2.5 / settings.x_max) ** settings.alpha * error
    new_word = words[0, :3] - 0.05 * weighted * contexts[1, :3]
    new_context = contexts[1, :3] - 0.05 * weighted * words[0, :3]
    np.testing.assert_allclose(rows[0], new_word + contexts[0, :3], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows[1], new_context + words[1, :3], rtol=1e-5, atol=1e-7)
    assert losses == [pytest.approx(0.5 * weighted * error, rel=1e-5)]


def test_glove_gives_identical_vectors_for_a_seed_and_any_number_of_threads() -> None:
    corpus = random_corpus(200, 600)  # several blocks, so that threads work in parallel
    settings = GloveSettings(dimensions=20, iterations=3)
    before = numba.get_num_threads()
    try:
        results = []
        for n in (1, before, before):
            numba.set_num_threads(n)
            results.append(glove_vectors(corpus, 600, settings, seed=1, cached=False).rows.tobytes())
    finally:
        numba.set_num_threads(before)
    assert len(set(results)) == 1
    assert glove_vectors(corpus, 600, settings, seed=2, cached=False).rows.tobytes() != results[0]


def test_glove_loss_falls_and_every_pair_is_visited() -> None:
    corpus = random_corpus(200, 600)
    made = glove_vectors(corpus, 600, GloveSettings(dimensions=20, iterations=15), cached=False)
    losses = made.provenance["loss"]
    assert all(later < earlier for earlier, later in pairwise(losses))
    # With a tiny learning rate, the mean loss is that of the initial values over all pairs.
    stream = make_stream(corpus.ids, corpus.offsets, 600, 5)
    counts = cooccurrence(stream)
    still = train_glove(counts, GloveSettings(dimensions=20, iterations=1, learning_rate=1e-9))[1][0]
    values = counts.data.astype(np.float64)
    expected = (0.5 * np.minimum(1, (values / 10) ** 0.75) * np.log(values) ** 2).mean()
    assert still == pytest.approx(expected, rel=0.05)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Use one thread, because distributing small kernels to threads takes longer than running them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_torch_thread")
def test_glove_in_torch_reaches_the_same_loss_as_on_the_cpu() -> None:
    corpus = random_corpus(100, 200)
    counts = cooccurrence(make_stream(corpus.ids, corpus.offsets, 200, 5), device="cpu")
    settings = GloveSettings(dimensions=20, iterations=6)
    _, expected = train_glove(counts, settings)
    rows, losses = torch_backend.train_glove(counts, settings, 0, silent, "cpu")
    assert np.isfinite(rows).all()
    assert losses == pytest.approx(expected, rel=0.04)
    again, _ = torch_backend.train_glove(counts, settings, 0, silent, "cpu")
    assert again.tobytes() == rows.tobytes()
    assert torch_backend.train_glove(counts, settings, 1, silent, "cpu")[0].tobytes() != rows.tobytes()


@pytest.mark.parametrize("data", [KILOBYTE, b"ab" * 500], ids=["1kB", "two tokens"])
@pytest.mark.usefixtures("one_torch_thread")
def test_glove_in_torch_is_finite_where_every_pair_of_a_batch_shares_a_token(data: bytes) -> None:
    corpus = byte_corpus(data)
    counts = cooccurrence(make_stream(corpus.ids, corpus.offsets, 256, 5), device="cpu")
    rows, losses = torch_backend.train_glove(counts, GloveSettings(dimensions=20, iterations=30), 0, silent, "cpu")
    assert np.isfinite(rows).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("data", [KILOBYTE, b"a" * 1000, b"ab" * 20, b"aaaaa"], ids=["1kB", "one token", "two", "five"])
def test_glove_is_finite_on_little_text(data: bytes) -> None:
    made = glove_vectors(byte_corpus(data), 256, cached=False)
    assert np.isfinite(made.rows).all()
    assert made.dimensions == 300
    assert np.isfinite(made.provenance["loss"]).all()
    assert (made.counts >= 5).all()


def test_text_without_a_frequent_token_is_refused() -> None:
    with pytest.raises(InputError, match="No token occurs 5 times"):
        glove_vectors(byte_corpus(b"abc"), 256, cached=False)


def test_a_training_with_other_settings_starts_from_the_same_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    first = glove_vectors(byte_corpus(), 256, GloveSettings(dimensions=5, iterations=1))
    monkeypatch.setattr("tokalign_lab.vectors.text_counts.keep_frequent", None)  # counting again would fail
    other = glove_vectors(byte_corpus(), 256, GloveSettings(dimensions=6, iterations=1))
    assert (first.dimensions, other.dimensions) == (5, 6)
    assert first.ids.tolist() == other.ids.tolist()
    assert first.counts.tolist() == other.counts.tolist()


def test_a_missing_gpu_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="no CUDA device"):
        glove_vectors(byte_corpus(), 256, cached=False, device="cuda")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mps", "'mps' is not a device that can be used here; use cpu or cuda"),
        ("zz", "'zz' is not a device that can be used here; use cpu or cuda"),
        ("cuda:3", "cuda:3 was requested, but the number of CUDA devices here is 2"),
    ],
)
def test_a_device_that_cannot_be_used_ends_in_one_sentence(
    name, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match=sentence):
        pick_device(name)


def test_trained_vectors_are_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    settings = GloveSettings(dimensions=5, iterations=1)
    first = glove_vectors(byte_corpus(), 256, settings)
    (file,) = (tmp_path / "vectors").glob("*/vectors.npz")
    monkeypatch.setattr("tokalign_lab.vectors.glove.train_glove", None)  # a second training would fail
    again = glove_vectors(byte_corpus(), 256, settings)
    assert again.rows.tobytes() == first.rows.tobytes()
    monkeypatch.undo()
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    file.write_bytes(b"cut off")
    assert glove_vectors(byte_corpus(), 256, settings).rows.tobytes() == first.rows.tobytes()
    glove_vectors(byte_corpus(), 256, settings, seed=1)
    glove_vectors(corpus_of([[1] * 9], text_hash="another"), 256, settings)
    assert len(list((tmp_path / "vectors").iterdir())) == 3


# --- anchored vectors


def all_shared(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n, dtype=np.int64), np.arange(n, dtype=np.int64)


def test_pmi_is_the_formula() -> None:
    dense = np.array([[4.0, 1.0, 0.0], [1.0, 8.0, 2.0]])
    pmi = positive_pmi(csr_array(dense.astype(np.float32)), smoothing=0.75)
    context = dense.sum(0) ** 0.75 / (dense.sum(0) ** 0.75).sum()
    joint, token = dense / dense.sum(), dense.sum(1) / dense.sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(0, np.log(joint / (token[:, None] * context)))
    np.testing.assert_allclose(pmi.toarray(), expected, rtol=1e-5)
    assert (pmi.data > 0).all()


def test_factorisation_is_the_svd() -> None:
    random = np.random.default_rng(0)
    dense = random.random((60, 20)) @ np.diag(0.6 ** np.arange(20)) @ random.random((20, 40))
    dense[dense < np.median(dense)] = 0
    made = factorise(csr_array(dense.astype(np.float32)), dimensions=5, power=1.0, passes=6)
    u, s, _ = np.linalg.svd(dense, full_matrices=False)
    np.testing.assert_allclose(np.abs(made), np.abs(u[:, :5] * s[:5]), atol=2e-3)


def test_anchored_vectors_of_one_text_with_itself_are_equal() -> None:
    corpus = random_corpus(200, 100)
    one, other = anchored_vectors(corpus, corpus, all_shared(100), (100, 100))
    assert one.ids.tolist() == other.ids.tolist()
    np.testing.assert_allclose(one.normalized(), other.normalized(), atol=1e-4)


def test_anchored_vectors_give_the_same_bits_for_a_seed() -> None:
    corpus = random_corpus(200, 100)
    runs = [anchored_vectors(corpus, corpus, all_shared(100), (100, 100), seed=4)[0].rows.tobytes() for _ in "ab"]
    assert runs[0] == runs[1]


def test_a_factorisation_does_not_depend_on_threads() -> None:
    matrix = random_array((20_000, 300), density=0.05, format="csr", dtype=np.float32, rng=0)
    made = []
    before = numba.get_num_threads()
    for n in {1, before}:
        numba.set_num_threads(n)
        with threadpool_limits(n, user_api="blas"):
            made.append(factorise(matrix, 40, passes=1).tobytes())
    numba.set_num_threads(before)
    assert len(set(made)) == 1


def test_only_given_shared_tokens_become_anchors() -> None:
    corpus = random_corpus(200, 100)
    stream = make_stream(corpus.ids, corpus.offsets, 100, 5)
    shared = (np.arange(0, 100, 2), np.arange(0, 100, 2))  # odd tokens are held out
    anchors = choose_anchors([stream, stream], shared, 20)
    assert set(anchors[0]) <= set(range(0, 100, 2))
    assert len(anchors[0]) == 20
    counts = np.bincount(corpus.ids, minlength=100)
    left_out = set(shared[0]) - set(anchors[0])
    assert counts[anchors[0]].min() >= counts[list(left_out)].max()


def test_a_source_token_is_an_anchor_only_once() -> None:
    corpus = random_corpus(200, 100)
    stream = make_stream(corpus.ids, corpus.offsets, 100, 5)
    anchors = choose_anchors([stream, stream], (np.array([3, 3, 4]), np.array([3, 5, 4])), 20)
    assert sorted(anchors[0].tolist()) == [3, 4]


def test_anchored_vectors_are_finite_on_a_kilobyte() -> None:
    one, other = anchored_vectors(byte_corpus(), byte_corpus(), all_shared(256), (256, 256))
    assert np.isfinite(one.rows).all()
    assert len(one) == len(other) > 5


def test_no_shared_token_is_an_error_with_advice() -> None:
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(InputError, match=r"share no token.*'pieces'"):
        anchored_vectors(byte_corpus(), byte_corpus(), none, (256, 256))


def test_a_token_that_never_occurs_near_an_anchor_has_no_vector() -> None:
    corpus = random_corpus(60, 100)
    few = (np.array([40, 41]), np.array([40, 41]))
    one, _ = anchored_vectors(corpus, corpus, few, (100, 100), AnchoredSettings(window=1))
    assert one.provenance["without_anchors"] > 0
    assert 0 < len(one) < 100
    assert (np.abs(one.rows).sum(axis=1) > 0).all()
