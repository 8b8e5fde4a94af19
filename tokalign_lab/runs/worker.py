"""The process that does a run's work: `python -m tokalign_lab.runs.worker FOLDER [--resume]`.

It reports its id in `run.json` before it imports torch, and writes a heartbeat every two seconds to show that it does
not hang. It stops when the file `cancel` appears: at the next step boundary or, if there is none within the grace
period, by interrupting itself. A pause has no grace period: it waits for the boundary, so that no work is lost. Every
end is recorded: finished, failed, cancelled or paused. If its folder is deleted, it ends immediately with a message.

A launcher (`accelerate launch`, torchrun) may start several processes for one folder. The first one is the run; the
others compute with it and report nothing. The run holds the lock of the folder while it works: a second worker on the
folder ends with a message and writes nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
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
_RESERVED_BYTES = 65_536  # size of the lock file, which is freed on a full disk to record how the run ended
SILENT_SECONDS = 60.0  # how long processes wait for each other's files; shared disks are slow to show them


class Cancelled(BaseException):
    """Ends a run that the user cancelled or paused; it is no `Exception`, so that ordinary handlers do not catch it."""


class RunContext:
    """The context of a run kind's function: the folder for its files, whether to `resume`, `emit` for its events."""

    def __init__(self, folder: RunFolder, resume: bool) -> None:
        self.folder = folder
        self.resume = resume
        self.emit = folder.emit
        self._last_told = 0.0

    def interrupt(self) -> None:
        """Raise `Cancelled` if a stop was requested; called at every step boundary."""
        if self.folder.cancel_file.exists():
            raise Cancelled

    def progress(self, share: float, message: str) -> None:
        """Report progress as an event, at most twice per second, and check for a cancellation."""
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
    run.worker_lock.write_bytes(bytes(_RESERVED_BYTES))
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
            return _end(run, "failed", "Another process of this run has ended; see its log. Resume it.")
        return _end(run, run.asked or "cancelled", None)
    except (InputError, Diverged) as error:
        return _end(run, "failed", str(error), bad_input=isinstance(error, InputError))
    except BaseException as error:
        traceback.print_exc()
        return _end(run, "failed", f"{type(error).__name__}: {error}")
    return _end(run, "finished", None)


class _SilentContext(RunContext):
    """Context of a process other than the first, which reports and checks for cancellation."""

    def __init__(self, folder: RunFolder, resume: bool) -> None:
        super().__init__(folder, resume)
        self.emit = lambda event: None

    def interrupt(self) -> None:
        """Do nothing."""


def _assist(run: RunFolder, info: dict[str, Any], resume: bool) -> int:
    """Compute with the first process; returns the exit code.

    An error that ends all processes ends this one without a message, after the first one: if a launcher saw it fail, it
    would kill the first process before that has recorded the reason. If only this process has failed, it logs the
    reason and fails, because the first one would wait for it.
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
    _exit_if_deleted(run)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing may interrupt the writing of the end
    with suppress(OSError, InputError):  # the disk may be full; the state matters more than the event
        os.truncate(run.worker_lock, 0)
        run.emit({"kind": "ended", "state": state, "error": error})
    try:
        run.update(state=state, ended=provenance.now(), error=error, bad_input=bad_input)
    except InputError:
        _exit_if_deleted(run)
        raise
    return 0 if state == "finished" else 1


def _exit_if_deleted(run: RunFolder) -> None:
    """End the process if its folder was deleted: nothing can be recorded, and a checkpoint would recreate the folder.

    The check is repeated three times, because shared disks may hide a file for a moment.
    """
    for _ in range(3):
        if run.exists:
            return
        time.sleep(0.25)
    if not run.exists:
        print(f"The run folder {run.path} was deleted or moved, so its process ends.", file=sys.stderr, flush=True)
        os._exit(1)


def _raise_cancelled(signal_number: int, frame: FrameType | None) -> None:
    raise Cancelled


def _watch(run: RunFolder) -> None:
    """Write heartbeats; if a requested stop reaches no boundary, interrupt the main thread, then end the process."""
    asked: float | None = None
    terminated = False
    last_beat = 0.0
    while True:
        _exit_if_deleted(run)
        now = time.monotonic()
        if now - last_beat >= HEARTBEAT_SECONDS:
            last_beat = now
            with suppress(OSError, InputError):  # deleted just now, or the disk is full
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
    """Record the end and exit, because the main thread is in native code, which a signal cannot interrupt."""
    try:
        if run.info()["state"] == "running":
            run.update(state="cancelled", ended=provenance.now())
    finally:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
