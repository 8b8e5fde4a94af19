"""The run folder: the only record of a job.

`run.json` (replaced by rename) describes the job and its state; `events.jsonl` (append-only) holds what it reported;
`log.txt` is what the process printed. The job runs in its own process, so a closed tab or a restarted kernel loses
nothing. States: queued, running, finished, failed, cancelled, paused, lost (it was running and its process is gone),
damaged (its `run.json` cannot be used).

Only one worker at a time works on a folder. It holds the lock `.worker.lock`, which the operating system releases when
the process ends. A process holds `.start.lock` while it starts a run. So if two processes start a run at once, the
second gets `AlreadyRunning` and follows the first.

The file `cancel` requests a run to stop. If it contains "paused", the process finishes the current step, saves a
checkpoint and ends. If it contains "cancelled", the process has only a few seconds for that. After both, `resume`
continues from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tokalign_lab.errors import DiskError, InputError
from tokalign_lab.files import atomic_file, resolved, write_json
from tokalign_lab.locks import Busy, lock
from tokalign_lab.progress import Progress, silent
from tokalign_lab.provenance import installed_versions, now
from tokalign_lab.runs import process
from tokalign_lab.runs.events import Event, EventLog, curve
from tokalign_lab.runs.schema import DAMAGED, kept_settings, placed_settings, read_info

ENDED = frozenset({"finished", "failed", "cancelled", "paused", "lost", DAMAGED})
RESUMABLE = ENDED - {"finished", DAMAGED}
LEAVE_SECONDS = 10.0
"""How long a new worker waits for the previous one to end."""
_POLL_SECONDS = 0.1
_TAIL_BYTES = 65_536


class AlreadyRunning(InputError):
    """The run is running already, or another process has just started it; follow that one."""


def checked_title(title: str) -> str:
    """Return a run's title without the space around it; `InputError` if it is not one line of 1 to 80 characters."""
    title = title.strip()
    if not 0 < len(title) <= 80 or not title.isprintable():
        raise InputError(f"A run's name is one line of 1 to 80 characters, not {title!r}.")
    return title


def run_folders(root: Path) -> list[RunFolder]:
    """List every run in a folder of runs by name, also damaged ones; folders without a `run.json` are skipped."""
    return [RunFolder(file.parent) for file in sorted(root.glob("*/run.json"))]


