"""The tuning curve of the quick start, and when it has passed half of the gap to the source.

    python benchmarks/quickstart.py --out benchmarks/results/quickstart.jsonl

The notebook runs from top to bottom in JupyterLab in Chromium, at full size (`--quick`: at the small sizes of a check),
with empty runs and vectors. Seconds count from the start of the tuning run. The goal is 180 seconds on two cores.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness import limit_threads, parser, report

from notebooks import RUN_ALL, browser_on
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.folder import RunFolder

BAR_S = 180


def main() -> None:
    given = parser(__doc__).parse_args()
    limit_threads(given.threads)
    if given.quick:
        os.environ["TOKALIGN_FAST"] = "1"
    with browser_on("00_quickstart.ipynb") as (lab, runs):
        lab.page.evaluate(RUN_ALL)
        adapt, measure = one_run(runs, "adapt"), one_run(runs, "measure")
        measure.wait()
        while given.quick and adapt.state in ("queued", "running"):
            if adapt.curve("evaluation"):
                adapt.cancel(grace=5)
            time.sleep(1)
        adapt.wait()
        begun = adapt.events()[0][0]["time"]
        curve = adapt.curve("evaluation")
        source = measure.curve("evaluation")[-1]["bits_per_byte"]
    start = curve[0]["bits_per_byte"]
    rows = [
        {
            "step": event["step"],
            "seconds": event["time"] - begun,
            "bits per byte": event["bits_per_byte"],
            "closed": (start - event["bits_per_byte"]) / (start - source),
            "probes": event["probes_answered"],
        }
        for event in curve
    ]
    notes = [f"{given.threads} threads. The untuned source has {source:.4f} bits per byte. The goal is {BAR_S} s."]
    report("The quick start", [("Tuning", rows)], notes, given.out)


def one_run(folder: Path, kind: str) -> RunFolder:
    """Return the run of a kind; wait until the notebook has started it."""
    while True:
        for run in list_runs(folder):
            if run.info()["kind"] == kind:
                return run
        time.sleep(1)


if __name__ == "__main__":
    main()
