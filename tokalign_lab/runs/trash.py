"""Delete a run and restore it.

A deleted run is moved into the folder `.trash` next to it, and can be moved back unchanged. Only `empty_trash` empties
that folder.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tokalign_lab.errors import InputError
from tokalign_lab.files import bytes_below
from tokalign_lab.provenance import now
from tokalign_lab.runs.control import runs_root
from tokalign_lab.runs.folder import ENDED, RunFolder, run_folders
from tokalign_lab.runs.schema import DAMAGED

TRASH = ".trash"


def delete_run(run: RunFolder) -> RunFolder:
    """Move a run into the trash of its folder; returns the moved run.

    Raises `InputError` if it is running or recorded, or cannot be moved.
    """
    run.check_own("delete it")
    state = run.state
    if state == "running":
        raise InputError(f"The run {run.title} is running; cancel it before you delete it.")
    path = run.path.resolve()
    trash = path.parent / TRASH
    name, number = path.name, 2
    while (trash / name).exists():
        name, number = f"{path.name}.{number}", number + 1
    if state not in ENDED:
        run.update(state="cancelled", ended=now())  # the process that would start it checks its state
    if state != DAMAGED:
        run.update(deleted=now(), was=path.name)
    try:
        trash.mkdir(exist_ok=True)
        os.replace(path, trash / name)
    except OSError as error:
        raise InputError(f"The run {run.title} cannot be moved to '{trash}' ({error.strerror}).") from error
    return RunFolder(trash / name)


def deleted_runs(root: Path | str | None = None) -> list[RunFolder]:
    """Return the runs in the trash of a root, the last deleted first; folders without a run are skipped."""
    found = []
    for run in run_folders(runs_root(root) / TRASH):
        try:
            found.append((run.info().get("deleted") or "", (run.path / "run.json").stat().st_ctime_ns, run))
        except (InputError, FileNotFoundError):  # another process has moved it in the meantime
            continue
    return [run for *_, run in sorted(found, key=lambda item: item[:2], reverse=True)]


def restore_run(name: str | None = None, root: Path | str | None = None) -> RunFolder:
    """Move a run, given by its folder's name or its title, out of the trash; the last deleted one by default.

    Raises `InputError` if there is no such run in the trash, or another run has its name now.
    """
    for run in deleted_runs(root):
        was = str(run.info().get("was") or "")
        if not was or was != Path(was).name or was.startswith("."):  # no folder below the root
            was = run.name
        if name is not None and name not in (was, run.name, run.title):
            continue
        place = runs_root(root) / was
        if place.exists():
            raise InputError(f"The run {was} cannot be restored, because there is another '{place}' now.")
        try:
            os.replace(run.path, place)
        except OSError as error:
            raise InputError(f"The run {was} cannot be moved out of the trash ({error.strerror}).") from error
        return RunFolder(place)
    raise InputError("The trash is empty." if name is None else f"There is no run named {name!r} in the trash.")


def trash_bytes(root: Path | str | None = None) -> int:
    """Return the size of the trash in bytes."""
    return bytes_below(runs_root(root) / TRASH)


def empty_trash(root: Path | str | None = None) -> int:
    """Delete everything in the trash; returns the number of freed bytes."""
    freed = trash_bytes(root)
    shutil.rmtree(runs_root(root) / TRASH, ignore_errors=True)
    return freed
