"""The lexicon: for each target token, the source tokens of its row, and their origin.

The table has one row per target token. `source_id` is the single best source (for BLEU-1, the maps and upstream's
JSON); `sources`, `weights` and `mean_weight` give the new embedding row:

    row = sum over i of weights[i] * source row[sources[i]]  +  mean_weight * mean of the source rows

and `origin` names the method. A recipe may make the row of the output head differently from the row of the input
embedding; then there are three more columns. The table is a pandas DataFrame, stored as a Parquet file that any program
can read. Its provenance identifies the tokenizers, so that it is never applied to others.
"""

from __future__ import annotations

import io
import json
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.alignment.lexicon.checks import check_values, content_hash
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.errors import InputError, first_line
from tokalign_lab.files import atomic_file, hash_of
from tokalign_lab.provenance import installed_versions, now
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ORIGINS = {
    "identical": "the source has a token of the same bytes",
    "role": "a special token of the same role, or of the same string",
    "aligned": "found by the token vectors",
    "pieces": "the mean of the source tokens that spell it",
    "mean": "the mean of all source rows",
    "random": "a random row, from a normal distribution of the source rows, dimension by dimension",
    "multivariate": "a random row, from a normal distribution with the source rows' full covariance",
    "permuted": "the row of a source token drawn at random",
    "edited": "chosen by the user",
    "hole": "an id that no token has",
}
_PROVENANCE_KEY = b"tokalign_lab.provenance"
_REVERSE_KEY = b"tokalign_lab.reverse"
_HASH_KEY = b"tokalign_lab.sha256"


