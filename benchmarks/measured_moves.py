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
SOURCE = "smollm2-135m"  # the source model of recovery.py
# For each text of recovery.jsonl, its name and its slice.
TEXTS = {
    "prose": ("prose", "prose"),
    "code": ("Python", "code"),
    "ru": ("Russian", "ru"),
    "ja": ("Japanese", "ja"),
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
    return [*_quality(), *_recovery()]


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
    """Yield the lines of the default recipe for each target and number of tokens with a control, the best one."""
    by: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in _read(RECOVERY):
        by.setdefault((line["settings"]["target"], line["settings"]["tokens"]), []).append(line)
    source = next(line for lines in by.values() for line in lines if line["way"] == "source")
    started = set()  # targets whose model before tuning is in a line, since it is one model for all seeds
    for (target, tokens), lines in by.items():
        ways = {line["way"]: line for line in lines}
        controls = [line for way, line in ways.items() if way.startswith("control")]
        if not controls:
            continue
        control = min(controls, key=lambda line: line["prose"])
        for line in (one for one in lines if one["way"] == "recover"):
            rows = {"control": control, "end": line}
            if target not in started:
                rows |= {"untuned": source, "start": ways["step 0"]}
            started.add(target)
            for key, (text, name) in TEXTS.items():
                if key not in line or key not in control:
                    continue
                run = f"recover, {tokens:,} tokens, {text}, seed {line['seed']}"
                bits = {field: row[key] for field, row in rows.items()}
                yield _line(run, "docs/results/recovery.md", SOURCE, target, name, tokens, **bits)


if __name__ == "__main__":
    main()
