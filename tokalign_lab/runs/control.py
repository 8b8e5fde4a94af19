"""Starting runs and finding them again.

Runs live in one root folder ($TOKALIGN_RUNS, else `./runs`), each in a folder named by its kind and the moment it
was made. Nothing about a run is kept in memory: whoever opens the root sees all of them.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import RunFolder


def runs_root(root: Path | str | None = None) -> Path:
    """Return the folder that holds the runs: `root`, else $TOKALIGN_RUNS, else `./runs`."""
    return Path(root or os.environ.get("TOKALIGN_RUNS") or "runs")


def start(kind: str, settings: dict[str, Any], folder: Path | str | None = None) -> RunFolder:
    """Make a run folder and start its worker.

    Parameters
    ----------
    kind
        A name from `runs.kinds.KINDS`.
    settings
        Plain JSON values; what they mean is the kind's business.
    folder
        Where the run goes; a new name in `runs_root()` when not given.

    Returns
    -------
    RunFolder
        The run, whose process has reported itself.

    Raises
    ------
    InputError
        For an unknown kind, settings that are not JSON, no way to start that many processes, or a folder that already
        holds a run.
    """
    from tokalign_lab.runs.kinds import check_kind
    from tokalign_lab.runs.process import launcher

    check_kind(kind)
    launcher(settings)  # refused before a run is made
    run = RunFolder.create(new_folder(kind) if folder is None else folder, kind, settings)
    run.start()
    return run


def new_folder(kind: str, root: Path | str | None = None) -> Path:
    """Return a path in the root that no run has yet, such as `adapt-20260131-090500`."""
    stem = f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    path = runs_root(root) / stem
    number = 2
    while path.exists():
        path = runs_root(root) / f"{stem}-{number}"
        number += 1
    return path


def list_runs(root: Path | str | None = None) -> list[RunFolder]:
    """Every run in the root, newest first; folders without a readable `run.json` are passed over."""
    found = []
    for file in runs_root(root).glob("*/run.json"):
        run = RunFolder(file.parent)
        try:
            found.append((run.reconcile()["created"], run.name, run))
        except InputError:
            continue
    return [run for _, _, run in sorted(found, key=lambda item: item[:2], reverse=True)]


def find_run(name: Path | str, root: Path | str | None = None) -> RunFolder:
    """Find the run with that name in the root, or at that path.

    Raises
    ------
    InputError
        When there is none.
    """
    for path in (Path(name), runs_root(root) / name):
        if (path / "run.json").is_file():
            return RunFolder(path)
    raise InputError(f"There is no run named {str(name)!r} in {runs_root(root)}, nor a run folder at that path.")
