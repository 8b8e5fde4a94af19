"""The run folder: the only truth about a job.

`run.json` (written by rename) says what the job is and how it stands; `events.jsonl` (only appended) says what it
did; `log.txt` is what the process printed. The job runs in its own process, so a closed tab or a restarted kernel
loses nothing: open the folder again and read. States: queued, running, finished, failed, cancelled, paused, lost (it
was running and its process is gone), damaged (its `run.json` cannot be used).

One worker at a time works on a folder: it holds the lock `.worker.lock`, which the operating system frees when the
process ends. Who starts a run holds `.start.lock` meanwhile, so that of two who start or resume it at once the second
gets `AlreadyRunning` and follows the first.

A run is asked to stop by the file `cancel`. Pausing is the same with another word in it: the process ends, its last
step is in a checkpoint, and `resume` goes on. The words differ in what they promise. A pause waits for the step to end;
a cancellation waits a few seconds only.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_file, write_json
from tokalign_lab.locks import Busy, lock
from tokalign_lab.progress import Progress
from tokalign_lab.provenance import installed_versions, now
from tokalign_lab.runs import process
from tokalign_lab.runs.events import Event, EventLog, curve
from tokalign_lab.runs.schema import DAMAGED, read_info

ENDED = frozenset({"finished", "failed", "cancelled", "paused", "lost", DAMAGED})
RESUMABLE = ENDED - {"finished", DAMAGED}
LEAVE_SECONDS = 10.0
"""How long a new worker waits for the one before it to leave, after a cancellation, say."""
_POLL_SECONDS = 0.1
_TAIL_BYTES = 65_536


class AlreadyRunning(InputError):
    """The run is running already, or another process has just started it; follow that one."""


def checked_title(title: str) -> str:
    """Return a run's name for people without the space around it.

    Raises
    ------
    InputError
        When it is not one line of 1 to 80 characters.
    """
    title = title.strip()
    if not 0 < len(title) <= 80 or not title.isprintable():
        raise InputError(f"A run's name is one line of 1 to 80 characters, not {title!r}.")
    return title


class RunFolder:
    """One run, read from and written to its folder.

    Parameters
    ----------
    path
        The folder. Use `RunFolder.create` for a new run and `runs.control.start` to create and start one.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._log = EventLog(self.path / "events.jsonl")

    @classmethod
    def create(cls, path: Path | str, kind: str, settings: dict[str, Any]) -> RunFolder:
        """Make a folder for a run that has not started.

        Raises
        ------
        InputError
            When the folder already holds a run, or the settings are not plain JSON.
        """
        run = cls(path)
        holds_one = InputError(f"{run.path} already holds a run; resume it or choose another folder.")
        if (run.path / "run.json").exists():
            raise holds_one
        try:
            json.dumps(settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"The settings of a run must be plain JSON values ({error}).") from error
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"The run folder {run.path} cannot be made ({error.strerror}).") from error
        with run._starting():
            if (run.path / "run.json").exists():  # another process was quicker
                raise holds_one
            run.update(
                name=run.path.name,
                kind=kind,
                state="queued",
                pid=None,
                pid_started=None,
                settings=settings,
                cwd=os.getcwd(),
                versions={"python": platform.python_version(), **installed_versions()},
                created=now(),
                ended=None,
                error=None,
            )
        return run

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, {self.state})"

    def info(self) -> dict[str, Any]:
        """Read `run.json` as it is on disk; where it is damaged, what to show instead (see `schema.read_info`).

        Raises
        ------
        InputError
            When the folder holds no run.
        """
        return read_info(self.path / "run.json")

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json`, by rename."""
        current = self.info() if (self.path / "run.json").exists() else {}
        if current.get("recorded"):
            self.check_own("change it")
        if current.get("state") == DAMAGED:
            raise InputError(f"The run {self.name} cannot be changed: {current['error']}")
        write_json(self.path / "run.json", {**current, **changes})

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """How the run stands, after `reconcile`."""
        return str(self.reconcile()["state"])

    @property
    def recorded(self) -> bool:
        """Whether this is a recorded run (see `runs.gallery`): looked at, never worked on."""
        return bool(self.info().get("recorded"))

    def check_own(self, what: str) -> None:
        """Raise `InputError` where the run is a recorded one, which one cannot `what`."""
        if self.recorded:
            raise InputError(f"'{self.title}' is a recorded run, to be looked at and compared; one cannot {what}.")

    def place(self, path: Path | str) -> Path:
        """Return the place that a path in the run's settings means: a relative one begins where the run was made."""
        made_in = self.info().get("cwd")
        return Path(path) if made_in is None else Path(os.path.normpath(self.path / made_in / path))

    @property
    def cancel_file(self) -> Path:
        """The file whose presence asks the worker to stop."""
        return self.path / "cancel"

    @property
    def asked(self) -> str:
        """How the run was asked to end: "cancelled", "paused", or "" when it was not."""
        try:
            return "paused" if self.cancel_file.read_bytes() == b"paused" else "cancelled"
        except FileNotFoundError:
            return ""
        except OSError:  # a folder of that name, say
            return "cancelled"

    @property
    def title(self) -> str:
        """What people call the run: the name it was given, else the folder's."""
        try:
            told = (self.path / "title.txt").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return self.name
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in told[:80]) or self.name

    def entitle(self, title: str) -> None:
        """Give the run another name for people; the folder keeps its own, because other runs' settings name it.

        Raises
        ------
        InputError
            For a title that is not one line of 1 to 80 characters.
        """
        self.check_own("rename it")
        with atomic_file(self.path / "title.txt") as temporary:  # apart from run.json, which the worker writes
            temporary.write_text(checked_title(title), encoding="utf-8")

    def reconcile(self) -> dict[str, Any]:
        """`run.json`, corrected when it says "running" and the process is gone."""
        info = self.info()
        if info["state"] != "running" or process.is_alive(info["pid"], info["pid_started"]):
            return info
        info = self.info()  # the worker may have ended properly between the two looks
        if info["state"] != "running" or process.is_alive(info["pid"], info["pid_started"]):
            return info
        asked = self.asked
        if asked:
            self.update(state=asked, ended=now())
        else:
            error = "The run's process is gone without a word (killed, out of memory, or the machine restarted)."
            self.update(state="lost", ended=now(), error=error)
        return self.info()

    def start(self, resume: bool = False, timeout: float = 60.0) -> None:
        """Start the worker and wait until it has reported itself in `run.json`.

        Raises
        ------
        AlreadyRunning
            When the run is running, or another process has started it meanwhile.
        InputError
            When the run is to be resumed and has finished, or is a recorded one.
        """
        self.check_own("start it: what it works on is not kept")
        with self._starting() as waited:
            state = self.state
            if state == "running":
                raise AlreadyRunning(f"The run {self.name} is already running.")
            if waited and state != "queued":
                raise AlreadyRunning(f"The run {self.name} was just started by another process; it is {state} now.")
            if resume and state == "finished":
                raise InputError(f"The run {self.name} has finished; there is nothing to resume.")
            try:
                with lock(self.worker_lock, wait=LEAVE_SECONDS):
                    pass
            except Busy:
                raise AlreadyRunning(f"Another process still works on the run {self.name}.") from None
            self._start(resume, timeout)

    def _starting(self) -> AbstractContextManager[bool]:
        """Hold the lock of those who start the run; yields whether another held it first."""
        return lock(self.path / ".start.lock")

    @property
    def worker_lock(self) -> Path:
        """The file whose lock the worker holds while it works."""
        return self.path / ".worker.lock"

    def _start(self, resume: bool, timeout: float) -> None:
        self.cancel_file.unlink(missing_ok=True)
        self.update(state="queued", pid=None, pid_started=None, ended=None, error=None)
        arguments = [str(self.path.resolve()), *(["--resume"] if resume else [])]
        launcher = process.launcher(self.info()["settings"])
        child = process.spawn(arguments, self.path / "log.txt", self._working_folder(), launcher)
        deadline = time.monotonic() + timeout
        while self.info()["state"] == "queued":
            if child.poll() is not None or time.monotonic() > deadline:
                if self.info()["state"] == "queued":
                    reason = self.log_tail(1) or "the worker did not start"
                    self.update(state="failed", ended=now(), error=f"The run could not start: {reason}")
                return
            time.sleep(0.02)

    def _working_folder(self) -> str | None:
        """Return where the run was made, so that relative paths in its settings mean the same when it is resumed."""
        made_in = self.info().get("cwd")
        return made_in if made_in and os.path.isdir(made_in) else None

    def resume(self) -> None:
        """Start again from the last checkpoint (or from the beginning where there is none).

        Raises
        ------
        AlreadyRunning
            When the run is running, or another process has started it meanwhile.
        InputError
            When the run has finished, or is a recorded one.
        """
        self.check_own("resume it")
        self.start(resume=True)

    def request_cancel(self) -> None:
        """Ask the worker to stop, and return at once.

        The worker looks at each step boundary; when it has not stopped after its grace period it interrupts
        itself, so this is enough for a button.
        """
        self._ask("cancelled")

    def request_pause(self) -> None:
        """Ask the worker to stop once the step that runs is done and kept in a checkpoint, and return at once.

        However long that step takes, nothing interrupts it; a cancellation may follow.
        """
        self._ask("paused")

    def _ask(self, how: str) -> None:
        state = self.state
        if state in ENDED:
            return
        with atomic_file(self.cancel_file) as temporary:
            temporary.write_text(how, encoding="utf-8")
        if state == "queued":  # never started
            self.update(state=how, ended=now())

    def cancel(self, grace: float = 8.0) -> str:
        """Stop the run: ask, after `grace` seconds terminate, after as long again kill. Returns the state."""
        self.request_cancel()
        for signal_number in (None, signal.SIGTERM, signal.SIGKILL):
            info = self.reconcile()
            if signal_number is not None and info["state"] == "running":
                process.send(info["pid"], info["pid_started"], signal_number)
            deadline = time.monotonic() + grace
            while self.state == "running" and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        return self.state

    def wait(self, progress: Progress | None = None, timeout: float | None = None) -> str:
        """Wait until the run has ended, or `timeout` seconds; returns the state.

        `progress` is told the latest share and message that the run has reported.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        offset = 0
        while True:
            state = self.state
            events, offset = self.events(offset)
            told = [event for event in events if isinstance(event.get("share"), int | float)]
            if progress is not None and told:
                progress(told[-1]["share"], str(told[-1].get("message", "")))
            if state in ENDED or (deadline is not None and time.monotonic() > deadline):
                return state
            time.sleep(_POLL_SECONDS)

    def emit(self, event: Event) -> None:
        """Append one event (the worker's side)."""
        self._log.append(event)

    def events(self, since: int = 0) -> tuple[list[Event], int]:
        """Events after byte offset `since`, and the offset for the next call."""
        return self._log.read(since)

    def curve(self, kind: str = "step") -> list[Event]:
        """One event of `kind` per step, consistent over resumes (see `events.curve`)."""
        return curve(self.events()[0], kind)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of what the process printed; only the file's end is read."""
        try:
            with open(self.path / "log.txt", "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.rstrip().splitlines()[-lines:])