class RunFolder:
    """One run, read from and written to its folder.

    Parameters
    ----------
    path : the folder. Use `RunFolder.create` for a new run and `runs.control.start` to create and start one.

    Attributes
    ----------
    events : `read` of its `EventLog`
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._log = EventLog(self.path / "events.jsonl")
        self.events = self._log.read

    @classmethod
    def create(cls, path: Path | str, kind: str, settings: dict[str, Any]) -> RunFolder:
        """Make a folder for a run that has not started.

        The settings of a tuning run are completed by `schema.kept_settings`. Raises `InputError` when the folder
        already holds a run or other files, or the settings are not plain JSON.
        """
        run = cls(path)
        try:
            json.dumps(settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"The settings of a run must be plain JSON values ({error}).") from error
        try:
            resolved(run.path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"The run folder {run.path} cannot be made ({error.strerror}).") from error
        with run._unmoved(), run._starting():
            if run.exists:
                raise InputError(f"{run.path} already holds a run; resume it or choose another folder.")
            # The folder is missing if another process has moved it.
            if any(
                file.name != run._start_lock.name and not fnmatch(file.name, ".run*-*.json")  # left by a killed start
                for file in run.path.glob("*")
            ):
                raise InputError(f"{run.path} holds files that are not a run's; choose an empty or a new folder.")
            info = dict(
                name=run.path.name,
                kind=kind,
                state="queued",
                pid=None,
                pid_started=None,
                settings=kept_settings(kind, settings),
                cwd=os.getcwd(),
                versions={"python": platform.python_version(), **installed_versions()},
                created=now(),
                ended=None,
                error=None,
            )
            write_json(run.path / "run.json", info, make_folder=False)
        return run

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, {self.state})"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "run.json").is_file()

    def info(self) -> dict[str, Any]:
        """Read `run.json`; if it is damaged, a description of that (see `schema.read_info`).

        Raises `InputError` when the folder holds no run.
        """
        return read_info(self.path / "run.json")

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json` atomically. Raises `InputError` if the folder has no run (any more)."""
        current = self.info()
        if current.get("recorded"):
            self.check_own("change it")
        if current.get("state") == DAMAGED:
            raise InputError(f"The run {self.name} cannot be changed: {current['error']}")
        write_json(self.path / "run.json", {**current, **changes}, make_folder=False)  # it may be in the trash now

    def emit(self, event: Event) -> None:
        """Add an event to the log, as `EventLog.append`; raises `InputError` if another process moves the folder."""
        with self._unmoved():
            self._log.append(event)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """The state of the run, after `reconcile`."""
        return str(self.reconcile()["state"])

    @property
    def recorded(self) -> bool:
        """Whether the run is read-only, because it ships with the package (see `runs.gallery`)."""
        return bool(self.info().get("recorded"))

    def check_own(self, what: str) -> None:
        """Raise `InputError` if the run is read-only; `what` completes the sentence."""
        if self.recorded:
            raise InputError(f"'{self.title}' is a recorded run and read-only; one cannot {what}.")

    def place(self, path: Path | str) -> Path:
        """Resolve a path of the run's settings; relative paths start at the run's working folder."""
        made_in = self.info().get("cwd")
        return Path(path) if made_in is None else Path(os.path.normpath(self.path / made_in / path))

    def settings(self) -> dict[str, Any]:
        """Return the settings; paths of existing files are resolved from the run's working folder."""
        return placed_settings(self.info(), self.path)

    def check_inputs(self, changes: Mapping[str, Any] | None = None) -> None:
        """Raise `InputError` if a file or folder that the settings name, with `changes`, does not exist any more.

        A relative path is checked only if it leads to another run's results: it may be a hub id.
        """
        from tokalign_lab.runs.kinds import KINDS  # imports the engine

        info = self.info()
        options = KINDS[info["kind"]].settings.options() if info["kind"] in KINDS else []
        for one in (option for option in options if option.path and option.name != "out"):
            held = {**info["settings"], **(changes or {})}.get(one.name)
            for given in held if isinstance(held, list) else filter(None, [held]):
                path = self.place(given)
                if (Path(given).is_absolute() or RunFolder(path.parent).exists) and not path.exists():
                    raise InputError(
                        f"The {one.name} {path} does not exist (any more); make it again, or choose another."
                    )

    @property
    def cancel_file(self) -> Path:
        """The file that requests the worker to stop."""
        return self.path / "cancel"

    @property
    def worker_lock(self) -> Path:
        """The file whose lock the worker holds while it works."""
        return self.path / ".worker.lock"

    @property
    def asked(self) -> str:
        """The requested stop: "cancelled", "paused", or "" for none."""
        try:
            return "paused" if self.cancel_file.read_bytes() == b"paused" else "cancelled"
        except FileNotFoundError:
            return ""
        except OSError:  # a folder of that name, for example
            return "cancelled"

    @property
    def title(self) -> str:
        """The run's display name: the title that the user gave it, else the name of its folder."""
        file = self.path / "title.txt"
        try:
            given = file.read_text(encoding="utf-8", errors="replace").strip() if file.is_file() else ""  # no pipe
        except OSError:
            return self.name
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in given[:80]) or self.name

    def entitle(self, title: str) -> None:
        """Give the run another title; the folder keeps its name, because settings of other runs refer to it.

        Raises `InputError` for a title that is not one line of 1 to 80 characters.
        """
        self.check_own("rename it")
        # Separate from run.json, which the worker writes.
        with atomic_file(self.path / "title.txt", make_folder=False) as temporary:
            temporary.write_text(checked_title(title), encoding="utf-8")

    def reconcile(self) -> dict[str, Any]:
        """Return `run.json`; if its state is "running" but the process is gone, set the state to "lost"."""
        for _ in range(2):  # the worker may have ended normally between the two reads
            info = self.info()
            if info["state"] != "running" or self._worker(info) is not None:
                return info
        gone = "The run's process is gone without a word (killed, out of memory, or the machine restarted)."
        found = {"state": self.asked or "lost", "ended": now(), "error": None if self.asked else gone}
        with suppress(DiskError):  # show the run even on a full or read-only disk
            self.update(**found)
        return {**info, **found}

    def _worker(self, info: dict[str, Any]) -> int | None:
        """Return the id of the process that works on the run: None if there is none, 0 if it is on another machine.

        The system derives a process's start time from the clock. After a change of the clock, the worker is the process
        of that id which has the locked file open.
        """
        if process.is_alive(info["pid"], info["pid_started"]):
            return int(info["pid"])
        try:
            with lock(self.worker_lock, wait=0):
                return None
        except Busy:
            return info["pid"] if process.has_open(info["pid"], self.worker_lock) else 0
        except OSError:  # read-only
            return None

    def start(self, resume: bool = False, timeout: float = 60.0, queued: bool = False) -> None:
        """Start the worker and wait until it has reported itself in `run.json`.

        With `queued`, the run starts only if it is still queued. Raises `AlreadyRunning` if the run is running, or
        another process has started or cancelled it in the meantime. Raises `InputError` if the run is read-only, or is
        to be resumed but has finished.
        """
        self.check_own("start it: what it works on is not kept")
        with self._unmoved(), self._starting() as waited:
            state = self.state
            if state == "running":
                raise AlreadyRunning(f"The run {self.name} is already running.")
            if (waited or queued) and state != "queued":
                raise AlreadyRunning(f"The run {self.name} is no longer queued; it is {state} now.")
            if resume and state == "finished":
                raise InputError(f"The run {self.name} has finished; there is nothing to resume.")
            if queued or state != "queued":
                self.check_inputs()
            try:
                with lock(self.worker_lock, wait=LEAVE_SECONDS):
                    pass
            except Busy:
                raise AlreadyRunning(f"Another process still works on the run {self.name}.") from None
            if state != "queued":
                self.cancel_file.unlink(missing_ok=True)  # left from an earlier start; a later one stops the new worker
            self._start(resume, timeout)

    @contextmanager
    def _unmoved(self) -> Iterator[None]:
        """Raise `InputError` if another process moves the folder in the meantime."""
        try:
            yield
        except FileNotFoundError:
            raise InputError(f"Another process has just moved {self.path}; try again.") from None

    def _starting(self) -> AbstractContextManager[bool]:
        """Hold the start lock; yields whether another process held it first."""
        return lock(self._start_lock)

    @property
    def _start_lock(self) -> Path:
        return self.path / ".start.lock"

    def _start(self, resume: bool, timeout: float) -> None:
        self.update(state="queued", pid=None, pid_started=None, ended=None, error=None)
        info = self.info()
        arguments = [str(self.path.resolve()), *(["--resume"] if resume else [])]
        # Relative paths in the settings must mean the same when the run is resumed from another folder.
        made_in = info["cwd"] if info["cwd"] and os.path.isdir(info["cwd"]) else None
        child = process.spawn(arguments, self.path / "log.txt", made_in, process.launcher(info["settings"]))
        deadline = time.monotonic() + timeout
        while self.info()["state"] == "queued":
            if child.poll() is not None or time.monotonic() > deadline:
                if self.info()["state"] == "queued":
                    self.give_up(f"The run could not start: {self.log_tail(1) or 'the worker did not start'}")
                return
            time.sleep(0.02)

    def give_up(self, error: str) -> None:
        """Mark a queued run that can never start as failed, or as cancelled if a request came in the meantime."""
        self.update(state="failed", ended=now(), error=error)
        if self.asked:  # a request is written before the state changes, so it is not missed
            self.update(state=self.asked, error=None)

    def resume(self) -> None:
        """Continue from the last checkpoint, or from the beginning if there is none; raises as `start`."""
        self.check_own("resume it")
        self.start(resume=True)

    def request_cancel(self) -> None:
        """Request the worker to stop, and return immediately.

        The worker checks at each step boundary. If it has not stopped after its grace period, it interrupts itself, so
        a button needs only this call.
        """
        self._ask("cancelled")

    def request_pause(self) -> None:
        """Ask the worker to finish the current step, save a checkpoint and stop; returns immediately.

        The step is not interrupted, even if it takes long; a cancellation may follow.
        """
        self._ask("paused")

    def _ask(self, how: str) -> None:
        state = self.state
        if state in ENDED:
            return
        with atomic_file(self.cancel_file, make_folder=False) as temporary:
            temporary.write_text(how, encoding="utf-8")
        if state == "queued":  # never started
            self.update(state=how, ended=now(), error=None)

    def cancel(self, grace: float = 8.0) -> str:
        """Stop the run: send a request, terminate after `grace` seconds, kill after `grace` more. Returns the state.

        It waits up to `LEAVE_SECONDS` for a killed process to end.
        """
        self.request_cancel()
        for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
            info = self.reconcile()
            if signal_number is not None and info["state"] == "running" and (worker := self._worker(info)):
                process.send(worker, signal_number)
            # a killed process needs no grace, but a busy machine takes a moment to end it
            deadline = time.monotonic() + (max(grace, LEAVE_SECONDS) if signal_number == signal.SIGKILL else grace)
            while self.state == "running" and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        return self.state

    def wait(self, progress: Progress = silent, timeout: float | None = None) -> str:
        """Wait until the run has ended, or `timeout` seconds; returns the state.

        `progress` receives the latest share and message of the run.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        offset = 0
        while True:
            state = self.state
            events, offset = self.events(offset)
            reported = [event for event in events if isinstance(event.get("share"), int | float)]
            if reported:
                progress(reported[-1]["share"], str(reported[-1].get("message", "")))
            if state in ENDED or (deadline is not None and time.monotonic() > deadline):
                return state
            time.sleep(_POLL_SECONDS)

    def curve(self, kind: str = "step") -> list[Event]:
        """Return one event of `kind` per step, consistent over resumes (see `events.curve`)."""
        return curve(self.events()[0], kind)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that the process printed; only the end of the file is read."""
        try:
            with open(self.path / "log.txt", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.rstrip().splitlines()[-lines:])
