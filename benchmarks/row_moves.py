"""Which rows does tuning change most? By origin of the row and by frequency of its token.

    tokalign-lab gallery record --work gallery-runs --out gallery
    python benchmarks/row_moves.py --runs gallery-runs --out benchmarks/results/row_moves.jsonl

TokAlign++ (section 6.3) shows that the rows of identical tokens, and of tokens that share a suffix with their source,
change least. This reads a rearranged model, the same model after tuning, and the lexicon of the first. The change of a
row is the norm of the difference divided by its norm before. A more frequent token gets more gradient, so classes are
compared within a band of frequency. The classes are: identical; matched by vectors, ending in the same bytes as its
best source (at least three, or all bytes of the shorter token); matched by vectors otherwise. Tokens with rows from
pieces are too rare to be compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import report

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.evaluation.interval import of_mean
from tokalign_lab.model.load import load_model
from tokalign_lab.vocabulary import Vocabulary

BANDS = ((10, 30), (30, 100), (100, 1000))  # occurrences in the text of the alignment
SUFFIX = 3  # bytes
FEWEST = 10  # classes with fewer rows are not reported


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--runs", type=Path, required=True, help="the --work folder of `gallery record`")
    options.add_argument("--tuned", default="recorded-adapt-papers", help="name of the tuning run in it")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    lexicon = Lexicon.load(given.runs / "recorded-align-anchored" / "alignment" / "lexicon.parquet")
    source, target = (load_vocabulary(lexicon.provenance[side]["name"]) for side in ("source", "target"))
    models = [
        load_model(str(given.runs / name / "model"), "cpu") for name in ("recorded-rearrange-anchored", given.tuned)
    ]
    classes = classes_of(lexicon, source, target)
    counts = lexicon.table["target_count"].to_numpy()
    tables = []
    for name, matrix in (("Input rows", "get_input_embeddings"), ("Output rows", "get_output_embeddings")):
        before, after = (getattr(model, matrix)().weight.detach() for model in models)
        moved = moves(before, after)[: len(classes)]  # without the control tokens of the source
        tables.append((name, rows_of(moved, classes, counts)))
    notes = [
        f"{given.tuned} compared with recorded-rearrange-anchored: SmolLM2-135M to sp32k by `anchored`.",
        "The move of a row is the length of its change over its length before, in per cent: mean with 95 % interval, "
        "and n. Bands are uses in the text that the lexicon was made from.",
        f"Classes with fewer than {FEWEST} rows in a band are left out.",
    ]
    report("Which rows tuning moves", tables, notes, given.out)


def moves(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    """Return the relative change of each row, float (vocab_size,), in per cent."""
    length = before.norm(dim=1).clamp(min=1e-9)
    return (100 * (after - before).norm(dim=1) / length).numpy()


def classes_of(lexicon: Lexicon, source: Vocabulary, target: Vocabulary) -> np.ndarray:
    """Return the class of each target token, as a string."""
    found = lexicon.table["origin"].to_numpy(dtype=str).astype(object)
    for i in np.flatnonzero(found == "aligned").tolist():
        ours, theirs = target.token_bytes[i], source.token_bytes[int(lexicon.source_of()[i])]
        n = min(SUFFIX, len(ours or b""), len(theirs or b""))
        same = n > 0 and ours is not None and theirs is not None and ours[-n:] == theirs[-n:]
        found[i] = "aligned, same suffix" if same else "aligned, other suffix"
    return found


def rows_of(moved: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> list[dict[str, Any]]:
    """Return one line per class, with one column per band."""
    lines = []
    for name in ("identical", "aligned, same suffix", "aligned, other suffix"):
        line: dict[str, Any] = {"rows": name}
        for low, high in BANDS:
            mine = moved[(classes == name) & (counts >= low) & (counts < high)]
            line[f"used {low} to {high - 1} times"] = str(of_mean(mine)) if len(mine) >= FEWEST else "–"
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
