"""Measure how much calibration loses by reading less text, and how long it takes.

    tokalign-lab align smollm2-135m sp32k --text default --max-bytes 1000000 --out sp32k.parquet
    tokalign-lab rearrange smollm2-135m sp32k.parquet --out converted
    python benchmarks/calibrate_precision.py converted --out benchmarks/results/calibrate_precision.jsonl

Fits the shifts of a rearranged model on the first tokens of a text, as `calibrate` does, and measures bits per byte on
other text with each fit. Seconds are CPU seconds. The hidden states are computed once for the longest text; a shorter
text is charged in proportion to its tokens. Each fit is a line of the file `--out`; a stopped run continues with the
next fit.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from harness import Kept, Result, limit_threads, parser, report

from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.documents import excerpts, read_parts
from tokalign_lab.evaluation.bits_per_byte import head_inputs
from tokalign_lab.model.calibrate import MAX_TOKENS, fitted_shift, nats_per_token, steady_direction
from tokalign_lab.model.load import load_model
from tokalign_lab.settings.kinds import TextSettings

HELD_OUT_TOKENS, QUICK_HELD_OUT_TOKENS = 4000, 300


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(threads=1)
    options.add_argument("models", nargs="+", help="folders that `rearrange` wrote, without --calibrate")
    options.add_argument(
        "--tokens", default="2500,5000,10000,20000", help="tokens to read; the loss is relative to the last number"
    )
    given = options.parse_args()
    limit_threads(given.threads)
    torch.set_num_threads(given.threads)
    sizes = [150, 300] if given.quick else [int(size) for size in given.tokens.split(",")]
    held_out = QUICK_HELD_OUT_TOKENS if given.quick else HELD_OUT_TOKENS
    kept = Kept(given, read=sizes[-1], held_out=held_out)
    tables = []
    for name in given.models:
        fits = [
            kept(partial(measure, name, size, sizes[-1], held_out), model=name, tokens=size) for size in (0, *sizes)
        ]
        tables.append((Path(name).name, [row_of(fit, fits[-1]) for fit in fits]))
    notes = [
        f"`calibrate` reads {MAX_TOKENS:,} tokens. Bits per byte are of {held_out:,} held-out tokens of the text "
        "`default`; the loss is against the last row.",
        f"Seconds are CPU seconds with {given.threads} thread(s): reading the text with the model, and fitting.",
    ]
    report("How much text calibration needs", tables, notes, given.out)


def row_of(fit: Result, last: Result) -> dict[str, Any]:
    return {
        "tokens_read": fit["tokens"],
        "bits_per_byte": fit["bits_per_byte"],
        "reading_(s)": round(fit["reading"]),
        "fitting_(s)": round(fit["fitting"]),
        "lost": round(fit["bits_per_byte"] - last["bits_per_byte"], 4),
    }


class Reading:
    """The inputs of the head for the text to fit on and for held-out text.

    Parameters
    ----------
    name
        Name of the model, as for `load_model`.
    most, held_out
        Number of tokens to fit on, and of held-out tokens to measure.
    """

    def __init__(self, name: str, most: int, held_out: int) -> None:
        vocabulary, model = load_vocabulary(name), load_model(name, "cpu", "auto")
        train, others = read_parts(TextSettings.from_dict({"text": ["default"], "max_bytes": 6_000_000}))
        begin = time.process_time()
        self.states, self.ids, _ = head_inputs(model, vocabulary, excerpts(train, 8 * most, seed=0), most)
        self.seconds_per_token = (time.process_time() - begin) / len(self.ids)
        self._others, self._other_ids, _ = head_inputs(
            model, vocabulary, excerpts(others, 8 * held_out, seed=0), held_out
        )
        self._bytes = sum(len(vocabulary.token_bytes[token_id] or b"") for token_id in self._other_ids.tolist())
        self.weight = model.get_output_embeddings().weight.detach().float()
        self.none = torch.zeros(len(self.weight))
        self.free = torch.ones(len(self.weight), dtype=torch.bool)
        self.free[: vocabulary.size] = ~torch.from_numpy(vocabulary.is_control)

    def bits(self, matrix: torch.Tensor) -> float:
        """Return bits per byte of the held-out text with this head."""
        nats = nats_per_token(self._others, self._other_ids, matrix, self.none)
        return nats * len(self._other_ids) / math.log(2) / self._bytes


reading_of = lru_cache(maxsize=1)(Reading)


def measure(name: str, size: int, most: int, held_out: int) -> Result:
    """Measure one model with a fit on `size` tokens; 0: without a fit."""
    read = reading_of(name, most, held_out)
    if not size:
        return {"bits_per_byte": read.bits(read.weight), "reading": 0.0, "fitting": 0.0}
    begin = time.process_time()
    direction, _ = steady_direction(read.states[:size])
    seen = torch.bincount(read.ids[:size], minlength=len(read.weight)).float()
    shift = fitted_shift(read.states[:size], seen, read.weight, read.none, read.free)
    fitting = time.process_time() - begin
    bits = read.bits(read.weight + shift[:, None] * direction)
    return {"bits_per_byte": bits, "reading": read.seconds_per_token * size, "fitting": fitting}


if __name__ == "__main__":
    main()
