"""Collect the measurements of converted models in benchmarks/results for `tokalign-lab advise`; nothing is run.

    python benchmarks/measured_moves.py --out tokalign_lab/data/measured_moves.jsonl

A line is one run on one slice of its held-out text, in bits per byte. Only models converted by `anchored` (the default
recipe) and calibrated are used. The control is the source model tuned on the same bytes with its own tokenizer, so rows
whose control read another amount of text are skipped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
RAW = DOCS.parent / "benchmarks/results"
QUALITY, RECOVERY = RAW / "quality.jsonl", RAW / "recovery.jsonl"
SEARCH = RAW / "recovery_search.jsonl"
SOURCE = "smollm2-135m"  # the source model of the recovery benchmarks
# For each text of recovery_search.jsonl, its slice.
TEXTS = {
    "prose": ("prose", "prose"),
    "o_en": ("Wikipedia", "prose"),
    "o_code": ("C++", "code"),
    "o_de": ("German", "de"),
}
GROUPS = ("prose", "code", "digits", "non-Latin")


def main() -> None:
    """Print the lines, or write them to a file."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in collect())
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def collect() -> list[dict[str, Any]]:
    """Return the lines; bits per byte are rounded to four decimals."""
    return [*_quality(), *_recovery(), *_search()]


def _line(run: str, page: str, source: str, target: str, slice: str, tokens: int, **bits: float) -> dict[str, Any]:
    """Make a line: source and converted model before tuning (`untuned`, `start`) and after it (`control`, `end`)."""
    rounded = {name: round(bits[name], 4) if name in bits else None for name in ("untuned", "start", "control", "end")}
    return {"run": run, "page": page, "source": source, "target": target, "slice": slice, "tokens": tokens, **rounded}


def _read(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "settings" in line]


def _quality() -> Iterator[dict[str, Any]]:
    rows = _read(QUALITY)
    sources = {(row["source"], row["seed"]): row for row in rows if row["method"] == "floor"}
    for row in rows:
        if row["method"] == "anchored-calibrated":
            reference, run = sources[row["source"], row["seed"]], f"anchored-calibrated, seed {row['seed']}"
            for name in GROUPS:
                bits = {"untuned": reference[name], "start": row[name]}
                yield _line(run, "docs/results/quality.md", row["source"], row["target"], name, 0, **bits)


def _recovery() -> Iterator[dict[str, Any]]:
    rows = {row["model"]: row for row in _read(RECOVERY)}
    controls = [rows.pop("control"), rows.pop("control, one stage")]
    for target, row in rows.items():
        last = max(row["curve"], key=int)
        for name in row["curve"]["0"]:
            if name == "all":
                continue
            bits = {
                "untuned": controls[0]["curve"]["0"][name],
                "start": row["curve"]["0"][name],
                "control": min(control["curve"][last][name] for control in controls),
                "end": row["curve"][last][name],
            }
            run = f"papers, {last} steps, seed {row['seed']}"
            yield _line(run, "docs/results/recovery.md", SOURCE, target, name, row["tokens"], **bits)


def _search() -> Iterator[dict[str, Any]]:
    """Yield the lines of the default recipe for each target, at its smallest budget that has a control."""
    lines = [line for line in _read(SEARCH) if "settings" in line]
    for target in dict.fromkeys(line["settings"]["target"] for line in lines if line["way"] == "control"):
        own = [line for line in lines if line["settings"]["target"] == target]
        tokens = min(line["settings"]["tokens"] for line in own if line["way"] == "control")
        own = [line for line in own if line["settings"]["tokens"] == tokens]
        control = next(line for line in own if line["way"] == "control")
        for line in (one for one in own if one["way"] == "recover"):
            for key, (text, name) in TEXTS.items():
                run = f"recover, {tokens:,} tokens, {text}, seed {line['seed']}"
                bits = {"control": control[key], "end": line[key]}
                yield _line(run, "docs/results/recovery_search.md", SOURCE, target, name, tokens, **bits)


if __name__ == "__main__":
    main()
