"""Read token vectors of other programs: word2vec text files (also written by gensim) and .npy.

A word in a file is a token id as a string, as in upstream's corpus for GloVe: tokens contain spaces and parts of
characters, which a text format cannot store.

Most files have no token counts. Then the counts are ranks, n for the first row and 1 for the last, because GloVe and
word2vec write rows by descending count; the provenance records this. A file is checked completely before use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError, first_line, plain_read_errors
from tokalign_lab.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from tokalign_lab.vocabulary import Vocabulary

_UNKNOWN = ("<unk>", "</s>")  # rows that GloVe and word2vec add; they are not tokens


def load_vectors(path: Path, vocabulary: Vocabulary) -> TokenVectors:
    """Read token vectors of a vocabulary: .npz of `TokenVectors.save`, .npy, otherwise the word2vec text format.

    Raises InputError if there is no such file, or it has no vectors of this vocabulary.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return load_npy(path, vocabulary)
    if path.suffix != ".npz":
        return load_word2vec(path, vocabulary)
    vectors = TokenVectors.load(path)
    if vectors.vocabulary_fingerprint != vocabulary.fingerprint:
        raise InputError(f"{path} holds vectors of another tokenizer than '{vocabulary.name}'; give those of this one.")
    return vectors


def load_word2vec(path: Path, vocabulary: Vocabulary) -> TokenVectors:
    """Read a text file of word2vec or of Stanford's GloVe whose words are token ids; counts are ranks.

    The rows "<unk>" and "</s>", which those programs add, are skipped. Raises InputError if there is no such file, or
    with the line and the token of a wrong row.
    """
    path = Path(path)
    lines: list[int] = []
    words: list[str] = []
    rows: list[NDArray[np.float32]] = []
    for number, fields in _lines(path):
        if fields[0] in _UNKNOWN:
            continue
        where = f"{path}, line {number}, token {fields[0]}"
        try:
            row = np.array(fields[1:], dtype=np.float32)
        except ValueError as error:
            raise InputError(f"{where}: {first_line(error)}; write the file again.") from error
        if not len(row):
            raise InputError(f"{where} has no numbers; write the file again.")
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"{where} has {len(row)} numbers and the first line has {len(rows[0])}; write the file again."
            )
        lines.append(number)
        words.append(fields[0])
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no token vectors; give a file in the word2vec text format.")
    return _vectors(path, path, words, np.array(rows), None, vocabulary, lambda i: f"line {lines[i]}")


def load_npy(path: Path, vocabulary: Vocabulary) -> TokenVectors:
    """Read a matrix of vectors, (n, d), from NAME.npy, with their ids in NAME.ids.npy and counts in NAME.counts.npy.

    Without ids there must be a row for every id, 0 to size - 1; without counts, the counts are ranks. Raises InputError
    if there is no such file, or shapes, ids or values are not token vectors of this vocabulary.
    """
    path = Path(path)
    ids_file, counts_file = (path.with_name(f"{path.stem}.{name}.npy") for name in ("ids", "counts"))
    rows = _array(path)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds {rows.dtype} of shape {rows.shape}; give a matrix of numbers with one row per token."
        )
    if ids_file.exists():
        ids = _whole_numbers(ids_file, len(rows))
    elif len(rows) == vocabulary.size:
        ids = np.arange(vocabulary.size)
    else:
        raise InputError(
            f"{path} has {len(rows)} rows and '{vocabulary.name}' has {vocabulary.size} ids; put the ids of the rows "
            f"into {ids_file}."
        )
    counts = _whole_numbers(counts_file, len(rows)) if counts_file.exists() else None
    return _vectors(path, ids_file, ids.astype(str).tolist(), rows, counts, vocabulary, lambda i: f"row {i}")


def _vectors(
    path: Path,
    ids_file: Path,
    words: list[str],
    rows: NDArray[Any],
    counts: NDArray[Any] | None,
    vocabulary: Vocabulary,
    place: Callable[[int], str],
) -> TokenVectors:
    """Check ids and values, and sort by id; `place` describes row i for messages."""
    found: dict[int, int] = {}
    for i, word in enumerate(words):
        where = f"{ids_file}, {place(i)}"
        if not word.isdecimal():
            raise InputError(
                f"{where}: '{word}' is not a token id; train on ids, as upstream does, or write ids as words."
            )
        token = int(word)
        if token >= vocabulary.size:
            raise InputError(
                f"{where}: '{vocabulary.name}' has no token {word}, its ids end at {vocabulary.size - 1}; "
                "give the tokenizer that the vectors were trained with."
            )
        if token in found:
            raise InputError(
                f"{ids_file} has token {token} twice, in {place(found[token])} and {place(i)}; remove one."
            )
        found[token] = i
    for i in np.flatnonzero(~np.isfinite(rows).all(axis=1))[:1].tolist():
        raise InputError(
            f"{path}, {place(i)}, token {words[i]} holds a value that is not finite; train the vectors again."
        )
    provenance = {"method": "file", "file": path.name}
    if counts is None:
        counts, provenance["counts"] = np.arange(len(rows), 0, -1), "ranks"
    ids = np.array(list(found), dtype=np.int64)
    order = np.argsort(ids)
    return TokenVectors(ids[order], rows[order], counts[order], vocabulary.fingerprint, provenance)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers from 1 and fields of the lines with vectors; their number must match a header, if any."""
    promised, seen = None, 0
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                fields = line.split()
                if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    promised = int(fields[0])
                elif fields:
                    seen += 1
                    yield number, fields
    except FileNotFoundError:
        raise InputError(f"There are no token vectors at {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable text file of vectors ({first_line(error)}).") from error
    if promised not in (None, seen):
        raise InputError(f"{path} promises {promised} vectors and has {seen}; write the file again.")


def _array(path: Path) -> NDArray[Any]:
    if not path.exists():
        raise InputError(f"There are no token vectors at {path}.")
    with plain_read_errors(lambda reason: f"{path} is not a readable .npy file ({reason})."):
        array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an .npz archive, not an .npy file; rename it to end in .npz.")
    return array


def _whole_numbers(path: Path, n: int) -> NDArray[Any]:
    array = _array(path)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InputError(f"{path} must hold {n} whole numbers, one a row, but has {array.dtype} {array.shape}.")
    return array
