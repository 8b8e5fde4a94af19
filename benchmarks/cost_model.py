"""The cost of a swap beyond the measured sizes, extrapolated from `benchmarks/results`.

    python benchmarks/cost_model.py

This measures nothing itself. The tables separate measured from extrapolated values. All times are for the machine of
the measurements, two cores of an AMD EPYC.

- Text (growth.jsonl, 1 to 100 MB): a line through 10 and 100 MB. The line through 1 and 10 MB is compared with the
  measurement at 100 MB, to show its error. The rate of tokenizing is that of `estimate.py`, measured at 3.8 MB.
- Tuning (tuning_speed.jsonl, 0.12 and 0.26 billion multiplied weights, stage 2): 6 operations per token for each weight
  in a matrix product (all but the input rows), at the mean measured rate.
- Rearranging shard by shard: the rate per GB of `estimate.py`, at 2 bytes per weight.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from harness import parser, read_lines, report

from tokalign_lab.estimate import REARRANGE_S_PER_GB, TOKENISE_S_PER_MB

RESULTS = Path(__file__).parent / "results"
SIZES_MB = {"1 GB": 1e3, "10 GB": 1e4, "1 TB": 1e6}
MODELS = {"1B": 1e9, "7B": 7e9, "70B": 70e9}
TOKENS = 10e6
ID_BYTES = 4
BODY, WIDTH = 106e6, 576  # SmolLM2-135M: weights outside both matrices, and their width
ROWS = {"sp32k": 32_000, "gemma3": 262_144}


def rows_of(name: str, table: str) -> list[dict[str, Any]]:
    """Read the latest rows of a table whose title begins with `table`."""
    lines = read_lines(RESULTS / f"{name}.jsonl")
    return [line for line in lines if line.get("table", "").startswith(table) and "earlier" not in line]


def text_costs() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the measurements, with a prediction for the largest text by the other two, and the costs of more text."""
    found = [row for row in rows_of("growth", "Text") if row["megabytes"]]
    megabytes = [row["megabytes"] for row in found]
    values = {name: [row[name] for row in found] for name in ("anchored s", "GloVe s", "tokens")}
    lines = {name: np.polyfit(megabytes[1:], of[1:], 1) for name, of in values.items()}
    measured: list[dict[str, Any]] = [
        {"text_MB": row["megabytes"], "anchored_s": row["anchored s"], "GloVe_iteration_s": row["GloVe s"]}
        for row in found
    ]
    predicted = [
        float(np.polyval(np.polyfit(megabytes[:2], values[name][:2], 1), megabytes[2])) for name in list(values)[:2]
    ]
    measured.append({"text_MB": "100, by the other two", "anchored_s": predicted[0], "GloVe_iteration_s": predicted[1]})
    more = [
        {
            "text": text,
            "tokenise_h": megabytes * TOKENISE_S_PER_MB / 3600,
            "anchored_h": float(np.polyval(lines["anchored s"], megabytes)) / 3600,
            "GloVe_iteration_h": float(np.polyval(lines["GloVe s"], megabytes)) / 3600,
            "ids_on_disk_GB": ID_BYTES * float(np.polyval(lines["tokens"], megabytes)) / 1e9,
        }
        for text, megabytes in SIZES_MB.items()
    ]
    return measured, more


def model_costs() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the measured rates of tuning for two vocabularies, and the extrapolated times of larger models."""
    found = [row for row in rows_of("tuning_speed", "Tokens per second") if (row["stage"], row["loop"]) == (2, "ours")]
    measured = []
    for row in found:
        weights = BODY + ROWS[row["target"]] * WIDTH
        rate = 6 * weights * row["tokens per second"] / 1e9
        measured.append(
            {"target": row["target"], "weights_multiplied_M": weights / 1e6, "tokens_per_s": row["tokens per second"]}
            | {"GFLOP_per_s": rate}
        )
    rate = float(np.mean([row["GFLOP_per_s"] for row in measured]))
    more = [
        {
            "model": name,
            "EFLOP_of_10_M_tokens": 6 * weights * TOKENS / 1e18,
            "days_on_this_machine": 6 * weights * TOKENS / rate / 1e9 / 86_400,
            "rearrange_s": 2 * weights / 1e9 * REARRANGE_S_PER_GB,
        }
        for name, weights in MODELS.items()
    ]
    return measured, more


def main() -> None:
    options = parser(__doc__).parse_args()
    (text, more_text), (tuning, more_tuning) = text_costs(), model_costs()
    tables = [
        ("Measured: text", text), ("Extrapolated: text", more_text),
        ("Measured: tuning", tuning), ("Extrapolated: models", more_tuning),
    ]  # fmt: skip
    report("Cost model", tables, [], options.out)


if __name__ == "__main__":
    main()
