"""Which mixture is best for the new rows of `anchored`? Bits per byte right after rearranging, without tuning.

    python benchmarks/mixture_shares.py [--target sp32k] [--bytes 12000] [--out benchmarks/results/mixture_shares.jsonl]

The input row has a share `1 - p` from vectors (ten CSLS candidates) and a share `p` from the mean of the source pieces.
The output row is a mixture of vectors, pieces and first piece; if a token lacks one of these, the mean of all source
rows replaces it. "tied" has the input row in both matrices. Each variant is also measured after calibration
(`model/calibrate.py`). The source is SmolLM2-135M.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from harness import report

from tokalign_lab import catalog
from tokalign_lab.alignment.methods import mixture
from tokalign_lab.alignment.recipes import align
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import excerpts, read_documents, split_documents
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange

THIRDS = (1 / 3, 1 / 3, 1 / 3)
# name, share of pieces in the input row, shares of vectors, pieces and first piece in the output row (None: tied)
VARIANTS: list[tuple[str, float, tuple[float, float, float] | None]] = [
    ("input 3/4 pieces, tied", 0.75, None),
    ("input 3/4 pieces, output thirds (default)", 0.75, THIRDS),
    ("input pieces only, output thirds", 1.0, THIRDS),
    ("input 1/2 pieces, output thirds", 0.5, THIRDS),
    ("output 1/4 vectors, 1/4 pieces, 1/2 first piece", 0.75, (0.25, 0.25, 0.5)),
    ("output 1/2 vectors, 1/2 first piece", 0.75, (0.5, 0.0, 0.5)),
    ("output 1/2 pieces, 1/2 first piece", 0.75, (0.0, 0.5, 0.5)),
    ("output first piece", 0.75, (0.0, 0.0, 1.0)),
    ("output pieces", 0.75, (0.0, 1.0, 0.0)),
    ("output mean row", 0.75, (0.0, 0.0, 0.0)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="sp32k")
    parser.add_argument("--train-bytes", type=int, default=6_000_000)
    parser.add_argument("--bytes", type=int, default=12_000)
    parser.add_argument("--calibrate-tokens", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source, target = catalog.load_vocabulary("smollm2-135m"), catalog.load_vocabulary(options.target)
    train, held_out = split_documents(read_documents(["default"], max_bytes=options.train_bytes))
    pair, model = tokenize_pair(source, target, train), load_model("smollm2-135m")
    passages, reading = excerpts(held_out, options.bytes), excerpts(train, 6 * options.calibrate_tokens, seed=1)
    reference = bits_per_byte(model, source, passages).bits_per_byte
    rows: list[dict[str, Any]] = [{"row": "source, own tokenizer", "bits_per_byte": reference, "calibrated": None}]
    for name, share, output in VARIANTS:
        mixture.PIECES_SHARE = share
        mixture.OUTPUT_SHARES = dict(zip(mixture.OUTPUT_SHARES, output or THIRDS, strict=True))
        converted = rearrange(model, align(pair, "anchored").lexicon, source, target, keep_tied=output is None)
        before = bits_per_byte(converted, target, passages).bits_per_byte
        calibrate(converted, target, reading, options.calibrate_tokens)
        after = bits_per_byte(converted, target, passages).bits_per_byte
        rows.append({"row": name, "bits_per_byte": before, "calibrated": after})
        print(rows[-1], flush=True)
    notes = [f"SmolLM2-135M -> {options.target}, {options.bytes:,} held-out bytes, before any tuning."]
    report("Shares of an `anchored` row", [("Shares of an `anchored` row", rows)], notes, options.out)


if __name__ == "__main__":
    main()
