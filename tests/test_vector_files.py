"""Token vectors in files: which files are read, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_vocabulary

from tokalign_lab.errors import InputError
from tokalign_lab.vectors import formats
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows


def vectors(ids: list[int], rows: object = None) -> TokenVectors:
    rows = np.eye(len(ids), 3, dtype=np.float32) if rows is None else rows
    return TokenVectors(np.array(ids), np.asarray(rows), np.ones(len(ids)), "v", {"method": "test"})


def test_vectors_are_saved_and_loaded(tmp_path: Path) -> None:
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
def test_invalid_vectors_are_refused(ids: list[int], rows: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        vectors(ids, rows)


def test_files_without_vectors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 not really")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name in ("junk.npz", "other.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            TokenVectors.load(tmp_path / name)


def test_a_zero_row_stays_zero() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]


# --- other programs' files

VOCABULARY = tiny_vocabulary()


def some_vectors(n: int = 20) -> TokenVectors:
    random = np.random.default_rng(0)
    rows = (random.standard_normal((n, 7)) * 10.0 ** random.integers(-9, 9, (n, 7))).astype(np.float32)
    ids = np.sort(random.choice(VOCABULARY.size, n, replace=False))
    return TokenVectors(ids, rows, random.integers(0, 99, n), VOCABULARY.fingerprint, {"method": "test"})


def same(one: TokenVectors, other: TokenVectors) -> bool:
    return one.ids.tolist() == other.ids.tolist() and one.rows.tobytes() == other.rows.tobytes()


@pytest.mark.parametrize("header", [True, False])
def test_word2vec_text_is_read_exactly(tmp_path: Path, header: bool) -> None:
    from gensim.models import KeyedVectors

    one = some_vectors()
    keyed = KeyedVectors(7)
    order = np.argsort(-one.counts, kind="stable")
    keyed.add_vectors(one.ids[order].astype(str).tolist(), one.rows[order])
    keyed.save_word2vec_format(str(tmp_path / "vectors.txt"), write_header=header)
    other = formats.load_word2vec(tmp_path / "vectors.txt", VOCABULARY)
    assert same(one, other)
    assert other.provenance == {"method": "file", "file": "vectors.txt", "counts": "ranks"}
    # Ranks replace the counts: the most frequent token is first.
    assert (np.argsort(-other.counts) == order).all()


def test_glove_files_are_read_without_the_unknown_row(tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("7 0.5 -1.25\n3 1e-3 2\n<unk> 0.1 0.1\n")
    made = formats.load_word2vec(tmp_path / "glove.txt", VOCABULARY)
    assert made.ids.tolist() == [3, 7]
    assert made.rows.tolist() == [[np.float32(1e-3), 2.0], [0.5, -1.25]]
    assert made.counts.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("7 0.5 1\n3 nan 2\n", "line 2, token 3 holds a value that is not finite"),
        ("7 0.5 inf\n", "line 1, token 7 holds a value that is not finite"),
        ("7 0.5 1\n3 2\n", "line 2, token 3 has 1 numbers and the first line has 2"),
        ("7 0.5 1\n3 2 1\n7 1 1\n", "token 7 twice, in line 1 and line 3"),
        ("7 0.5 1\n99999 2 1\n", "line 2: 'tiny-300' has no token 99999, its ids end at"),
        ("the 0.5 1\n", "line 1: 'the' is not a token id"),
        ("-7 0.5 1\n", "line 1: '-7' is not a token id"),
        ("7 0.5 x1\n", "line 1, token 7: could not convert"),
        ("7\n", "line 1, token 7 has no numbers"),
        ("3 2\n7 0.5 1\n", "promises 3 vectors and has 1"),
        ("", "holds no token vectors"),
        ("<unk> 1 2\n", "holds no token vectors"),
    ],
)
def test_text_without_token_vectors_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "vectors.txt").write_text(text)
    with pytest.raises(InputError, match=sentence):
        formats.load_word2vec(tmp_path / "vectors.txt", VOCABULARY)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"\xff\xfe\x00 junk")
    for load in (formats.load_word2vec, formats.load_npy):
        with pytest.raises(InputError, match=r"no token vectors at .*missing"):
            load(tmp_path / "missing", VOCABULARY)
        with pytest.raises(InputError, match="junk is not a readable"):
            load(tmp_path / "junk", VOCABULARY)


def test_npy_is_saved_and_loaded_with_counts(tmp_path: Path) -> None:
    one = some_vectors()
    for name, array in (("rows", one.rows), ("rows.ids", one.ids), ("rows.counts", one.counts)):
        np.save(tmp_path / f"{name}.npy", array)
    other = formats.load_npy(tmp_path / "rows.npy", VOCABULARY)
    assert same(one, other)
    assert other.counts.tolist() == one.counts.tolist()


def test_npy_without_ids_is_the_whole_vocabulary(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((VOCABULARY.size, 3))
    np.save(tmp_path / "all.npy", rows)
    made = formats.load_npy(tmp_path / "all.npy", VOCABULARY)
    assert made.ids.tolist() == list(range(VOCABULARY.size))
    assert made.rows.tobytes() == rows.astype(np.float32).tobytes()
    np.save(tmp_path / "some.npy", rows[:5])
    with pytest.raises(InputError, match=r"has 5 rows and 'tiny-300' has \d+ ids; put the ids .*some\.ids\.npy"):
        formats.load_npy(tmp_path / "some.npy", VOCABULARY)


@pytest.mark.parametrize(
    ("rows", "ids", "sentence"),
    [
        (np.zeros(3), [1, 2, 3], r"shape \(3,\)"),
        (np.array([["a"], ["b"]]), [1, 2], "matrix of numbers"),
        (np.zeros((3, 2)), [1, 2], "must hold 3 whole numbers"),
        (np.zeros((2, 2)), [1.0, 2.0], "must hold 2 whole numbers"),
        (np.zeros((3, 2)), [4, 2, 4], "token 4 twice, in row 0 and row 2"),
        (np.zeros((2, 2)), [4, 99999], "row 1: 'tiny-300' has no token 99999"),
        (np.zeros((2, 2)), [4, -1], "row 1: '-1' is not a token id"),
        (np.array([[0.0], [np.nan]]), [9, 2], "row 1, token 2 holds a value that is not finite"),
    ],
)
def test_npy_without_valid_token_vectors_is_refused(
    tmp_path: Path, rows: np.ndarray, ids: list[float], sentence: str
) -> None:
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "rows.ids.npy", np.array(ids))
    with pytest.raises(InputError, match=sentence):
        formats.load_npy(tmp_path / "rows.npy", VOCABULARY)


def test_npy_that_is_an_archive_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", rows=np.ones((3, 2)))
    (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"rename it to end in \.npz"):
        formats.load_npy(tmp_path / "v.npy", VOCABULARY)