class Lexicon:
    """A lexicon.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per target id, in order, with the columns `target_id`, `source_id` (int32, -1: none), `score`, `margin`
        (float32, NaN: none; margin is best minus second best), `candidate_ids`, `candidate_scores`, `origin`
        (see `ORIGINS`), `sources`, `weights`, `mean_weight` (the terms of the row; no sources for mean and random rows
        and for holes), `source_count`, `target_count` (int64, occurrences in the text of the alignment),
        `source_token`, `target_token`. If output rows differ: `output_sources`, `output_weights` and
        `output_mean_weight`.
    reverse : pandas.DataFrame
        One row per source id: `source_id`, `target_id` (-1: none), `score`, `origin`; the source-to-target direction.
    provenance : dict
        Names, fingerprints and sizes of both tokenizers, recipe, parameters, seed, text hash and bytes, versions.
    vocabularies : tuple of Vocabulary, or None
        Source and target without their tokenizers, if their tokens are stored with the lexicon: in each side of
        `provenance`, "tokens" is then the path of a token table, relative to the lexicon's folder.
    """

    def __init__(self, table: pd.DataFrame, reverse: pd.DataFrame, provenance: dict[str, Any]) -> None:
        self.table = table
        self.reverse = reverse
        self.provenance = provenance
        self.vocabularies: tuple[Vocabulary, Vocabulary] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        names = self.provenance["source"]["name"], self.provenance["target"]["name"]
        return f"Lexicon({names[0]} -> {names[1]}, {len(self):,} tokens, recipe={self.provenance['recipe']!r})"

    def source_of(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the best source id of each target id, shape (target size,), int32, -1 for none."""
        return self.table["source_id"].to_numpy(np.int32)

    def target_of(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the best target id of each source id, shape (source size,), int32, -1 for none."""
        return self.reverse["target_id"].to_numpy(np.int32)

    @property
    def has_output(self) -> bool:
        """Whether rows of the output head differ from those of the input embedding."""
        return "output_sources" in self.table

    @property
    def key(self) -> str:
        """Hash, as hex, of tokenizers, recipe, text, sources and scores, without the date and measured quality.

        The same alignment has the same key when it is repeated.
        """
        table = self.table
        made = {name: self.provenance.get(name) for name in ("recipe", "parameters", "seed", "text_hash", "edits")}
        return hash_of(
            [
                *(str(self.provenance[side]["fingerprint"]).encode() for side in ("source", "target")),
                json.dumps(made, sort_keys=True).encode(),
                self.source_of().tobytes(),
                table["score"].to_numpy(np.float32).tobytes(),
                "\n".join(table["origin"].tolist()).encode(),
            ]
        )

    def origin_counts(self) -> dict[str, int]:
        """Count the rows of each origin, the most frequent first."""
        return {str(origin): int(n) for origin, n in self.table["origin"].value_counts().items()}

    def check(self, source: Vocabulary | None = None, target: Vocabulary | None = None) -> None:
        """Check that the lexicon belongs to these tokenizers. Raises InputError if a fingerprint differs."""
        for side, vocabulary in (("source", source), ("target", target)):
            made_for = self.provenance[side]
            if vocabulary is not None and vocabulary.fingerprint != made_for["fingerprint"]:
                raise InputError(
                    f"This lexicon was made for the {side} tokenizer '{made_for['name']}' ({made_for['size']:,} "
                    f"tokens), not for '{vocabulary.name}' ({vocabulary.size:,} tokens); align this pair again."
                )

    def save(self, path: Path | str) -> None:
        """Write one Parquet file with the reverse direction, the provenance and a hash in its metadata.

        Raises InputError if the suffix is not ".parquet".
        """
        import pyarrow as pa

        path = Path(path)
        if path.suffix != ".parquet":
            raise InputError(f"A lexicon is saved as a .parquet file, not as '{path.name}'; use that suffix.")
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        inside = io.BytesIO()
        _write_parquet(pa.Table.from_pandas(self.reverse, preserve_index=False), inside)
        reverse = inside.getvalue()
        provenance = json.dumps(self.provenance, ensure_ascii=False).encode()
        metadata = {
            _PROVENANCE_KEY: provenance,
            _REVERSE_KEY: reverse,
            _HASH_KEY: content_hash(table, reverse, provenance).encode(),
        }
        with atomic_file(path) as temporary:
            _write_parquet(table, temporary, metadata)

    @classmethod
    def load(cls, path: Path | str) -> Lexicon:
        """Read a lexicon that `save` wrote.

        Raises InputError if there is no such file, it is not a lexicon, or it is damaged: a value that no recipe makes
        (an id that does not exist, a weight that is not finite), or content that does not match its hash.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.is_file():
            raise InputError(f"There is no lexicon at '{path}'; make one with `tokalign-lab align`.")
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
            reason = first_line(error)
            raise InputError(f"'{path}' is not a readable Parquet file ({reason}); align the pair again.") from error
        try:
            lexicon = cls._of(table, path)
            check_values(lexicon.table, table, lexicon.reverse, lexicon.provenance, ORIGINS)
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise InputError(f"The lexicon '{path}' is damaged ({first_line(error)}); align the pair again.") from error
        return lexicon

    @classmethod
    def _of(cls, table: pa.Table, path: Path) -> Lexicon:
        """Make a lexicon from the content of a file."""
        import pandas as pd

        metadata = table.schema.metadata or {}
        if _PROVENANCE_KEY not in metadata:
            raise InputError(f"'{path}' is a Parquet file but no lexicon of tokalign-lab (it has no provenance).")
        if "mean_weight" not in table.column_names:
            raise InputError(f"'{path}' is a lexicon of an older tokalign-lab; align the pair again.")
        reverse, provenance = metadata[_REVERSE_KEY], metadata[_PROVENANCE_KEY]
        expected = metadata.get(_HASH_KEY)  # earlier versions wrote none
        if expected is not None and expected.decode() != content_hash(table, reverse, provenance):
            raise ValueError("its content does not match its checksum")
        read = pd.read_parquet if reverse.startswith(b"PAR1") else pd.read_json  # earlier versions wrote JSON
        lexicon = cls(table.to_pandas(), read(io.BytesIO(reverse)), json.loads(provenance))
        lexicon.vocabularies = _stored_vocabularies(lexicon.provenance, path.parent)
        return lexicon

    @classmethod
    def from_json(cls, path: Path | str, source: Vocabulary, target: Vocabulary) -> Lexicon:
        """Read upstream's `align_matrix.json` for a known pair; every row is a copy of one source row.

        Raises InputError if the file is not such a map, or has ids that the tokenizers lack.
        """
        path = Path(path)
        try:
            pairs = {int(t): operator.index(s) for t, s in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise InputError(f"'{path}' is not a JSON map from target id to source id ({error}).") from error
        rows = LexiconRows(target.size)
        rows.fill(np.flatnonzero(~target.is_hole), "mean")
        for target_id, source_id in sorted(pairs.items()):
            if not (0 <= target_id < target.size and 0 <= source_id < source.size):
                raise InputError(
                    f"'{path}' maps target id {target_id} to source id {source_id}, but '{target.name}' has ids below "
                    f"{target.size} and '{source.name}' below {source.size}; is it for another pair?"
                )
            rows.copy(target_id, source_id, "aligned")
        table = rows.to_table(source, target, np.zeros(source.size), np.zeros(target.size))
        provenance = make_provenance(source, target, recipe="imported", parameters={"file": path.name}, seed=0)
        return cls(table, reverse_of(rows, source.size), provenance)


def _write_parquet(table: pa.Table, to: Any, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Write a table in half of Parquet's usual size: the n-th bytes of all numbers are stored together."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    encodings = {}
    for field in table.schema:
        name = f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
        is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        encodings[name] = "DELTA_LENGTH_BYTE_ARRAY" if is_text else "BYTE_STREAM_SPLIT"
    del encodings["origin"]  # it has few distinct values, so a dictionary is smaller
    # Arrow would store its schema, and the metadata in it a second time.
    small = {"compression": "brotli", "compression_level": 8, "write_statistics": False, "store_schema": False}
    with pq.ParquetWriter(to, table.schema, use_dictionary=["origin"], column_encoding=encodings, **small) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**(table.schema.metadata or {}), **(metadata or {})})


def _stored_vocabularies(provenance: dict[str, Any], folder: Path) -> tuple[Vocabulary, Vocabulary] | None:
    source, target = (
        Vocabulary.from_tokens(folder / side["tokens"], side["name"]) if "tokens" in side else None
        for side in (provenance["source"], provenance["target"])
    )
    return None if source is None or target is None else (source, target)


def make_provenance(
    source: Vocabulary,
    target: Vocabulary,
    *,
    recipe: str,
    parameters: dict[str, Any],
    seed: int,
    text_hash: str = "",
    text_bytes: int = 0,
) -> dict[str, Any]:
    """Describe how a lexicon was made, as JSON values."""
    return {
        "source": {"name": source.name, "fingerprint": source.fingerprint, "size": source.size},
        "target": {"name": target.name, "fingerprint": target.fingerprint, "size": target.size},
        "recipe": recipe,
        "parameters": parameters,
        "seed": seed,
        "text_hash": text_hash,
        "text_bytes": text_bytes,
        "versions": installed_versions(),
        "created": now(),
    }
