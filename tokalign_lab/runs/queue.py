"""Find runs by their settings, queue runs that depend on another run, and start queued runs.

The folder of a run is named by its settings, so that earlier results are found. A run that needs the result of another
one is "queued" and names it in its `run.json` ("after"). A separate process watches the folder of runs, starts each run
when the run before it has finished, and ends when no run is queued. It does not depend on the kernel or shell that
started it. A lock of the operating system, which is released when its process ends, ensures that a run is started once.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.files import hash_of
from tokalign_lab.locks import Busy, lock
from tokalign_lab.runs.control import runs_root, start
from tokalign_lab.runs.folder import ENDED, AlreadyRunning, RunFolder, run_folders
from tokalign_lab.runs.schema import kept_settings

_POLL_SECONDS = 0.5
_START_SECONDS = 90.0  # `RunFolder.start` gives up after 60
_spawned: list[subprocess.Popen[bytes]] = []  # stored so that ended children are reaped


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of a folder of runs; waits until it is free."""
    root.mkdir(parents=True, exist_ok=True)
    with lock(root / ".queue.lock"):
        yield


def run_of(kind: str, settings: dict[str, Any], root: Path | str | None = None) -> RunFolder:
    """Return the run with these settings; it may not exist."""
    key = hash_of([json.dumps(kept_settings(kind, settings), sort_keys=True).encode()])[:10]
    return RunFolder(runs_root(root) / f"{kind}-{key}")


def find_or_start(kind: str, settings: dict[str, Any], root: Path | str | None = None) -> RunFolder:
    """Return the run with these settings; unless it is running or finished, start it (once for two processes)."""
    run = run_of(kind, settings, root)
    with locked(run.path.parent):
        if not run.exists:
            return start(kind, settings, run.path)
        if run.state not in ("running", "finished"):
            with suppress(AlreadyRunning):
                run.start()
    return run


def start_after(run: RunFolder, before: RunFolder, again: bool = False) -> None:
    """Queue a run that has not started: it starts when `before`, in the same folder, has finished.

    If `before` does not finish, the run fails with a sentence. A run that has started is not changed, unless it has
    ended and `again` is true.
    """
    root = run.path.resolve().parent
    with locked(root):
        begins_again = again and run.state in ENDED
        if begins_again:
            (run.path / "events.jsonl").unlink(missing_ok=True)
            run.cancel_file.unlink(missing_ok=True)
        if begins_again or run.state == "queued":
            run.update(state="queued", after=before.name, ended=None, error=None)
            if before.state == "finished":
                _start(run)
    start_waiting(root)


def start_waiting(root: Path) -> None:
    """Start the process that starts the queued runs of a folder; needed after the machine was restarted."""
    if any(_waits(run) for run in run_folders(root)):
        _spawned[:] = [process for process in _spawned if process.poll() is None]
        command = [sys.executable, "-m", "tokalign_lab.runs.queue", str(root.resolve())]
        nothing = subprocess.DEVNULL
        _spawned.append(
            subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
        )


def start_ready(root: Path) -> bool:
    """Start queued runs that can start, and fail those that never can; returns whether any is left. Needs `locked`."""
    waiting = False
    for run in run_folders(root):
        try:
            if not _waits(run):
                continue
            before = RunFolder(root / run.info()["after"])
            why = _why_never(before)
            if why:
                run.give_up(f"The run it needs, {before.name}, {why}")
            elif before.state == "finished":
                _start(run)
            else:
                waiting = True
        except (InputError, OSError):
            continue  # it was deleted or cancelled in the meantime
    return waiting


def _start(run: RunFolder) -> None:
    try:
        run.start(queued=True)
    except AlreadyRunning:  # the user has resumed or cancelled it in the meantime
        return
    except InputError as error:  # its settings cannot be started; the error is in its `run.json`
        run.give_up(str(error))


def _waits(run: RunFolder) -> bool:
    try:
        info = run.info()
    except InputError:
        return False
    return info["state"] == "queued" and bool(info.get("after"))


def _why_never(before: RunFolder) -> str:
    """Return why a run that depends on this one can never start; "" if it can."""
    try:
        info = before.reconcile()
    except InputError:
        return "is gone."
    if info["state"] in ENDED:
        return "" if info["state"] == "finished" else f"did not finish: {info['error'] or info['state']}"
    return "was never started." if was_never_started(before) else ""


def was_never_started(run: RunFolder) -> bool:
    """Whether a run without a dependency has been queued for longer than a start takes, so its starter has ended."""
    try:
        changed = (run.path / "run.json").stat().st_mtime
    except FileNotFoundError:  # another process has moved it, which `info` reports
        changed = 0.0
    info = run.info()
    return info["state"] == "queued" and not info.get("after") and time.time() - changed > _START_SECONDS


def await_start(run: RunFolder) -> None:
    """Wait until a queued run without a dependency has started; raises InputError if no process starts it."""
    while run.info()["state"] == "queued" and not run.info().get("after"):
        if was_never_started(run):
            raise InputError(
                f"The run {run.name} was never started: it was only prepared, or its starter was killed; start it with "
                f"`tokalign-lab runs resume {shlex.quote(str(run.path))}`."
            )
        time.sleep(_POLL_SECONDS)


def main(root: Path) -> None:
    """Start the queued runs of a folder until none is left; ends immediately if another process does this already."""
    with ExitStack() as mine:
        try:
            mine.enter_context(lock(root / ".queue.watcher", wait=0))
        except Busy:
            return
        while root.is_dir():
            with locked(root):
                if not start_ready(root):
                    mine.close()  # under the other lock, so that a process that queues a run now starts another starter
                    return
            time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
