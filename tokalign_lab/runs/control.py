"""Start runs and find them later.

Runs are stored in one root folder ($TOKALIGN_RUNS, else `./runs`), each in a folder named by its kind and time.
Nothing about a run is kept in memory: every process that opens the root sees all of them.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.files import from_home
from tokalign_lab.runs.folder import RunFolder, checked_title, run_folders


class RunEnded(Exception):
    """A run has ended without finishing, for a reason other than bad input."""


def runs_root(root: Path | str | None = None) -> Path:
    """Return the folder that holds the runs: `root`, else $TOKALIGN_RUNS, else `./runs`."""
    return from_home(root or os.environ.get("TOKALIGN_RUNS") or "runs")


def gallery_root() -> Path:
    """Return the folder of the recorded runs that ship with the package (see `runs.gallery`)."""
    return Path(__file__).parent.parent / "data" / "gallery"


def start(kind: str, settings: dict[str, Any], folder: Path | str | None = None) -> RunFolder:
    """Make a run folder and start its worker.

    Raises `InputError` for an unknown kind, settings that it does not take, a number of processes that cannot be
    started, or a folder that already has a run.

    Parameters
    ----------
    kind : a name from `runs.kinds.KINDS`
    settings : plain JSON values, those of the kind's settings class
    folder : the run's folder; by default a new one in `runs_root()`
    """
    from tokalign_lab.runs.kinds import check_kind
    from tokalign_lab.runs.process import launcher

    check_kind(kind, settings)
    launcher(settings)  # refused before a run is made
    run = RunFolder.create(new_folder(kind) if folder is None else folder, kind, settings)
    run.start()
    return run


def check_finished(run: RunFolder) -> None:
    """Raise an error if a run has ended without finishing.

    Raises `InputError`, with the run's own sentence, if it failed because of bad input. Raises `RunEnded`, which names
    the log, if it failed for another reason or was cancelled, paused or lost.
    """
    info = run.reconcile()
    if info["state"] == "finished":
        return
    if info["state"] == "failed" and info.get("bad_input"):
        raise InputError(f"The run {run.name} failed: {info['error']}")
    why = f": {info['error']}" if info["error"] else "."
    raise RunEnded(f"The run {run.name} is {info['state']}{why} Its log is {run.path / 'log.txt'}.")


def new_folder(kind: str, root: Path | str | None = None) -> Path:
    """Return an unused path in the root, such as `adapt-20260131-090500`."""
    stem = f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    path = runs_root(root) / stem
    number = 2
    while path.exists():
        path = runs_root(root) / f"{stem}-{number}"
        number += 1
    return path


def list_runs(root: Path | str | None = None) -> list[RunFolder]:
    """List every run in the root, also damaged ones, newest first; folders without a `run.json` are skipped."""
    found = []
    for run in run_folders(runs_root(root)):
        try:
            found.append((run.reconcile()["created"], run.name, run))
        except InputError:
            continue
    return [run for _, _, run in sorted(found, key=lambda item: item[:2], reverse=True)]


def find_run(name: Path | str, root: Path | str | None = None) -> RunFolder:
    """Find a run by the name of its folder, by its title, or by its path.

    If no run in the root has this name, recorded runs are searched too. Raises `InputError` if there is none.
    """
    for path in (from_home(name), runs_root(root) / name):
        if RunFolder(path).exists:
            return RunFolder(path)
    for where in (runs_root(root), gallery_root()):
        for run in run_folders(where):
            if str(name) in (run.name, run.title):
                return run
    raise InputError(f"There is no run named {str(name)!r} in {runs_root(root)}, nor a run folder at that path.")


def rename_run(run: RunFolder, title: str) -> None:
    """Give a run another title.

    Raises `InputError` for a name that is not one line of 1 to 80 characters, or that another run in the same folder
    has.
    """
    _check_free(checked_title(title), run.path.resolve().parent, but=run.name)
    run.entitle(title)


def start_again(run: RunFolder, changes: dict[str, Any], title: str = "") -> RunFolder:
    """Start a new tuning run, next to `run`, with its settings and some `changes`.

    Raises `InputError` for a run of another kind, a setting that tuning does not have or that is out of range, a model
    or text that is not there, or a title that is in use; then no run is made.

    Parameters
    ----------
    run : the tuning run whose settings are taken; it is not changed
    changes : fields of `adaptation.settings.AdaptRunSettings`
    title : title of the new run; its folder's name when empty
    """
    from tokalign_lab.adaptation.settings import AdaptRunSettings

    info = run.info()
    run.check_own("start it again: the model that it tuned is not kept")
    if info["kind"] != "adapt":
        raise InputError(f"The run {run.title} is of kind {info['kind']!r}; only tuning can start again this way.")
    AdaptRunSettings.from_dict(info["settings"] | changes)
    run.check_inputs(changes)
    root = run.path.resolve().parent
    if title.strip():
        _check_free(checked_title(title), root)
    new = RunFolder.create(new_folder("adapt", root), "adapt", info["settings"] | changes)
    new.update(cwd=info.get("cwd"))  # so that relative paths in the settings keep their meaning
    if title.strip():
        new.entitle(title)
    new.start()
    return new


def _check_free(title: str, root: Path, but: str = "") -> None:
    """Raise `InputError` if a run in `root`, other than the one in folder `but`, has that name."""
    for other in run_folders(root):
        if other.name != but and title in (other.name, other.title):
            raise InputError(f"There is a run named {title!r} already; choose another name.")
