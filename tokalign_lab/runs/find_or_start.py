"""The run of some settings: same settings, same folder, so that what was done once is found again."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokalign_lab.files import hash_of
from tokalign_lab.runs.control import runs_root, start
from tokalign_lab.runs.folder import AlreadyRunning, RunFolder
from tokalign_lab.runs.queue import locked


def run_of(kind: str, settings: dict[str, Any], root: Path | str | None = None) -> RunFolder:
    """Return the run of these settings, whether it exists or not."""
    key = hash_of([json.dumps(settings, sort_keys=True).encode()])[:10]
    return RunFolder(runs_root(root) / f"{kind}-{key}")


def exists(run: RunFolder) -> bool:
    """Whether the folder holds a run."""
    return (run.path / "run.json").is_file()


def find_or_start(kind: str, settings: dict[str, Any], root: Path | str | None = None) -> RunFolder:
    """Return the run of these settings, started where it is neither running nor finished.

    Two processes that ask at once get one run, started once.
    """
    run = run_of(kind, settings, root)
    with locked(run.path.parent):
        if not exists(run):
            return start(kind, settings, run.path)
        if run.state not in ("running", "finished"):
            with suppress(AlreadyRunning):
                run.start()
    return run
