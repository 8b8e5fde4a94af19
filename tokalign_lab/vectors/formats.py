"""Token vectors in other programs' files: word2vec text (which gensim reads and writes too) and .npy.

Everywhere a token is known by its id, and where words are asked for, by its id as a string, as upstream's corpus for
GloVe has it: tokens hold spaces and half characters, which no text format can. Rows are written by falling count, as
GloVe and word2vec do and as VecMap's frequency cut-off expects.

A file of vectors mostly does not say how often a token occurs. Then the counts of what is read are ranks, n for the
first row and 1 for the last, so that "the most frequent" still means the same; the provenance says so. What comes from
a file is checked whole before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError, first_line
from tokalign_lab.files import atomic_file
from tokalign_lab.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from tokalign_lab.vocabulary import Vocabulary

_UNKNOWN = ("<unk>", "</s>")  # rows that GloVe and word2vec add by themselves; they are no tokens


def save_word2vec(vectors: TokenVectors, path: Path, header: bool = True) -> None:
    """Write the word2vec text format, whole or not at all: a line a token, its id and its numbers.

    Parameters
    ----------
    vectors
        What to write.
    path
        Where to.
    header
        Begin with a line "n dimensions", as word2vec and gensim do; Stanford's GloVe writes none.
    """
    with atomic_file(Path(path)) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        if header:
            file.write(f"{len(vectors)} {vectors.dimensions}\n")
        for i in _by_frequency(vectors):
            # numpy's own shortest form of a float32 comes back as the same float32
            file.write(f"{vectors.ids[i]} {' '.join(map(str, vectors.rows[i]))}\n")


def load_word2vec(path: Path, vocabulary: Vocabulary) -> TokenVectors:
    """Read a text file of word2vec, of Stanford's GloVe or of `save_word2vec`, whose words are token ids.

    The rows "<unk>" and "</s>", which those programs add, are left out; counts are ranks.

    Raises
    ------
    InputError
        If there is no such file, or a line breaks a promise: it says which line and which token.
    """
    where: dict[int, int] = {}
    rows: list[NDArray[np.float32]] = []
    for number, fields in _lines(Path(path)):
        if fields[0] in _UNKNOWN:
            continue
        token = _token_id(fields[0], vocabulary, f"{path}, line {number}")
        if token in where:
            raise InputError(f"{path} has token {token} twice, in lines {where[token]} and {number}; remove one.")
        where[token] = number
        rows.append(_numbers(fields, f"{path}, line {number}, token {token}"))
        if len(rows[-1]) != len(rows[0]):
            raise InputError(
                f"{path}, line {number}, token {token} has {len(rows[-1])} numbers and the first line has "
                f"{len(rows[0])}; write the file again."
            )
    if not rows:
        raise InputError(f"{path} holds no token vectors; give a file in the word2vec text format.")
    return _ranked(np.array(list(where), dtype=np.int64), np.array(rows), vocabulary, path)


def load_vectors(path: Path, vocabulary: Vocabulary) -> TokenVectors:
    """Read token vectors of a vocabulary: .npz as `TokenVectors.save` writes it, .npy, else the word2vec text format.

    Raises
    ------
    InputError
        If there is no such file, or it holds no vectors of this vocabulary.
    """
    if path.suffix == ".npy":
        return load_npy(path, vocabulary)
    if path.suffix != ".npz":
        return load_word2vec(path, vocabulary)
    vectors = TokenVectors.load(path)
    if vectors.vocabulary_fingerprint != vocabulary.fingerprint:
        raise InputError(f"{path} holds vectors of another tokenizer than '{vocabulary.name}'; give those of this one.")
    return vectors


def save_npy(vectors: TokenVectors, path: Path) -> None:
    """Write the rows to `path` and, next to it, NAME.ids.npy and NAME.counts.npy in the same order."""
    path = Path(path)
    for name, array in (
        (path, vectors.rows),
        (_beside(path, "ids"), vectors.ids),
        (_beside(path, "counts"), vectors.counts),
    ):
        with atomic_file(name) as temporary, open(temporary, "wb") as file:
            np.save(file, array)


def load_npy(path: Path, vocabulary: Vocabulary) -> TokenVectors:
    """Read a matrix of vectors; what `save_npy` puts beside it names the rows.

    Without NAME.ids.npy there must be a row for every id, 0 to size - 1; without NAME.counts.npy counts are ranks.

    Raises
    ------
    InputError
        If there is no such file, or shapes, ids or values make no token vectors of this vocabulary.
    """
    path = Path(path)
    rows = _array(path)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise InputError(f"{path} holds {rows.dtype} of shape {rows.shape}; give a matrix of numbers, a row a token.")
    beside = _beside(path, "ids")
    if beside.exists():
        ids = _array(beside)
    elif len(rows) == vocabulary.size:
        ids = np.arange(vocabulary.size)
    else:
        raise InputError(
            f"{path} has {len(rows)} rows and '{vocabulary.name}' has {vocabulary.size} ids; put the ids of the rows "
            f"into {beside}."
        )
    if ids.shape != (len(rows),) or ids.dtype.kind not in "iu":
        raise InputError(f"{beside} must hold {len(rows)} whole numbers, one a row, but has {ids.dtype} {ids.shape}.")
    for i in np.flatnonzero((ids < 0) | (ids >= vocabulary.size))[:1]:
        _token_id(str(ids[i]), vocabulary, f"{beside}, row {i}")
    unique, first = np.unique(ids, return_index=True)
    if len(unique) < len(ids):
        again = int(np.setdiff1d(np.arange(len(ids)), first)[0])
        raise InputError(f"{beside} has token {ids[again]} twice, the second time in row {again}; remove one.")
    for i in np.flatnonzero(~np.isfinite(rows).all(axis=1))[:1]:
        raise InputError(f"{path}, row {i}, token {ids[i]} holds a value that is not finite; train the vectors again.")
    counts_file = _beside(path, "counts")
    if not counts_file.exists():
        return _ranked(ids.astype(np.int64), rows, vocabulary, path)
    counts = _array(counts_file)
    if counts.shape != ids.shape or counts.dtype.kind not in "iu":
        raise InputError(f"{counts_file} must hold {len(ids)} whole numbers, but has {counts.dtype} {counts.shape}.")
    order = np.argsort(ids)
    provenance = {"method": "file", "file": path.name}
    return TokenVectors(ids[order], rows[order], counts[order], vocabulary.fingerprint, provenance)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1 and fields of the lines that hold vectors, as many as the header, if any, promises."""
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
        raise InputError(f"{path} says that it has {promised} vectors and has {seen}; write the file again.")


