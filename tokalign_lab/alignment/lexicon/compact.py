"""A lexicon in a tenth of its size, for recorded runs that ship with the package.

Nothing that a panel shows is left out. Token strings are read from the two lists of tokens beside it (`token_list`),
the reverse direction is a Parquet file inside the file instead of JSON, and numbers of which people read three digits
(weights, candidates' scores, margins) keep eleven bits of their fraction. Sources and scores are exact, so that the
lexicon has the key that it had.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.table import COMPACT_KEY, Lexicon
from tokalign_lab.files import atomic_file
from tokalign_lab.token_list import TokenList

_KEPT_BITS = 11  # of the 23 of a float32's fraction: an error of at most 1 in 4,000
_ROUNDED = ("margin", "candidate_scores", "weights", "mean_weight", "output_weights", "output_mean_weight")
_FROM_TOKENS = ("target_id", "source_token", "target_token")
_SIDES = ("source", "target")


def save_compact(lexicon: Lexicon, path: Path, tokens: tuple[str, str]) -> None:
    """Write a lexicon small; `Lexicon.load` reads it.

    Parameters
    ----------
    lexicon
        The lexicon.
    path
        A `.parquet` file; it appears whole or not at all.
    tokens
        Where `token_list.save_tokens` has put the tokens of source and target, as paths from the file's folder.
    """
    table = lexicon.table.drop(columns=list(_FROM_TOKENS))
    same_output = lexicon.has_output and _equal_lists(table["sources"], table["output_sources"])
    if same_output:
        table = table.drop(columns="output_sources")
    told = {"provenance": lexicon.provenance, "tokens": dict(zip(_SIDES, tokens, strict=True)), "output": same_output}
    columns = {str(name): _column(str(name), table[name]) for name in table}
    reverse = lexicon.reverse.drop(columns="source_id")
    inside = io.BytesIO()
    _write(pa.table({str(name): _column(str(name), reverse[name]) for name in reverse}), inside)
    metadata = {COMPACT_KEY: json.dumps(told, ensure_ascii=False).encode(), b"reverse": inside.getvalue()}
    with atomic_file(path) as temporary:
        _write(pa.table(columns).replace_schema_metadata(metadata), temporary)


def load_compact(table: pa.Table, folder: Path) -> Lexicon:
    """Make a lexicon of what `save_compact` wrote.

    Parameters
    ----------
    table
        The file's content, with its metadata.
    folder
        The folder that the file lies in.

    Raises
    ------
    InputError
        If the lists of tokens are not where they were.
    """
    told = json.loads(table.schema.metadata[COMPACT_KEY])
    source, target = (TokenList(folder / told["tokens"][side]) for side in _SIDES)
    frame = table.replace_schema_metadata(None).to_pandas()
    frame.insert(0, "target_id", np.arange(len(frame), dtype=np.int32))
    frame["source_token"] = [source.raw_token(i) if i >= 0 else "" for i in frame["source_id"].tolist()]
    frame["target_token"] = [target.raw_token(i) for i in range(len(frame))]
    frame["origin"] = frame["origin"].astype(str)
    if told["output"]:
        frame["output_sources"] = frame["sources"]
    reverse = pq.read_table(io.BytesIO(table.schema.metadata[b"reverse"])).to_pandas()
    reverse["origin"] = reverse["origin"].astype(str)
    reverse.insert(0, "source_id", np.arange(len(reverse), dtype=np.int32))
    lexicon = Lexicon(frame, reverse, told["provenance"])
    lexicon.vocabularies = (source, target)
    return lexicon


def _column(name: str, values: pd.Series[Any]) -> pa.Array:
    lists = name in ("candidate_ids", "candidate_scores", "sources", "weights", "output_sources", "output_weights")
    if lists:
        return pa.array([_rounded(one) if name in _ROUNDED else one for one in values])
    if name == "origin":
        return pa.array(values.astype(str)).dictionary_encode()
    if name == "score":
        return pa.array(values.to_numpy(np.float32))
    if name in _ROUNDED:
        return pa.array(_rounded(values.to_numpy(np.float32)))
    return pa.array(values.to_numpy(np.int64 if name.endswith("count") else np.int32))


def _write(table: pa.Table, to: Any) -> None:
    """Bytes of a number go into streams of their own, where the zeros that rounding leaves cost nothing."""
    written = [name for name in table.column_names if name == "origin"]
    pq.write_table(
        table, to, compression="zstd", compression_level=19, use_dictionary=written, write_statistics=False,
        use_byte_stream_split=[_leaf(field) for field in table.schema if field.name not in written],
    )  # fmt: skip


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """Nearest float32 with `_KEPT_BITS` bits of fraction; what is not finite stays."""
    drop = 23 - _KEPT_BITS
    exact = np.asarray(values, np.float32)
    bits = exact.view(np.uint32) + np.uint32(1 << (drop - 1))
    near = (bits & np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))).view(np.float32)
    return np.where(np.isfinite(exact), near, exact).astype(np.float32)


def _equal_lists(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
