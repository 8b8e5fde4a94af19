"""How much calibration loses by reading less text, and how long it takes.

    tokalign-lab align smollm2-135m sp32k --text default --max-bytes 1000000 --out sp32k.parquet
    tokalign-lab rearrange smollm2-135m sp32k.parquet --out sp32k
    python benchmarks/calibrate_precision.py sp32k --out benchmarks/results/calibrate_precision.jsonl

Fits the shifts of a rearranged model on the first tokens of a text, as `calibrate` does, and measures bits per byte of
other text with each fit. Seconds are CPU seconds of one thread. The states are computed once; their time is given in
proportion to the tokens read.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from harness import report

from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.documents import excerpts, read_parts
from tokalign_lab.evaluation.bits_per_byte import head_inputs
from tokalign_lab.model.calibrate import MAX_TOKENS, fitted_shift, nats_per_token, steady_direction
from tokalign_lab.model.load import load_model
from tokalign_lab.settings.kinds import TextSettings

HELD_OUT_TOKENS = 4000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("models", nargs="+", help="folders that `rearrange` wrote, without --calibrate")
    options.add_argument(
        "--tokens", default="2500,5000,10000,20000", help="how many are read; the loss is against the last"
    )
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    sizes = [int(size) for size in given.tokens.split(",")]
    tables = [(Path(name).name, rows_of(name, sizes)) for name in given.models]
    notes = [
        f"`calibrate` reads {MAX_TOKENS:,} tokens. Bits per byte are of {HELD_OUT_TOKENS:,} held-out tokens of the "
        "text `default`; the loss is against the last row.",
        "Seconds are CPU seconds of one thread: reading the text with the model, and fitting.",
    ]
    report("How much text calibration needs", tables, notes, given.out)


def rows_of(name: str, sizes: list[int]) -> list[dict[str, object]]:
    """Measure one model, uncalibrated and with each number of tokens."""
    vocabulary, model = load_vocabulary(name), load_model(name, "cpu", "auto")
    train, held_out = read_parts(TextSettings.from_dict({"text": ["default"], "max_bytes": 6_000_000}))
    begin = time.process_time()
    states, ids = head_inputs(model, vocabulary, excerpts(train, 8 * sizes[-1], seed=0), sizes[-1])
    reading = (time.process_time() - begin) / len(ids)
    others, other_ids = head_inputs(model, vocabulary, excerpts(held_out, 8 * HELD_OUT_TOKENS, seed=0), HELD_OUT_TOKENS)
    n_bytes = sum(len(vocabulary.token_bytes[token_id] or b"") for token_id in other_ids.tolist())
    weight = model.get_output_embeddings().weight.detach().float()
    none, free = torch.zeros(len(weight)), torch.ones(len(weight), dtype=torch.bool)
    free[: vocabulary.size] = ~torch.from_numpy(vocabulary.is_control)

    def bits(matrix: torch.Tensor) -> float:
        return nats_per_token(others, other_ids, matrix, none) * len(other_ids) / math.log(2) / n_bytes

    rows: list[dict[str, object]] = [{"tokens read": 0, "bits per byte": bits(weight)}]
    for size in sizes:
        begin = time.process_time()
        direction, _ = steady_direction(states[:size])
        shift = fitted_shift(states[:size], ids[:size], weight, none, free)
        fitting = time.process_time() - begin
        row = {"tokens read": size, "bits per byte": bits(weight + shift[:, None] * direction)}
        rows.append({**row, "reading (s)": round(reading * size), "fitting (s)": round(fitting)})
    reference = float(rows[-1]["bits per byte"])  # type: ignore[arg-type]
    return [{**row, "lost": round(float(row["bits per byte"]) - reference, 4)} for row in rows]  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
