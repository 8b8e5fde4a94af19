"""Token vectors: counts as brute force has them, GloVe and anchored vectors finite, reproducible and right."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokalign_lab.corpus import Corpus
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.anchored import (
    AnchoredSettings,
    anchored_vectors,
    choose_anchors,
    factorise,
    positive_pmi,
)
from tokalign_lab.vectors.cooccurrence import Counts, cooccurrence, count_contexts, make_stream
from tokalign_lab.vectors.glove import GloveSettings, glove_vectors, train_glove
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows

KILOBYTE = ("All human beings are born free and equal in dignity and rights. " * 16).encode()


def corpus_of(documents: list[list[int]], fingerprint: str = "v", text_hash: str = "t") -> Corpus:
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in documents])]).astype(np.int64)
    ids = np.array([i for ids in documents for i in ids], dtype=np.int32)
    return Corpus(ids, offsets, np.diff(offsets), fingerprint, text_hash)


def byte_corpus(data: bytes = KILOBYTE) -> Corpus:
    return corpus_of([list(line) for line in data.split(b".")])


def random_corpus(n_documents: int = 40, size: int = 30, seed: int = 0) -> Corpus:
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, size + 1)
    lengths = random.integers(5, 200, n_documents)
    return corpus_of([random.choice(size, n, p=shares / shares.sum()).tolist() for n in lengths])


def brute_force(documents: list[list[int]], min_count: int, window: int) -> dict[tuple[int, int], float]:
    """Stanford's rule in plain Python: rare tokens go before places are counted; 1 / distance to either side."""
    counts: dict[int, int] = defaultdict(int)
    for ids in documents:
        for i in ids:
            counts[i] += 1
    found: dict[tuple[int, int], float] = defaultdict(float)
    for ids in documents:
        kept = [i for i in ids if counts[i] >= min_count]
        for here, token in enumerate(kept):
            for there in range(max(0, here - window), here):
                found[token, kept[there]] += 1 / (here - there)
                found[kept[there], token] += 1 / (here - there)
    return found


def as_dict(counts: Counts, ids: np.ndarray) -> dict[tuple[int, int], float]:
    rows = np.repeat(np.arange(len(ids)), np.diff(counts.starts))
    return {(int(ids[r]), int(ids[c])): float(v) for r, c, v in zip(rows, counts.columns, counts.values, strict=True)}


documents_of_ids = st.lists(st.lists(st.integers(0, 7), max_size=30), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(documents_of_ids, st.integers(1, 4), st.integers(1, 16))
def test_cooccurrence_is_what_brute_force_counts(documents: list[list[int]], min_count: int, window: int) -> None:
    corpus = corpus_of(documents)
    stream = make_stream(corpus.ids, corpus.offsets, 8, min_count)
    found = as_dict(cooccurrence(stream, window), stream.ids)
    wanted = brute_force(documents, min_count, window)
    assert found.keys() == wanted.keys()
    for pair, value in wanted.items():
        assert found[pair] == pytest.approx(value, rel=1e-6)


def test_windows_end_where_documents_end() -> None:
    corpus = corpus_of([[1, 2], [3, 4]])
    stream = make_stream(corpus.ids, corpus.offsets, 5, 1)
    assert as_dict(cooccurrence(stream), stream.ids).keys() == {(1, 2), (2, 1), (3, 4), (4, 3)}


def test_rare_tokens_take_no_place() -> None:
    corpus = corpus_of([[1, 9, 2], [1, 2]])  # 9 occurs once: 1 and 2 are neighbours both times
    stream = make_stream(corpus.ids, corpus.offsets, 10, 2)
    assert as_dict(cooccurrence(stream), stream.ids) == {(1, 2): 2.0, (2, 1): 2.0}


def test_left_and_right_neighbours_can_be_kept_apart() -> None:
    corpus = corpus_of([[0, 1, 2]])
    stream = make_stream(corpus.ids, corpus.offsets, 3, 1)
    apart = count_contexts(stream, np.arange(3, dtype=np.int32), 6, window=1, right_offset=3)
    middle = slice(apart.starts[1], apart.starts[2])
    assert apart.columns[middle].tolist() == [0, 5]  # 0 on the left, 2 on the right


def test_counts_do_not_depend_on_threads() -> None:
    corpus = random_corpus()
    stream = make_stream(corpus.ids, corpus.offsets, 30, 5)
    before = numba.get_num_threads()
    results = []
    for n in {1, before}:
        numba.set_num_threads(n)
        results.append(cooccurrence(stream))
    numba.set_num_threads(before)
    for one in results[1:]:
        assert one.columns.tobytes() == results[0].columns.tobytes()
        assert one.values.tobytes() == results[0].values.tobytes()


# --- TokenVectors


def vectors(ids: list[int], rows: object = None) -> TokenVectors:
    rows = np.eye(len(ids), 3, dtype=np.float32) if rows is None else rows
    return TokenVectors(np.array(ids), np.asarray(rows), np.ones(len(ids)), "v", {"method": "test"})


def test_vectors_come_back_from_disk(tmp_path: Path) -> None:
    one = vectors([2, 5, 9])
    one.save(tmp_path / "vectors.npz")
    other = TokenVectors.load(tmp_path / "vectors.npz")
    assert other.ids.tolist() == [2, 5, 9]
    assert other.rows.tobytes() == one.rows.tobytes()
    assert (other.vocabulary_fingerprint, other.provenance) == ("v", {"method": "test"})
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]


