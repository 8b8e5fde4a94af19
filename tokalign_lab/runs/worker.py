"""The process that does a run's work: `python -m tokalign_lab.runs.worker FOLDER [--resume]`.

It reports its id in `run.json` before anything heavy is imported, writes a heartbeat every two seconds so that
"slow" and "hung" differ, and stops when the file `cancel` appears: at the next step boundary, or, when no boundary
comes within the grace period, by interrupting itself. A pause has no grace period: it waits for the boundary, so that
no work is lost. Every end is written down: finished, failed, cancelled, paused.

A launcher (`accelerate launch`, torchrun) may start it several times over for one folder. The first process is the
run; the others compute with it and say nothing.

It holds the lock of the folder while it works. A second worker on the folder ends with a message and writes nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from tokalign_lab import provenance
from tokalign_lab.adaptation.divergence import Diverged
from tokalign_lab.errors import InputError, plain_disk_errors
from tokalign_lab.locks import Busy, lock
from tokalign_lab.runs.folder import LEAVE_SECONDS, RunFolder
from tokalign_lab.runs.process import start_time

HEARTBEAT_SECONDS = 2.0
CANCEL_GRACE_SECONDS = 5.0
SILENT_SECONDS = 60.0  # how long processes wait for a word of one another; shared disks tell late


class Cancelled(BaseException):
    """Raised in the worker's main thread to end a run that a person has cancelled or paused.

    It is not an `Exception`, so that no handler for ordinary errors swallows it.
    """


class RunContext:
    """What a kind's function is given to talk to the world.

    Attributes
    ----------
    folder : RunFolder
        Where its files go.
    resume : bool
        Whether to go on from what is already in the folder.
    """

    def __init__(self, folder: RunFolder, resume: bool) -> None:
        self.folder = folder
        self.resume = resume
        self._last_told = 0.0

    def emit(self, event: dict[str, object]) -> None:
        """Append an event."""
        self.folder.emit(event)

    def interrupt(self) -> None:
        """Raise `Cancelled` when the run is to stop; called at every step boundary."""
        if self.folder.cancel_file.exists():
            raise Cancelled

    def progress(self, share: float, message: str) -> None:
        """Report progress as an event, at most twice a second, and look for a cancellation."""
        self.interrupt()
        now = time.monotonic()
        if share >= 1.0 or now - self._last_told > 0.5:
            self._last_told = now
            self.emit({"kind": "progress", "share": round(share, 4), "message": message})


def main(arguments: list[str] | None = None) -> int:
    """Run the job of the folder named in `arguments`; returns the process's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    run, resume = RunFolder(Path(arguments[0])), "--resume" in arguments
    if int(os.environ.get("RANK", "0")):
        return _assist(run, run.info(), resume)
    try:
        with lock(run.worker_lock, wait=LEAVE_SECONDS) as waited:
            if not waited or run.info()["state"] == "queued":
                return _work(run, run.info(), resume)
    except Busy:
        pass
    print(f"Another process works on the run {run.name} already; this one ends.", file=sys.stderr)
    return 1


def _work(run: RunFolder, info: dict[str, Any], resume: bool) -> int:
    """Do the work as the only worker of the folder; returns the process's exit code."""
    signal.signal(signal.SIGTERM, _raise_cancelled)
    run.update(state="running", pid=os.getpid(), pid_started=start_time(os.getpid()))
    threading.Thread(target=_watch, args=(run,), daemon=True).start()
    try:
        from tokalign_lab.runs.kinds import run_kind

        context = RunContext(run, resume)
        context.interrupt()
        with plain_disk_errors(run.path):
            run_kind(info["kind"], info["settings"], context)
    except Cancelled:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not run.cancel_file.exists():
            return _end(run, "failed", "Another process of this run has ended; its log says why. Resume it.")
        return _end(run, run.asked or "cancelled", None)
    except (InputError, Diverged) as error:
        return _end(run, "failed", str(error), bad_input=isinstance(error, InputError))
    except BaseException as error:
        traceback.print_exc()
        return _end(run, "failed", f"{type(error).__name__}: {error}")
    return _end(run, "finished", None)


class _SilentContext(RunContext):
    """For a process that only helps: it neither tells anything nor looks for a cancellation."""

    def emit(self, event: dict[str, object]) -> None:
        """Tell nobody."""

    def interrupt(self) -> None:
        """Leave that to the first process."""


def _assist(run: RunFolder, info: dict[str, Any], resume: bool) -> int:
    """Compute with the first process; returns the exit code.

    What ends all of them alike ends this one quietly: a launcher that saw it fail would kill the first process before
    that has written down why. So it leaves after the first one, or, where only this one has ended, says why in the log
    and fails, for the first one would wait for it.
    """
    from tokalign_lab.adaptation.processes import StoppedTogether
    from tokalign_lab.runs.kinds import run_kind

    reason: BaseException | None = None
    try:
        run_kind(info["kind"], info["settings"], _SilentContext(run, resume))
    except (InputError, Diverged, StoppedTogether) as error:
        reason = error
    ended, heartbeats = time.time(), run.path / "events.jsonl"
    while run.info()["state"] == "running" and time.time() - heartbeats.stat().st_mtime < SILENT_SECONDS:
        if reason is not None and time.time() - ended > SILENT_SECONDS:
            print(f"Process {os.environ['RANK']} of the run has ended alone: {reason}", file=sys.stderr)
            return 1
        time.sleep(0.1)
    return 0


def _end(run: RunFolder, state: str, error: str | None, bad_input: bool = False) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is being written: nothing may tear it
    run.emit({"kind": "ended", "state": state, "error": error})
    run.update(state=state, ended=provenance.now(), error=error, bad_input=bad_input)
    return 0 if state == "finished" else 1


def _raise_cancelled(signal_number: int, frame: FrameType | None) -> None:
    raise Cancelled


def _watch(run: RunFolder) -> None:
    """Write heartbeats; when asked to stop and no boundary has come, interrupt the main thread, then end."""
    asked: float | None = None
    terminated = False
    last_beat = 0.0
    while True:
        now = time.monotonic()
        if now - last_beat >= HEARTBEAT_SECONDS:
            last_beat = now
            run.emit({"kind": "heartbeat"})
        if run.asked == "cancelled":
            asked = now if asked is None else asked
            if not terminated and now - asked > CANCEL_GRACE_SECONDS:
                terminated = True
                os.kill(os.getpid(), signal.SIGTERM)
            if now - asked > 3 * CANCEL_GRACE_SECONDS:
                _end_from_thread(run)
        time.sleep(0.25)


def _end_from_thread(run: RunFolder) -> None:
    """Write the end and leave, because the main thread sits in native code that no signal reaches."""
    if run.info()["state"] == "running":
        run.update(state="cancelled", ended=provenance.now())
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
