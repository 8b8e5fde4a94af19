"""Which settings of the anchored vectors find most held-out shared tokens? P@1, with one setting changed at a time.

    python benchmarks/anchored_settings.py [--train-bytes 3000000] [--seeds 2] [--out FILE]

A tenth of the shared tokens is held out (`evaluation/held_out.py`); P@1 is the share of these whose true partner is the
best candidate by CSLS. Each line changes one setting from the defaults. "minus the defaults" is the mean difference
over pairs and seeds on the same held-out tokens, with a 95 % bootstrap interval. Shifted PMI (Levy, Goldberg, Dagan
2015, section 3.1) subtracts log k from every value before non-positive values are dropped. It is not a setting of the
lab, because it lowers P@1 here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from harness import Table, report
from scipy.sparse import csr_array

from tokalign_lab import catalog
from tokalign_lab.alignment.methods import spaces
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import read_documents, split_documents
from tokalign_lab.evaluation.held_out import held_out_precision
from tokalign_lab.evaluation.interval import of_mean
from tokalign_lab.vectors import anchored
from tokalign_lab.vectors.anchored_settings import AnchoredSettings

PAIRS = (("smollm2-135m", "sp32k"), ("smollm2-135m", "qwen2"), ("gemma3", "pythia"))
CHANGES: dict[str, list[Any]] = {
    "window": [2, 3, 10, 15],
    "anchors": [1024, 2048, 8192],
    "smoothing": [1.0, 0.5],
    "power": [0.0, 0.5, 1.0],
    "sides_apart": [False],
    "dimensions": [100, 200, 500],
    "min_count": [2, 10],
    "passes": [1, 6],
}
SHIFTS = (2, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--train-bytes", type=int, default=3_000_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    train = split_documents(read_documents(["default"], max_bytes=options.train_bytes))[0]
    pairs = {
        f"{source} → {target}": tokenize_pair(catalog.load_vocabulary(source), catalog.load_vocabulary(target), train)
        for source, target in PAIRS
    }
    rows, usual = [], None
    for name, settings, shift in variants():
        started = time.perf_counter()
        found = {
            pair: [precision(of, settings, shift, seed) for seed in range(options.seeds)] for pair, of in pairs.items()
        }
        values = np.concatenate(list(found.values()))
        usual = values if usual is None else usual
        apart = of_mean(values - usual)
        row: dict[str, Any] = {"setting": name, **{pair: float(np.mean(of)) for pair, of in found.items()}}
        row["mean"] = float(values.mean())
        row["minus the defaults"] = f"{apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"
        row["seconds"] = (time.perf_counter() - started) / len(values)
        rows.append(row)
        print(row, flush=True)
    tables: list[Table] = [
        (f"P@1 of held-out shared tokens, {options.seeds} seeds, {options.train_bytes:,} bytes of text", rows)
    ]
    notes = [f"Defaults: {AnchoredSettings()}.", "Seconds are of one alignment of the shared tokens, search included."]
    report("Settings of the anchored vectors", tables, notes, options.out)


def variants() -> list[tuple[str, AnchoredSettings, int]]:
    """Return name, settings and shift of every line, the defaults first."""
    usual = AnchoredSettings()
    changed = [(f"{name} {value}", replace(usual, **{name: value}), 1) for name in CHANGES for value in CHANGES[name]]
    return [("defaults", usual, 1), *changed, *((f"shifted by log {k}", usual, k) for k in SHIFTS)]


def precision(pair: TokenizedPair, settings: AnchoredSettings, shift: int, seed: int) -> float:
    """Return P@1 with these settings instead of the defaults."""
    shifted: AbstractContextManager[Any] = nullcontext()
    if shift > 1:
        shifted = patch.object(anchored, "positive_pmi", less(anchored.positive_pmi, shift))
    with patch.object(spaces, "AnchoredSettings", lambda: settings), shifted:
        return held_out_precision(pair, "anchored", seed).p_at_1


def less(pmi: Callable[..., csr_array], k: int) -> Callable[..., csr_array]:
    """Return a function that computes positive PMI minus log k, without non-positive values."""

    def shifted(counts: csr_array, smoothing: float) -> csr_array:
        made = pmi(counts, smoothing)
        made.data = np.maximum(made.data - np.float32(np.log(k)), 0)
        made.eliminate_zeros()
        return made

    return shifted


if __name__ == "__main__":
    main()
