"""Export a lexicon, or some of its rows, to a file for other programs.

`.parquet` has every column, `.csv` the columns for a spreadsheet, and `.json` is upstream's `align_matrix.json`,
{target id: source id}. The exports have no provenance and `Lexicon.load` refuses them, because a table of some rows
must not be applied to a model; `Lexicon.save` writes a lexicon.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import COLUMNS
from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_file, write_json
from tokalign_lab.vocabulary import Vocabulary

FORMATS = {".csv": "CSV", ".parquet": "Parquet", ".json": "upstream's JSON"}


def export_rows(
    lexicon: Lexicon,
    path: Path | str,
    rows: NDArray[np.int64] | None = None,
    source: Vocabulary | None = None,
    target: Vocabulary | None = None,
) -> Path:
    """Write rows of a lexicon in the format of the file's suffix (`FORMATS`); return the path.

    Raises `InputError` if the suffix is none of `FORMATS`.

    Parameters
    ----------
    lexicon : the lexicon
    path : the file, written atomically
    rows : int64 (n,), target ids in the order of the file; None for all
    source, target : the vocabularies; with them, CSV has the columns `target_label` and `source_label` with readable
        tokens
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        known = ", ".join(f"{ending} ({name})" for ending, name in FORMATS.items())
        raise InputError(f"A lexicon cannot be exported as '{path.name}'; end the name in {known}.")
    table = lexicon.table if rows is None else lexicon.table.iloc[rows]
    if path.suffix == ".json":
        pairs = zip(table["target_id"].tolist(), table["source_id"].tolist(), strict=True)
        write_json(path, {str(target_id): source_id for target_id, source_id in pairs if source_id >= 0})
        return path
    with atomic_file(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            shown = table[list(COLUMNS)]
            for side, vocabulary in (("target", target), ("source", source)):
                if vocabulary is not None:
                    labels = [vocabulary.label(i) if i >= 0 else "" for i in table[f"{side}_id"].tolist()]
                    shown = shown.assign(**{f"{side}_label": labels})
            shown.to_csv(temporary, index=False, encoding="utf-8-sig")  # the BOM makes spreadsheets read UTF-8
    return path