def test_rows_are_found_by_id() -> None:
    one = vectors([2, 5, 9])
    assert one.positions_of(np.array([9, 3, 2, 100])).tolist() == [2, -1, 0, -1]
    assert one.rows_for(np.array([9, 2])).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(InputError, match="Token 3 has no vector"):
        one.rows_for(np.array([3]))


@pytest.mark.parametrize(
    ("ids", "rows", "sentence"),
    [
        ([5, 2], np.zeros((2, 3)), "ascending and unique"),
        ([2, 2], np.zeros((2, 3)), "ascending and unique"),
        ([-1, 2], np.zeros((2, 3)), "non-negative"),
        ([1, 2], np.array([[0.0], [np.nan]]), "token 2"),
        ([1, 2], np.array([[np.inf], [0.0]]), "token 1"),
        ([1, 2], np.zeros((3, 3)), "2 ids and 3 rows"),
        ([1, 2], np.zeros(2), r"\(2,\)"),
    ],
)
def test_vectors_that_break_a_promise_are_refused(ids: list[int], rows: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        vectors(ids, rows)


def test_files_that_are_no_vectors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 not really")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("junk.npz", "other.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            TokenVectors.load(tmp_path / name)


def test_a_zero_row_stays_zero() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]


# --- GloVe


def test_one_step_of_glove_is_adagrad_on_the_papers_loss() -> None:
    one_pair = Counts(np.array([0, 1, 1]), np.array([1], np.int32), np.array([2.5], np.float32))
    settings = GloveSettings(dimensions=3, iterations=1, min_count=1)
    rows, losses = train_glove(one_pair, settings, seed=3)
    # The same by hand: draw as train_glove does, one step of AdaGrad whose sums of squares begin with 1.
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


def test_glove_gives_the_same_bits_for_a_seed_whatever_the_threads() -> None:
    corpus = random_corpus(200, 600)  # several blocks, so that threads work side by side
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
    # With a learning rate of almost nothing the mean loss is that of the first values, over all pairs.
    stream = make_stream(corpus.ids, corpus.offsets, 600, 5)
    counts = cooccurrence(stream)
    still = train_glove(counts, GloveSettings(dimensions=20, iterations=1, learning_rate=1e-9))[1][0]
    values = counts.values.astype(np.float64)
    expected = (0.5 * np.minimum(1, (values / 10) ** 0.75) * np.log(values) ** 2).mean()
    assert still == pytest.approx(expected, rel=0.05)


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


def test_trained_vectors_are_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    settings = GloveSettings(dimensions=5, iterations=1)
    first = glove_vectors(byte_corpus(), 256, settings)
    (file,) = (tmp_path / "vectors").iterdir()
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


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="iterations"):
        GloveSettings(iterations=0)
    with pytest.raises(InputError, match="window"):
        AnchoredSettings(window=0)