def _token_id(word: str, vocabulary: Vocabulary, where: str) -> int:
    if not word.isdecimal():
        raise InputError(f"{where}: '{word}' is not a token id; train on ids, as upstream does, or write ids as words.")
    if int(word) >= vocabulary.size:
        raise InputError(
            f"{where}: '{vocabulary.name}' has no token {word}, its ids end at {vocabulary.size - 1}; "
            "give the tokenizer that the vectors were trained with."
        )
    return int(word)


def _numbers(fields: list[str], where: str) -> NDArray[np.float32]:
    try:
        row = np.array(fields[1:], dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{where}: {first_line(error)}; write the file again.") from error
    if not len(row):
        raise InputError(f"{where} has no numbers; write the file again.")
    if not np.isfinite(row).all():
        raise InputError(f"{where} holds a value that is not finite; train the vectors again.")
    return row


def _array(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"There are no token vectors at {path}.") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not a readable .npy file ({first_line(error)}).") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an .npz archive, not an .npy file; read it with TokenVectors.load.")
    return array


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}.{what}.npy")


def _by_frequency(vectors: TokenVectors) -> NDArray[np.int64]:
    return np.argsort(-vectors.counts, kind="stable")


def _ranked(ids: NDArray[np.int64], rows: NDArray[Any], vocabulary: Vocabulary, path: Path | str) -> TokenVectors:
    """Vectors in the order of a file that says nothing of counts."""
    order = np.argsort(ids)
    provenance = {"method": "file", "file": Path(path).name, "counts": "ranks"}
    return TokenVectors(ids[order], rows[order], np.arange(len(ids), 0, -1)[order], vocabulary.fingerprint, provenance)
