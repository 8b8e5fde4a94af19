"""Tokens on a plane without the vectors that put them there: what a recorded run keeps of two embedding spaces.

The vectors of a real pair are thirty megabytes, their two layouts half of one. Ids, counts and places draw the maps,
find, select and colour; what needs the vectors themselves (neighbours, another layout) says so.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_file
from tokalign_lab.vectors.token_vectors import TokenVectors

STEPS = 65_535  # of a coordinate, from one end of the layout to the other
_SIDES = ("source", "target")
WITHOUT_VECTORS = (
    "This is a recorded run: it keeps the places of its tokens on both maps and not their vectors, so neighbours and "
    "other layouts cannot be worked out; align the pair yourself to see them."
)

Places = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""Where tokens are, float32 (n, 2), and which were fitted, bool (n,)."""


@dataclass(frozen=True)
class LaidOutTokens(TokenVectors):
    """Tokens with places; `rows` has no columns.

    Parameters
    ----------
    layouts
        Places by method ("pca", "umap"), in one layout that both vocabularies share.
    """

    layouts: Mapping[str, Places] = field(default_factory=dict)

    def rows_for(self, ids: NDArray[Any]) -> NoReturn:
        """Say that there are no vectors.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(WITHOUT_VECTORS)


def save_places(path: Path, spaces: Sequence[TokenVectors], layouts: Mapping[str, Sequence[Places]]) -> None:
    """Write what is kept of a source and a target space, to one file that appears whole or not at all.

    Parameters
    ----------
    path
        A `.npz` file.
    spaces
        The two sets of token vectors, of which ids, counts and provenance are kept.
    layouts
        By method the places of both, in one layout; coordinates keep 16 bits.
    """
    header = [{"vocabulary_fingerprint": s.vocabulary_fingerprint, "provenance": s.provenance} for s in spaces]
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header))}
    for side, space in zip(_SIDES, spaces, strict=True):
        arrays[f"{side}_steps"] = np.diff(space.ids, prepend=0).astype(np.uint32)
        arrays[f"{side}_counts"] = space.counts.astype(np.uint32)
    for method, both in layouts.items():
        everything = np.concatenate([xy for xy, _ in both])
        low, high = everything.min(axis=0), everything.max(axis=0)
        arrays[f"{method}_ends"] = np.stack([low, high]).astype(np.float32)
        for side, (xy, fitted) in zip(_SIDES, both, strict=True):
            share = (xy - low) / np.maximum(high - low, np.float32(1e-12))
            arrays[f"{method}_{side}"] = np.rint(share * STEPS).astype(np.uint16)
            arrays[f"{method}_{side}_fitted"] = np.packbits(fitted)
    with atomic_file(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_places(path: Path) -> tuple[LaidOutTokens, LaidOutTokens]:
    """Read what `save_places` wrote.

    Raises
    ------
    InputError
        If the file is missing or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            told = json.loads(str(arrays["header"]))
            methods = [name.removesuffix("_ends") for name in arrays.files if name.endswith("_ends")]
            source, target = (_side(arrays, side, methods, **header) for side, header in zip(_SIDES, told, strict=True))
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"'{path}' is no readable file of tokens on a plane ({type(error).__name__}).") from error
    return source, target


def _side(arrays: Any, side: str, methods: list[str], **header: Any) -> LaidOutTokens:
    ids = np.cumsum(arrays[f"{side}_steps"].astype(np.int64))
    layouts = {}
    for method in methods:
        low, high = arrays[f"{method}_ends"]
        xy = (low + arrays[f"{method}_{side}"].astype(np.float32) / STEPS * (high - low)).astype(np.float32)
        layouts[method] = (xy, np.unpackbits(arrays[f"{method}_{side}_fitted"], count=len(ids)).astype(bool))
    rows = np.zeros((len(ids), 0), np.float32)
    return LaidOutTokens(ids, rows, arrays[f"{side}_counts"].astype(np.int64), layouts=layouts, **header)
