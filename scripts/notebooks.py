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


async def run(path: Path, free: asyncio.Semaphore) -> bool:
    """Run a notebook when a slot is free; print its time, and the cell that failed."""
    async with free:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as runs:
            begun = time.monotonic()
            resources = {"metadata": {"path": str(path.parent)}}
            client = NotebookClient(nbformat.read(path, as_version=4), timeout=CELL_S, resources=resources)
            try:
                await client.async_execute(env=os.environ | {"TOKALIGN_RUNS": runs})
                error = ""
            except Exception as failed:
                error = str(failed)
            print(f"{'FAILED' if error else 'passed'} in {time.monotonic() - begun:.0f} s: {path}", error, flush=True)
            for left in list_runs(Path(runs)):  # a run outlives its kernel by design
                if left.state == "running":
                    left.cancel(grace=5)
    return not error


async def run_all(jobs: int, paths: list[Path]) -> bool:
    """Run all notebooks; return whether all passed."""
    free = asyncio.Semaphore(jobs)
    return all(await asyncio.gather(*(run(path, free) for path in paths)))


if __name__ == "__main__":
    sys.exit(not asyncio.run(run_all(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]])))
