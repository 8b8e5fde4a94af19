"""Runs that wait for another run are started once, by the first process that checks, even if the queuing process ended.

The run kind in this file exists only here: its workers start, write an event and end, which is enough to test a queue.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tokalign_lab.cli import app
from tokalign_lab.errors import InputError
from tokalign_lab.runs import queue
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.process import start_time
from tokalign_lab.runs.queue import locked, start_after, start_ready, start_waiting

WAIT_S = 120  # enough on a busy machine


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)


def starts(run: RunFolder) -> int:
    """Return the number of workers that have finished in a folder."""
    return sum(event["kind"] == "ended" for event in run.events()[0])


def make(root: Path, name: str, **fields: Any) -> RunFolder:
    run = RunFolder.create(root / name, "nothing", {})
    run.update(**fields)
    return run


def running(root: Path, name: str) -> RunFolder:
    """Make a run whose process is this one."""
    return make(root, name, state="running", pid=os.getpid(), pid_started=start_time(os.getpid()))


def python(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_two_processes_on_one_queue_start_each_run_once(tmp_path: Path) -> None:
    make(tmp_path, "first", state="finished")
    waiting = [make(tmp_path, f"next-{i}", after="first") for i in range(3)]
    code = """
import sys, time
from pathlib import Path
from tokalign_lab.runs.queue import locked, start_ready
root = Path(sys.argv[1])
(root / f"ready-{sys.argv[2]}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.001)
with locked(root):
    start_ready(root)
"""
    racers = [python(code, str(tmp_path), str(number)) for number in range(2)]
    assert [racer.communicate(timeout=WAIT_S)[1] for racer in racers] == [b"", b""]
    wait_for(lambda: all(run.state == "failed" for run in waiting))
    assert [starts(run) for run in waiting] == [1, 1, 1]
    assert all("no kind of run named" in run.info()["error"] for run in waiting)


def test_two_requests_with_the_same_settings_get_one_run(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from tokalign_lab.runs.queue import find_or_start
root = Path(sys.argv[1])
(root / f"ready-{sys.argv[2]}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.001)
print(find_or_start("measure", {"model": "x", "text": [], "seed": 1}, root).name)
"""
    racers = [python(code, str(tmp_path), str(number)) for number in range(2)]
    values = [racer.communicate(timeout=WAIT_S) for racer in racers]
    assert values[0] == values[1]
    assert values[0][1] == b"", "neither failed because of the other run"
    (file,) = tmp_path.glob("*/run.json")
    assert values[0][0].decode().strip() == file.parent.name


def test_a_queued_run_starts_after_the_kernel_that_queued_it_was_killed(tmp_path: Path) -> None:
    before, after = running(tmp_path, "before"), make(tmp_path, "after")
    code = """
import os, signal, sys
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.queue import start_after
start_after(RunFolder(sys.argv[1]), RunFolder(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    kernel = python(code, str(after.path), str(before.path))
    assert (kernel.wait(WAIT_S), kernel.stderr.read()) == (-9, b"")
    time.sleep(1.0)
    assert after.state == "queued", "the run that it needs does not exist yet"
    before.update(state="finished")
    wait_for(lambda: after.state == "failed")
    assert "no kind of run named" in after.info()["error"]
    wait_for(lambda: is_free(tmp_path / ".queue.watcher"))  # the process that watches the queue ends with it


def is_free(lock: Path) -> bool:
    with open(lock, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": "failed", "error": "Out of memory."}, "The run it needs, before, did not finish: Out of memory."),
        ({"state": "cancelled"}, "The run it needs, before, did not finish: cancelled"),
        ({"state": "running", "pid": 2**22 + 1}, "The run it needs, before, did not finish: The run's process is gone"),
        (None, "The run it needs, before, is gone."),
    ],
)
def test_a_run_that_can_never_start_reports_why(tmp_path: Path, fields: dict[str, Any] | None, words: str) -> None:
    if fields is not None:
        make(tmp_path, "before", **fields)
    run = make(tmp_path, "run", after="before")
    with locked(tmp_path):
        assert not start_ready(tmp_path)
    assert run.state == "failed"
    assert run.info()["error"].startswith(words)
    assert starts(run) == 0


def test_a_run_does_not_wait_forever_for_one_that_was_never_started(tmp_path: Path) -> None:
    before, run = make(tmp_path, "before"), make(tmp_path, "run", after="before")
    with locked(tmp_path):
        assert start_ready(tmp_path), "it may be starting"
    old = time.time() - 3600
    os.utime(before.path / "run.json", (old, old))
    with locked(tmp_path):
        assert not start_ready(tmp_path)
    assert "was never started" in run.info()["error"]


def test_a_run_that_was_never_started_is_not_watched_forever(tmp_path: Path) -> None:
    run = make(tmp_path, "run")
    old = time.time() - 3600
    os.utime(run.path / "run.json", (old, old))
    ended = CliRunner().invoke(app, ["runs", "watch", str(run.path)])
    assert ended.exit_code == 2
    assert "was never started" in ended.output


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"settings": {"processes": -1}}, "must be a whole number"),
        ({"kind": "adapt", "settings": {"model": "before/model", "text": ["default"]}}, "before/model does not exist"),
        ({"kind": "align", "settings": {"text": ["default", "/gone.txt"]}}, "The text /gone.txt does not exist"),
    ],
)
def test_settings_that_cannot_be_started_end_the_run(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    make(tmp_path, "before", state="finished")
    run = make(tmp_path, "run", after="before", cwd=str(tmp_path), **fields)
    with locked(tmp_path):
        assert not start_ready(tmp_path)
    assert words in run.info()["error"]
    assert not (run.path / "log.txt").exists(), "no process started"


def test_a_run_whose_model_was_deleted_is_not_resumed(tmp_path: Path) -> None:
    gone = {"model": str(tmp_path / "model"), "text": ["default"]}
    run = make(tmp_path, "run", kind="adapt", state="cancelled", settings=gone)
    for start in (run.resume, run.start):
        with pytest.raises(InputError, match=r"The model .* does not exist .*; make it again"):
            start()
    assert (run.state, run.info()["error"]) == ("cancelled", None)


def test_a_cancelled_run_is_not_started_and_restarts_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_spawned", [])  # only the processes of this test
    before, run = running(tmp_path, "before"), make(tmp_path, "run")
    start_after(run, before)
    run.request_cancel()
    before.update(state="finished")
    start_after(run, before)
    assert [process.wait(WAIT_S) for process in queue._spawned] == [0]
    assert (run.state, starts(run)) == ("cancelled", 0)
    start_after(run, before, again=True)
    wait_for(lambda: run.state == "failed")
    assert starts(run) == 1


@pytest.mark.parametrize(
    ("look", "before"), [("_why_never", "finished"), ("_start", "finished"), ("_why_never", "failed")]
)
def test_a_run_cancelled_while_the_queue_checks_it_stays_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str, before: str
) -> None:
    make(tmp_path, "before", state=before)
    run = make(tmp_path, "run", after="before")
    place = queue if look == "_why_never" else RunFolder
    original = getattr(place, look)

    def cancel_first(*arguments: Any) -> Any:
        monkeypatch.setattr(place, look, original)
        run.request_cancel()
        return original(*arguments)

    monkeypatch.setattr(place, look, cancel_first)
    with locked(tmp_path):
        assert not start_ready(tmp_path)
    wait_for(lambda: run.state not in ("queued", "running"))
    assert (run.state, run.info()["error"]) == ("cancelled", None)


def test_an_empty_queue_starts_no_process_and_writes_nothing(tmp_path: Path) -> None:
    start_waiting(tmp_path)
    start_waiting(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
