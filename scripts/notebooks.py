"""Run notebooks from top to bottom, several at a time, each with a separate folder of runs; stop its runs at its end.

notebooks.py JOBS NOTEBOOK...
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tokalign_lab.runs.control import list_runs

CELL_S = 1800
TOGETHER = ("05", "08")  # begin with the same runs, so the second finds those of the first, as for a reader


async def run(paths: list[Path], free: asyncio.Semaphore) -> bool:
    """Run notebooks one after the other with one folder of runs, when a slot is free; return whether all passed."""
    async with free:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
            return all([await run_one(path, Path(runs)) for path in paths])


async def run_one(path: Path, runs: Path) -> bool:
    """Run a notebook; print its time, and the cell or the run that failed."""
    begun = time.monotonic()
    before = {one.name for one in list_runs(runs)}
    resources = {"metadata": {"path": str(path.parent)}}
    limits = {"timeout": CELL_S, "startup_timeout": CELL_S}  # a kernel of low priority may start slowly
    client = NotebookClient(nbformat.read(path, as_version=4), resources=resources, **limits)
    try:
        await client.async_execute(env=os.environ | {"TOKALIGN_RUNS": str(runs)})
        error = ""
    except Exception as failed:
        error = str(failed)
    left = [one for one in list_runs(runs) if one.name not in before]
    for one in [one for one in left if one.state == "failed"]:  # before a run that another one waits for is cancelled
        error = error or f"Its run {one.name} failed: {one.info().get('error')}"
    for one in [one for one in left if one.state == "running"]:  # a run outlives its kernel by design
        one.cancel(grace=5)
    print(f"{'FAILED' if error else 'passed'} in {time.monotonic() - begun:.0f} s: {path}", error, flush=True)
    return not error


async def run_all(jobs: int, paths: list[Path]) -> bool:
    """Run all notebooks; return whether all passed."""
    free = asyncio.Semaphore(jobs)
    together = sorted(path for path in paths if path.name.startswith(TOGETHER))
    groups = [together, *([path] for path in paths if path not in together)]
    return all(await asyncio.gather(*(run(group, free) for group in groups)))


if __name__ == "__main__":
    sys.exit(not asyncio.run(run_all(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]])))
