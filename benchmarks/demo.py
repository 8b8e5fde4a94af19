"""The results of the demo as raw data: bits per byte of held-out text and seconds, for the whole pipeline on one pair.

    python benchmarks/demo.py --out benchmarks/results/demo.jsonl

It runs the same program as `make demo`; see `tokalign_lab.demo`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import Table, limit_threads, parser, report

from tokalign_lab.demo import run_demo


def main() -> None:
    given = parser(__doc__).parse_args()
    limit_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = run_demo(Path(folder), fast=given.quick)
    report("The demo", tables(found), [], given.out)


def tables(found: dict[str, Any]) -> list[Table]:
    """Return the results of a demo as tables."""
    models = [{**row, "all": row["bits_per_byte"]} for row in found["models"]]
    columns = ("model", "all", "prose", "code", "interface_texts")
    return [
        ("The pair", [{"what": name, "value": value} for name, value in found["pair"].items()]),
        ("The lexicons, on held-out text", found["lexicons"]),
        ("Bits per UTF-8 byte of held-out text", [{name: row[name] for name in columns} for row in models]),
        ("Seconds", [{"stage": name, "seconds": seconds} for name, seconds in found["seconds"].items()]),
    ]


if __name__ == "__main__":
    main()
