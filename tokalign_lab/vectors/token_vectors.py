"""TokenVectors: one vector for each token that is frequent enough in the text, and their provenance.

Every method in `tokalign_lab.vectors` returns this type, and `tokalign_lab.alignment` takes it. So its guarantees are
checked here, once: finite float32 rows, ids ascending and unique. A token that is too rare is absent.

Training GloVe on a text takes minutes and does not depend on the other vocabulary or on held-out shared tokens. So
`align`, its held-out check and the next session share one training (`load_or_train`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError, plain_read_errors
from tokalign_lab.files import atomic_file, cache_folder, cached_folder, hash_of

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

_VERSION = "1"  # raise it when a method's result changes for the same settings


@dataclass(frozen=True)
class TokenVectors:
    """Vectors of some of a vocabulary's tokens.

    Raises `InputError` if shapes disagree, ids are not ascending and unique, or a value is not finite.

    Parameters
    ----------
    ids : int64 (n,), token ids, strictly ascending
    rows : float32 (n, d), one finite vector per token, in the order of `ids`; d is 0 if the vectors are not stored
    counts : int64 (n,), occurrences of each token in the text
    vocabulary_fingerprint : `Vocabulary.fingerprint` of the tokenizer that the ids belong to
    provenance : method, settings, seed, text hash; any JSON values
    """

    ids: NDArray[np.int64]
    rows: NDArray[np.float32]
    counts: NDArray[np.int64]
    vocabulary_fingerprint: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", np.ascontiguousarray(self.ids, dtype=np.int64))
        object.__setattr__(self, "rows", np.ascontiguousarray(self.rows, dtype=np.float32))
        object.__setattr__(self, "counts", np.ascontiguousarray(self.counts, dtype=np.int64))
        if self.ids.ndim != 1 or self.rows.ndim != 2 or self.counts.shape != self.ids.shape:
            raise InputError(
                f"Token vectors need ids (n,), rows (n, d) and counts (n,), but got ids {self.ids.shape}, "
                f"rows {self.rows.shape} and counts {self.counts.shape}."
            )
        if len(self.rows) != len(self.ids):
            raise InputError(
                f"Token vectors need a row for each id, but got {len(self.ids)} ids and {len(self.rows)} rows."
            )
        if len(self.ids) and (self.ids[0] < 0 or np.any(np.diff(self.ids) <= 0)):
            raise InputError("The ids of token vectors must be non-negative, ascending and unique; sort them first.")
        if not np.isfinite(self.rows).all():
            bad = int(self.ids[np.flatnonzero(~np.isfinite(self.rows).all(axis=1))[0]])
            raise InputError(f"The vector of token {bad} holds a value that is not finite; train the vectors again.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> int:
        """Length of one vector."""
        return int(self.rows.shape[1])

    @property
    def is_stored(self) -> bool:
        """Whether the vectors are stored, not only token ids and counts."""
        return self.dimensions > 0

    def check_stored(self) -> None:
        """Raise InputError if the vectors are not stored."""
        if not self.is_stored:
            raise InputError(
                "The token vectors are not stored with this run, only their maps, so neighbours and other layouts "
                "cannot be computed; align the pair yourself to see them."
            )

    def normalized(self) -> NDArray[np.float32]:
        """Return the rows scaled to length 1, float32 (n, d); a zero row stays zero."""
        return unit_rows(self.rows)

    def positions_of(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Return the row number of each id, int64 with the shape of `ids`; -1 for an id without a vector."""
        return positions_in(self.ids, ids)

    def rows_for(self, ids: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vectors of `ids`, float32 (len(ids), d).

        Raises InputError if one of the ids has no vector, or the vectors are not stored.
        """
        self.check_stored()
        positions = self.positions_of(ids)
        if (positions < 0).any():
            missing = int(np.asarray(ids)[positions < 0][0])
            raise InputError(f"Token {missing} has no vector; it is too rare in the text of the vectors.")
        return self.rows[positions]

    def save(self, path: Path) -> None:
        """Write ids, rows, counts and provenance to one .npz file, atomically."""
        header = {"vocabulary_fingerprint": self.vocabulary_fingerprint, "provenance": self.provenance}
        with atomic_file(Path(path)) as temporary, open(temporary, "wb") as file:
            write = np.savez if self.is_stored else np.savez_compressed  # vectors hardly compress
            write(file, ids=self.ids, rows=self.rows, counts=self.counts, header=np.array(json.dumps(header)))

    @classmethod
    def load(cls, path: Path) -> TokenVectors:
        """Read what `save` wrote. Raises InputError if the file is missing or is not a file of token vectors."""
        if not Path(path).exists():
            raise InputError(f"There are no token vectors at {path}.")
        with (
            plain_read_errors(lambda reason: f"{path} is not a readable file of token vectors ({reason})."),
            np.load(path, allow_pickle=False) as arrays,
        ):
            header = json.loads(str(arrays["header"]))
            return cls(arrays["ids"], arrays["rows"], arrays["counts"], **header)


def load_or_train(
    corpus: Corpus, settings: dict[str, Any], train: Callable[[], TokenVectors], cached: bool = True
) -> TokenVectors:
    """Load the vectors of this text and these settings from the cache, or train and cache them.

    The folder's name is a hash of everything that the vectors depend on: text, tokenizer, settings; no path or date.
    """
    if not cached:
        return train()
    told = json.dumps(settings, sort_keys=True)
    parts = [_VERSION, corpus.vocabulary_fingerprint, corpus.reading, corpus.text_hash, told]
    folder = cache_folder() / "vectors" / hash_of(item.encode() for item in parts)[:32]
    kept = cached_folder(folder, lambda temporary: train().save(temporary / "vectors.npz"))
    return TokenVectors.load(kept / "vectors.npz")


def positions_in(known: NDArray[np.int64], ids: NDArray[Any]) -> NDArray[np.int64]:
    """Return the position of each id in `known`, which is ascending; int64 with the shape of `ids`, -1 if missing."""
    ids = np.asarray(ids, dtype=np.int64)
    if not len(known):
        return np.full(ids.shape, -1, dtype=np.int64)
    found = np.searchsorted(known, ids).clip(max=len(known) - 1)
    return np.where(known[found] == ids, found, -1)


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Scale each row to length 1, float32 (n, d); a zero row stays zero."""
    rows = np.asarray(rows, dtype=np.float32)
    unit = np.empty_like(rows)  # divided in float64 without a float64 copy of all rows, which takes seconds
    return np.divide(rows, row_norms(rows)[:, None], out=unit, casting="same_kind")


def row_norms(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the length of each row of an (n, d) array, float64 (n,); 1 for a zero row, so that it stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return np.where(norms > 0, norms, 1.0)
