"""How different may two vocabularies be? From SmolLM2's BPE to single bytes, and to single characters.

    python benchmarks/extreme.py --out benchmarks/results/extreme.jsonl

The byte vocabulary writes its tokens as SentencePiece does, `<0x41>`, and shares no string with SmolLM2's. By bytes,
the source has nearly all of its tokens, since a byte-level BPE contains all bytes. So the swap loses no rows, but the
model has rarely seen words as sequences of bytes. The character vocabulary has the characters that occur at least five
times in the text, and bytes for all others.

All models read the same bytes of text as the control, which is the source model tuned in the same way with its own
tokenizer. For these, a vocabulary of bytes takes about three times the tokens and the time. Recovery is the share of
the way from step 0 to the end of the control, in bits per byte. Takes about 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import tuning
from harness import Kept, Result, Table, report
from tuning import SLICES, curve_columns, losses_by, mean

from tokalign_lab.notebooks.research.letters import letter_vocabulary, letters_of
from tokalign_lab.vocabulary import Vocabulary, overlap

GOAL = 0.95
POINTS = 8
MADE: dict[str, Callable[[], Vocabulary]] = {
    "bytes": lambda: letter_vocabulary("bytes"),
    "characters": lambda: letter_vocabulary(
        "characters", letters_of(document.text for document in tuning.align_text())
    ),
}


def main() -> None:
    options = tuning.options(__doc__, steps=120)
    options.add_argument("--vocabularies", nargs="+", choices=list(MADE), default=list(MADE))
    given = tuning.settled(options, points=POINTS)
    vocabularies = {name: MADE[name]() for name in given.vocabularies}
    kept = Kept(given)
    by: dict[str, list[Result]] = {}
    _, source = tuning.source(given.device)
    for bench in tuning.benches(given):
        by.setdefault("control", []).append(
            kept(partial(bench.tune, "control", tuning.SOURCE, source), model="control", **bench.key)
        )
        for name, target in vocabularies.items():
            by.setdefault(name, []).append(kept(partial(bench.convert_and_tune, name, target), model=name, **bench.key))
    tables: list[Table] = [
        ("The vocabularies", [facts(source, target, by[name]) for name, target in vocabularies.items()])
    ]
    for name in ("all", *SLICES):
        rows = [{"model": model, **curve_columns(lines, given, name)} for model, lines in by.items()]
        tables.append((f"Bits per byte: {tuning.TITLES[name]}", rows))
        if name == "all":
            tables.append(("Recovered of the way from step 0 to the control's end", recovered(rows)))
    losses = [{"model": model, **losses_by(lines, POINTS)} for model, lines in by.items()]
    tables.append(("Mean training loss by eighth of the run, nats per token", losses))
    notes = [tuning.budget(given, by["control"][0]), *(reached(row, given) for row in recovered(tables[1][1]))]
    notes += ["Step 0 of the control is the untuned source; of the others, the converted model, calibrated."]
    report("Extreme divergence", tables, [*notes, *(tuning.cost(*item) for item in by.items())], given.out)


def facts(source: Vocabulary, target: Vocabulary, lines: list[Result]) -> dict[str, Any]:
    found = overlap(source, target)
    return {
        "vocabulary": target.name,
        "tokens": found.target_size,
        "shared by string": f"{found.raw_count:,} ({found.raw_share:.2%})",
        "shared by bytes": f"{found.bytes_count:,} ({found.bytes_share:.2%})",
        "bytes per token": mean([line["bytes_per_token"]["all"] for line in lines]),
        "tokens read": lines[0]["tokens"],
        "every row random": mean([line["ceiling"]["all"] for line in lines]),
        "not calibrated": mean([line["not_calibrated"]["all"] for line in lines]),
    }


def recovered(rows: Any) -> list[dict[str, Any]]:
    """Return the share of the way to the control's end at each step; None for a run that was stopped before."""
    goal = rows[0]["end"]
    shares = []
    for row in rows[1:]:
        values = {name: value for name, value in row.items() if name != "model"}
        way = None if goal is None else row["step 0"] - goal
        shares.append(
            {"model": row["model"], **{k: v and way and (row["step 0"] - v) / way for k, v in values.items()}}
        )
    return shares


def reached(row: dict[str, Any], given: argparse.Namespace) -> str:
    steps = [(name, value) for name, value in row.items() if name not in ("model", "step 0") and value is not None]
    first = next((name for name, value in steps if value >= GOAL), None)
    if first is None:
        furthest = f"{max(value for _, value in steps):.1%}" if steps else "nowhere"
        return f"{row['model']}: {GOAL:.0%} recovery was not reached in {given.steps} steps; it got to {furthest}."
    return f"{row['model']}: {GOAL:.0%} recovery at {first if first != 'end' else f'step {given.steps}'}."


if __name__ == "__main__":
    main()
