"""Helpers of the research notebooks: recorded results of a benchmark, and a short tuning run in a temporary folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import tokalign_lab as tl
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.train import adapt
from tokalign_lab.documents import Document
from tokalign_lab.evaluation.document_bits import DocumentBits, document_bits

RESULTS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "results"


def recorded(name: str, command: str) -> list[dict[str, Any]]:
    """Read the measurements of a benchmark with its largest settings, and print their origin.

    Parameters
    ----------
    name
        Name of the file in `benchmarks/results`.
    command
        The command that writes it, from the root of the repository.

    Returns
    -------
    list of dict
        The measurements; empty if nothing is recorded.
    """
    file = RESULTS / name
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    lines = [line for line in lines if "settings" in line]  # the others are tables
    if not lines:
        print(f"Nothing is recorded here yet: `{command}` writes benchmarks/results/{name}.")
        return []
    largest = max((line["settings"] for line in lines), key=lambda settings: settings["steps"] * settings["bytes"])
    chosen = [line for line in lines if line["settings"] == largest]
    seeds = len({line["seed"] for line in chosen})
    print(f"Recorded by `{command}`: {len(chosen)} results, {seeds} seed{'s' * (seeds > 1)}, settings {largest}.")
    return chosen


def tuned(model: str, text: Path, passages: Sequence[Document], **settings: Any) -> dict[str, Any]:
    """Tune a model on all of a text; return its curve and its bits on some passages, not the model.

    Parameters
    ----------
    model
        A name or folder.
    text
        A `.jsonl` file whose rows have a `split`.
    passages
        Held-out documents.
    settings
        Settings of `AdaptSettings`.

    Returns
    -------
    dict
        "curve": Series of bits per byte by step; "end": `DocumentBits` of the passages; "tokens": tokens read.
    """
    events: list[dict[str, Any]] = []
    chosen = AdaptSettings.from_dict({"recipe": "papers", "prompts": [], "save_every": settings["steps"], **settings})
    with tempfile.TemporaryDirectory() as folder:
        made = str(adapt(model, [str(text)], chosen, Path(folder), events.append, device="cpu"))
        end = document_bits(tl.load_model(made, device="cpu"), tl.load_vocabulary(made), passages)
    return {
        "curve": pd.Series({e["step"]: e["bits_per_byte"] for e in events if e["kind"] == "evaluation"}),
        "end": end,
        "tokens": chosen.steps * chosen.sequences() * chosen.sequence_length,
    }


def by_seed(several: Sequence[DocumentBits], minus: Sequence[DocumentBits] | None = None) -> str:
    """Write bits per byte seed by seed, or the difference to others: "2.10 2.15"."""
    if minus is None:
        return " ".join(f"{one.per_byte().mean:.2f}" for one in several)
    return " ".join(f"{one.minus(other).mean:+.2f}" for one, other in zip(several, minus, strict=True))