# --- anchored vectors


def all_shared(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n, dtype=np.int64), np.arange(n, dtype=np.int64)


def test_pmi_is_the_formula() -> None:
    dense = np.array([[4.0, 1.0, 0.0], [1.0, 8.0, 2.0]])
    rows, columns = np.nonzero(dense)
    counts = Counts(np.array([0, 2, 5]), columns.astype(np.int32), dense[rows, columns].astype(np.float32))
    pmi = positive_pmi(counts, 3, smoothing=0.75)
    context = dense.sum(0) ** 0.75 / (dense.sum(0) ** 0.75).sum()
    joint, token = dense / dense.sum(), dense.sum(1) / dense.sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(0, np.log(joint / (token[:, None] * context)))
    found = np.zeros((2, 3))
    found[np.repeat([0, 1], np.diff(pmi.starts)), pmi.columns] = pmi.values
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (pmi.values > 0).all()


def test_factorisation_is_the_svd() -> None:
    random = np.random.default_rng(0)
    dense = random.random((60, 20)) @ np.diag(0.6 ** np.arange(20)) @ random.random((20, 40))
    dense[dense < np.median(dense)] = 0
    rows, columns = np.nonzero(dense)
    lengths = np.bincount(rows, minlength=60)
    matrix = Counts(
        np.concatenate([[0], np.cumsum(lengths)]), columns.astype(np.int32), dense[rows, columns].astype(np.float32)
    )
    made = factorise(matrix, 40, dimensions=5, power=1.0, passes=6)
    u, s, _ = np.linalg.svd(dense, full_matrices=False)
    np.testing.assert_allclose(np.abs(made), np.abs(u[:, :5] * s[:5]), atol=2e-3)


def test_anchored_vectors_of_one_text_with_itself_are_twins() -> None:
    corpus = random_corpus(200, 100)
    one, other = anchored_vectors(corpus, corpus, all_shared(100), (100, 100))
    assert one.ids.tolist() == other.ids.tolist()
    np.testing.assert_allclose(one.normalized(), other.normalized(), atol=1e-4)


def test_anchored_vectors_give_the_same_bits_for_a_seed() -> None:
    corpus = random_corpus(200, 100)
    runs = [anchored_vectors(corpus, corpus, all_shared(100), (100, 100), seed=4)[0].rows.tobytes() for _ in "ab"]
    assert runs[0] == runs[1]


def test_only_given_shared_tokens_become_anchors() -> None:
    corpus = random_corpus(200, 100)
    stream = make_stream(corpus.ids, corpus.offsets, 100, 5)
    shared = (np.arange(0, 100, 2), np.arange(0, 100, 2))  # odd tokens are hidden
    anchors = choose_anchors([stream, stream], shared, 20)
    assert set(anchors[0]) <= set(range(0, 100, 2))
    assert len(anchors[0]) == 20
    counts = np.bincount(corpus.ids, minlength=100)
    left_out = set(shared[0]) - set(anchors[0])
    assert counts[anchors[0]].min() >= counts[list(left_out)].max()


def test_one_source_token_is_one_anchor() -> None:
    corpus = random_corpus(200, 100)
    stream = make_stream(corpus.ids, corpus.offsets, 100, 5)
    anchors = choose_anchors([stream, stream], (np.array([3, 3, 4]), np.array([3, 5, 4])), 20)
    assert sorted(anchors[0].tolist()) == [3, 4]


def test_anchored_vectors_are_finite_on_a_kilobyte() -> None:
    one, other = anchored_vectors(byte_corpus(), byte_corpus(), all_shared(256), (256, 256))
    assert np.isfinite(one.rows).all()
    assert len(one) == len(other) > 5


def test_no_shared_token_is_an_error_with_a_way_out() -> None:
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    with pytest.raises(InputError, match=r"share no token.*'pieces'"):
        anchored_vectors(byte_corpus(), byte_corpus(), none, (256, 256))
