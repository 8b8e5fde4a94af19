"""Check the content of a lexicon's file: ids that exist, finite weights, and its own checksum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.rows import COLUMNS, NO_TOKEN
from tokalign_lab.files import hash_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def content_hash(table: pa.Table, reverse: bytes, provenance: bytes) -> str:
    """SHA-256, as hex, of a lexicon's values: its columns in order, the reverse direction and the provenance."""
    parts = [reverse, provenance]
    for name in table.column_names:
        parts += [name.encode(), *_bytes_of(table.column(name).combine_chunks())]
    return hash_of(parts)


def check_values(
    table: pd.DataFrame,
    lists: pa.Table,
    reverse: pd.DataFrame,
    provenance: Mapping[str, Any],
    origins: Mapping[str, str],
) -> None:
    """Raise ValueError for a value that no recipe makes; KeyError or TypeError if the provenance lacks an entry.

    `lists` is the same table in Arrow, where a list column is two arrays and not one array per row.
    """
    if list(table) != lists.column_names:  # pandas reads the names from separate metadata
        raise ValueError("its columns have two names each")
    sides = provenance["source"], provenance["target"]
    n_source, n_target = (int(side["size"]) for side in sides)
    if not all(isinstance(side[key], str) for side in sides for key in ("name", "fingerprint")):
        raise ValueError("the tokenizers it was made for have no name or fingerprint")
    if not isinstance(provenance["recipe"], str):
        raise ValueError("its recipe has no name")
    if len(table) != n_target or len(reverse) != n_source:
        raise ValueError(
            f"it has rows for {len(table):,} target and {len(reverse):,} source tokens, but the tokenizers have "
            f"{n_target:,} and {n_source:,}"
        )
    missing = set(COLUMNS) - set(table)
    if missing:
        raise ValueError(f"it has no column {min(missing)!r}")
    for frame, own, other, size in ((table, "target", "source", n_source), (reverse, "source", "target", n_target)):
        if not np.array_equal(frame[f"{own}_id"].to_numpy(), np.arange(len(frame))):
            raise ValueError(f"its {own} ids do not go from 0 upwards")
        _check_ids(frame[f"{other}_id"].to_numpy(), f"{other}_id", size, lowest=NO_TOKEN)
    unknown = set(table["origin"].unique()) - set(origins)
    if unknown:
        raise ValueError(f"it has rows of the unknown origin {sorted(map(str, unknown))[0]!r}")
    _check_lists(lists, "candidate_ids", "candidate_scores", n_source)
    for start in ("", "output_") if "output_sources" in table else ("",):
        _check_finite(_check_lists(lists, f"{start}sources", f"{start}weights", n_source), f"{start}weights")
        _check_finite(table[f"{start}mean_weight"].to_numpy(np.float64), f"{start}mean_weight")


def _check_lists(table: pa.Table, ids: str, values: str, size: int) -> NDArray[np.float64]:
    """Check that each id exists and has a value; return all values as one array."""
    columns = [table.column(name).combine_chunks() for name in (ids, values)]
    if any(column.null_count for column in columns) or not columns[0].value_lengths().equals(
        columns[1].value_lengths()
    ):
        raise ValueError(f"{ids} and {values} are not of the same length")
    held, given = (column.flatten().to_numpy(zero_copy_only=False) for column in columns)
    _check_ids(held, ids, size)
    return given.astype(np.float64)


def _check_ids(ids: NDArray[Any], name: str, size: int, lowest: int = 0) -> None:
    wrong = (ids < lowest) | (ids >= size) | (ids != np.trunc(ids))
    if wrong.any():
        raise ValueError(f"{name} holds {ids[wrong][0]}, but ids go from {lowest} to {size - 1}")


def _check_finite(values: NDArray[np.float64], name: str) -> None:
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise ValueError(f"{name} holds {values[wrong][0]} where a number must be")


def _bytes_of(array: pa.Array) -> Iterator[bytes]:
    """Yield the values of a column as bytes, independent of the storage in Parquet or Arrow."""
    import pyarrow as pa

    if pa.types.is_list(array.type):
        yield array.value_lengths().to_numpy(zero_copy_only=False).astype("<i8").tobytes()
        array = array.flatten()
    if pa.types.is_integer(array.type) and not array.null_count:
        yield array.to_numpy(zero_copy_only=False).astype("<i8").tobytes()
    elif pa.types.is_floating(array.type):
        values = array.to_numpy(zero_copy_only=False).astype("<f8")
        values[np.isnan(values)] = np.nan  # all NaNs, and null, are the same
        yield values.tobytes()
    else:
        yield json.dumps(array.to_pylist()).encode()
