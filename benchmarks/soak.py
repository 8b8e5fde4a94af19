"""Keep a lab open for an hour while it follows runs: its memory, and whether its panels miss an event.

    python benchmarks/soak.py --out benchmarks/results/soak.jsonl
    python benchmarks/soak.py --quick

Another process writes 50,000 events to two tuning runs, evenly over the hour: steps, measurements of held-out text,
continuations, progress and heartbeats. Four panels follow them: a training monitor for each run, one for both runs, and
the list of runs. Every minute a client reconnects: it requests the state of every widget, as a JupyterLab page does
when it loads. No browser is used (see `tests/ui` for that). The memory of the process is recorded after each
connection.

`--minutes 5` writes the same number of events in less time; `--quick` writes 5,000 in half a minute.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import limit_threads, parser, report

EVENTS, CONNECTIONS = 50_000, 60
SETTINGS = {"model": "moved", "text": ["default"], "steps": EVENTS, "batch_size": 2, "sequence_length": 8}
SETTLE_S = 60.0


def event_of(number: int) -> dict[str, Any]:
    """Return the event with this number; six of ten are steps."""
    step = number // 10 * 6 + number % 10 + 1
    if number % 10 < 6:
        figures = {"loss": 5 - step / EVENTS, "learning_rate": 1e-3, "grad_norm": 0.5, "tokens": 16 * step}
        return {"kind": "step", "step": step, "stage": 1, **figures, "tokens_per_second": 500.0, "memory_bytes": 2e9}
    if number % 10 < 8:
        return {"kind": "progress", "share": number / EVENTS, "message": f"event {number}"}
    if number % 1000 == 8:
        return {"kind": "evaluation", "step": step, "bits_per_byte": 1.5, "by_slice": {"de": 1.8, "code": 1.2}}
    if number % 1000 == 9:
        return {"kind": "sample", "step": step, "prompt": "One", "text": f"two {number}"}
    return {"kind": "heartbeat"}


def write(paths: list[Path], events: int, seconds: float) -> None:
    """Write events alternately to the runs, evenly over this time."""
    from tokalign_lab.runs.folder import RunFolder

    runs, started = [RunFolder(path) for path in paths], time.monotonic()
    for number in range(events):
        time.sleep(max(0.0, started + seconds * number / events - time.monotonic()))
        runs[number % 2].emit(event_of(number // 2))


def connect() -> int:
    """Send the state of every widget, as to a page that loads; return its size in bytes."""
    from ipywidgets import Widget

    state = Widget.get_manager_state(drop_defaults=False)["state"]
    return len(json.dumps(state, default=str))


def soak(folder: Path, events: int, seconds: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Keep the panels open for this time.

    Returns
    -------
    rows, problems
        Minutes, memory in MB, size of the state in kB and steps shown at each connection; a sentence for each problem.
    """
    import psutil

    from tokalign_lab.runs.folder import RunFolder
    from tokalign_lab.runs.process import start_time
    from tokalign_lab.widgets import RunsPanel, TrainingPanel

    runs = [RunFolder.create(folder / name, "adapt", SETTINGS) for name in ("one", "two")]
    for run in runs:
        run.update(state="running", pid=os.getpid(), pid_started=start_time(os.getpid()))
    panels = [TrainingPanel(runs[0]), TrainingPanel(runs[1]), TrainingPanel(runs, watched_by="both"), RunsPanel(folder)]
    writer = multiprocessing.get_context("spawn").Process(
        target=write, args=([run.path for run in runs], events, seconds)
    )
    writer.start()
    process, started, rows = psutil.Process(), time.monotonic(), []
    for connection in range(1, CONNECTIONS + 1):
        time.sleep(max(0.0, started + seconds * connection / CONNECTIONS - time.monotonic()))
        size = connect()
        gc.collect()
        steps = sum(len(view.steps) for panel in panels[:2] for view in panel.views)
        memory = process.memory_info().rss / 1e6
        minutes = (time.monotonic() - started) / 60
        rows.append(
            {"minutes": round(minutes, 2), "memory_MB": round(memory), "state_kB": size // 1000, "steps": steps}
        )
        print(json.dumps(rows[-1]), flush=True)
    writer.join()
    written = [
        event_of(number)["step"] for number in range(events // 2) if number % 10 < 6
    ]  # steps written to each run
    following = [view for panel in panels[:3] for view in panel.views]
    waited = time.monotonic() + SETTLE_S
    while time.monotonic() < waited and any(view.steps != written for view in following):
        time.sleep(0.5)
    names = [
        runs[i].name for i in (0, 1, 0, 1)
    ]  # the runs of the panels with one run, then those of the panel with both
    problems = [
        f"A panel shows {len(view.steps):,} steps of {name}, and {len(written):,} were written."
        for view, name in zip(following, names, strict=True)
        if view.steps != written
    ]
    return rows, problems + ([] if writer.exitcode == 0 else ["The writer ended in an error."])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--minutes", type=float, default=60.0)
    chosen = options.parse_args()
    limit_threads(1)
    events, seconds = (EVENTS // 10, 30.0) if chosen.quick else (EVENTS, 60 * chosen.minutes)
    with tempfile.TemporaryDirectory(prefix="tokalign-soak-") as name:
        rows, problems = soak(Path(name), events, seconds)
    half = [row["memory_MB"] for row in rows[CONNECTIONS // 2 - 1 :]]
    notes = [
        f"{events:,} events in {seconds / 60:g} minutes, {CONNECTIONS} connections; {len(problems)} curves differ.",
        f"Memory grew by {half[-1] - half[0]:+} MB in the second half of the time.",
        *problems,
    ]
    report("Soak", [("At every sixth connection", rows[5::6])], notes, chosen.out)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
