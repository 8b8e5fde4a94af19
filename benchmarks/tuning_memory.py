"""Memory of tuning: the estimate before it begins, compared with the peak memory of the process.

    python benchmarks/tuning_memory.py --out benchmarks/results/tuning_memory.jsonl

Each size is tuned for two steps on a CPU, in a separate process, on two megabytes of the packaged text.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import limit_threads, measured, parser, report

MODEL = "smollm2-135m"
SIZES: list[dict[str, Any]] = [
    {"batch_size": 4, "sequence_length": 128},
    {"batch_size": 8, "sequence_length": 256},
    {"batch_size": 2, "sequence_length": 1024, "gradient_checkpointing": True},
]


def main() -> None:
    options = parser(__doc__)
    chosen = options.parse_args()
    limit_threads(chosen.threads)
    rows = []
    for size in SIZES[:1] if chosen.quick else SIZES:
        found = measured(tune, size)
        rows.append(
            {
                "batch size": size["batch_size"],
                "sequence length": size["sequence_length"],
                "checkpointing": "yes" if size.get("gradient_checkpointing") else "no",
                "estimated GB": found["estimated"],
                "measured GB": found["peak"],
                "ratio": found["estimated"] / found["peak"],
            }
        )
    report("Memory of tuning", [(MODEL, rows)], ["The estimate promises ratios between 0.5 and 2."], chosen.out)


def tune(size: dict[str, Any]) -> dict[str, Any]:
    from tokalign_lab.adaptation.memory import GB, ModelSize, tuning_memory
    from tokalign_lab.adaptation.settings import AdaptSettings
    from tokalign_lab.adaptation.train import adapt

    settings = AdaptSettings.from_dict(
        {"steps": 2, "evaluate_every": 0, "evaluate_bytes": 500, "prompts": [], "patience": 0, **size}
    )
    with tempfile.TemporaryDirectory() as folder:
        adapt(MODEL, ["default"], settings, Path(folder), emit=lambda event: None, max_bytes=2_000_000, device="cpu")
    return {"estimated": tuning_memory(ModelSize.of(MODEL), settings).bytes / GB}


if __name__ == "__main__":
    main()
