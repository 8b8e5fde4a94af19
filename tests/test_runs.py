from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tiny import WORDS, save_tiny
from typer.testing import CliRunner

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.cli import app
from tokalign_lab.errors import InputError
from tokalign_lab.locks import Busy, lock
from tokalign_lab.runs import control, kinds, process, results, trash, worker
from tokalign_lab.runs import folder as folder_module
from tokalign_lab.runs.events import EventLog, curve
from tokalign_lab.runs.folder import AlreadyRunning, RunFolder
from tokalign_lab.runs.following import RunFeed

WAIT_S = 120.0  # enough on a busy machine


@pytest.fixture
def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use `runs_worker.py` as the worker: real processes that do little work."""
    monkeypatch.setattr(process, "WORKER", (str(Path(__file__).with_name("runs_worker.py")),))
    monkeypatch.setattr(kinds, "check_kind", lambda *given: None)
    monkeypatch.setenv("TEST_GRACE", "1")


def start(folder: Path, kind: str, **settings: Any) -> RunFolder:
    return control.start(kind, settings, folder)


def steps(run: RunFolder) -> list[int]:
    return [event["step"] for event in run.curve()]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def wait_for_begun(run: RunFolder, step: int) -> None:
    """Wait until a gated run is inside this step."""
    wait_for(lambda: ("begun", step) in [(event["kind"], event.get("step")) for event in run.events()[0]])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; the test is skipped for a user who cannot mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Fill the disk completely; return the file to remove."""
    with open(disk / "ballast", "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return disk / "ballast"


# --- real processes -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("test_kinds")
def test_a_run_finishes_in_its_own_process_and_session(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "count", steps=4, seconds=0.05)
    info = run.info()
    assert info["pid"] != os.getpid()
    assert os.getsid(info["pid"]) != os.getsid(0), "an interrupt of the notebook must not reach it"
    reported: list[float] = []
    assert run.wait(lambda share, message: reported.append(share), timeout=WAIT_S) == "finished"
    assert steps(run) == [1, 2, 3, 4]
    info = run.info()
    assert info["ended"]
    assert info["versions"]["python"]
    assert info["settings"] == {"steps": 4, "seconds": 0.05}
    with pytest.raises(InputError, match="already holds a run"):
        start(tmp_path / "run", "count", steps=4)
    with pytest.raises(InputError, match="has finished"):
        run.resume()


@pytest.mark.usefixtures("test_kinds")
def test_heartbeats_are_written_during_a_long_step(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "sit")
    wait_for(lambda: sum(event["kind"] == "heartbeat" for event in run.events()[0]) >= 2)
    run.cancel()


@pytest.mark.usefixtures("test_kinds")
def test_heartbeats_resume_after_a_full_disk(small_disk: Path) -> None:
    run = start(small_disk / "run", "sit")
    wait_for(lambda: run.events()[0])
    ballast = fill(small_disk)
    time.sleep(2.5)  # one heartbeat finds no space
    before = len(run.events()[0])
    ballast.unlink()
    wait_for(lambda: len(run.events()[0]) > before)
    run.request_cancel()
    assert run.wait(timeout=WAIT_S) == "cancelled", "the same thread ends the run"


@pytest.mark.usefixtures("test_kinds")
def test_a_run_whose_disk_becomes_full_fails_in_a_sentence_and_resumes(small_disk: Path) -> None:
    run = start(small_disk / "run", "count", steps=100_000, seconds=0.01, save_each=True)
    wait_for(lambda: len(steps(run)) >= 2)
    ballast = fill(small_disk)
    assert run.wait(timeout=WAIT_S) == "failed"
    assert run.info()["error"].startswith("The disk is full")
    ballast.unlink()
    done = steps(run)[-1]
    run.resume()
    wait_for(lambda: len(steps(run)) > done)
    assert run.cancel() == "cancelled"
    assert steps(run) == list(range(1, len(steps(run)) + 1)), "no event is lost or incomplete"


@pytest.mark.parametrize("read_only", [False, True])
def test_runs_on_a_disk_that_cannot_be_written_to_are_listed(small_disk: Path, read_only: bool) -> None:
    run = RunFolder.create(small_disk / "run", "count", {})
    run.update(state="running", pid=2**22 + 1, pid_started=1.0)
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    else:
        fill(small_disk)
    listed = CliRunner().invoke(app, ["runs", "list", "--root", str(small_disk), "--json"])
    (row,) = json.loads(listed.stdout)["runs"]
    assert (row["state"], row["error"][:25]) == ("lost", "The run's process is gone")
    assert run.info()["state"] == "running", "it could not be recorded"


@pytest.mark.usefixtures("test_kinds")
def test_a_run_is_not_lost_when_the_clock_is_changed(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "sit")
    info = run.info()
    run.update(pid_started=info["pid_started"] - 3600)  # the system derives it from the clock, which was changed
    assert run.state == "running"
    os.kill(info["pid"], signal.SIGKILL)
    wait_for(lambda: run.state == "lost")


@pytest.mark.usefixtures("test_kinds")
def test_cancel_stops_at_the_next_step_boundary(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "count", steps=1_000, seconds=0.05)
    wait_for(lambda: len(steps(run)) >= 2)
    run.request_cancel()
    asked_at = len(steps(run))
    assert run.wait(timeout=WAIT_S) == "cancelled"
    assert len(steps(run)) <= asked_at + 1, "at the boundary, long before the grace period of 20 steps"
    wait_for(lambda: not process.is_alive(run.info()["pid"], run.info()["pid_started"]))
    assert run.info()["error"] is None


@pytest.mark.usefixtures("test_kinds")
def test_a_pause_waits_for_the_current_step_and_resumes_after_it(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "count", steps=4, gated=True, save_each=True)
    (run.path / "gate-1").touch()
    wait_for_begun(run, 2)
    run.request_pause()
    time.sleep(1.5)  # longer than TEST_GRACE
    assert run.state == "running"
    (run.path / "gate-2").touch()
    assert run.wait(timeout=WAIT_S) == "paused"
    assert steps(run) == [1, 2], "the current step is finished before the pause"
    assert run.info()["error"] is None
    run.resume()
    assert run.asked == ""
    wait_for_begun(run, 3)
    (resumed,) = [event for event in run.events()[0] if event["kind"] == "resumed"]
    assert resumed["step"] == 2, "no finished step is repeated"
    run.request_pause()
    run.request_cancel()  # by a user who does not want to wait
    assert run.wait(timeout=WAIT_S) == "cancelled"


@pytest.mark.usefixtures("test_kinds")
def test_a_run_paused_before_its_start_or_killed_while_pausing_is_paused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "queued", "count", {"steps": 1})
    run.request_pause()
    assert run.state == "paused"
    run = start(tmp_path / "run", "sit")
    run.request_pause()
    os.kill(run.info()["pid"], signal.SIGKILL)
    wait_for(lambda: run.state == "paused")


@pytest.mark.usefixtures("test_kinds")
@pytest.mark.parametrize("kind", ["sit", "deaf"])
def test_a_worker_that_reaches_no_boundary_ends_itself_after_the_grace_period(tmp_path: Path, kind: str) -> None:
    run = start(tmp_path / "run", kind)
    wait_for(lambda: run.events()[0])
    time.sleep(0.3)
    run.request_cancel()
    assert run.wait(timeout=WAIT_S) == "cancelled"
    wait_for(lambda: not process.is_alive(run.info()["pid"], run.info()["pid_started"]))


@pytest.mark.usefixtures("test_kinds")
@pytest.mark.parametrize("clock", [0, 3600])
def test_a_worker_that_hangs_altogether_is_killed(tmp_path: Path, clock: float) -> None:
    run = start(tmp_path / "run", "sit")
    info = run.info()
    run.update(pid_started=info["pid_started"] - clock)  # as after a change of the clock
    os.kill(info["pid"], signal.SIGSTOP)
    assert run.cancel(grace=0.3) == "cancelled"
    assert not process.is_alive(info["pid"], info["pid_started"])


@pytest.mark.usefixtures("test_kinds")
def test_a_crash_and_a_refusal_are_distinguished(tmp_path: Path) -> None:
    crashed = start(tmp_path / "crash", "crash")
    assert crashed.wait(timeout=WAIT_S) == "failed"
    assert crashed.info()["error"] == "ZeroDivisionError: as the test wants"
    assert "Traceback" in crashed.log_tail()
    refused = start(tmp_path / "refuse", "refuse")
    assert refused.wait(timeout=WAIT_S) == "failed"
    assert refused.info()["error"] == "The text is empty; give some."
    assert "Traceback" not in refused.log_tail()


@pytest.mark.usefixtures("test_kinds")
def test_kill_9_is_detected_and_the_resumed_curve_is_complete(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "count", steps=8, until_killed=5)
    assert run.wait(timeout=WAIT_S) == "lost"
    assert "gone" in run.info()["error"]
    assert steps(run) == [1, 2, 3, 4, 5], "the incomplete line is not read"
    first_pid = run.info()["pid"]
    run.resume()
    assert run.wait(timeout=WAIT_S) == "finished"
    assert run.info()["pid"] != first_pid
    assert steps(run) == list(range(1, 9))
    assert [event["again"] for event in run.curve()] == [False] * 3 + [True] * 5
    assert run.info()["error"] is None


@pytest.mark.usefixtures("test_kinds")
def test_relative_paths_mean_the_same_when_resumed_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = start(Path("run"), "count", steps=4, until_killed=1)
    path = run.path.resolve()
    assert run.wait(timeout=WAIT_S) == "lost"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = RunFolder(path)
    again.resume()
    assert again.wait(timeout=WAIT_S) == "finished"
    (resumed,) = [event for event in again.events()[0] if event["kind"] == "resumed"]
    assert resumed["cwd"] == str(tmp_path.resolve())


def test_settings_of_a_run_mean_the_same_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("some text", encoding="utf-8")
    settings = {"source": "gpt2", "target": "qwen2", "text": ["mine.txt", "default", "n" * 300], "recipe": "pieces"}
    path = RunFolder.create(Path("run"), "align", settings).path.resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("gpt2").mkdir()  # a folder named as a tokenizer of the catalogue
    assert RunFolder(path).settings() == {**settings, "text": [str(tmp_path / "mine.txt"), "default", "n" * 300]}
    (path / "run.json").write_text("{", encoding="utf-8")
    assert RunFolder(path).settings() == {}


@pytest.fixture
def helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run whose first process is this one, with a helper that waits half a second for its heartbeat."""
    run = RunFolder.create(tmp_path / "run", "adapt", {})
    run.update(state="running", pid=os.getpid(), pid_started=None)
    run.emit({"kind": "heartbeat"})
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(worker, "SILENT_SECONDS", 0.5)
    return run


def test_a_helper_ends_after_the_first_process(helped: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "run_kind", lambda *given: None)
    monkeypatch.setattr(worker, "SILENT_SECONDS", WAIT_S)
    threading.Timer(0.6, lambda: helped.update(state="finished")).start()
    assert worker.main([str(helped.path)]) == 0
    assert helped.info()["state"] == "finished"


def test_a_helper_does_not_wait_for_a_dead_first_process(helped: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "run_kind", lambda *given: None)
    assert worker.main([str(helped.path)]) == 0, "there is no heartbeat"
    assert helped.info()["state"] == "running", "a helper process does not change the state of the run"


def test_a_helper_that_ends_early_fails_with_the_reason(
    helped: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: Any) -> None:
        raise InputError("There is no model here.")

    monkeypatch.setattr(kinds, "run_kind", refuse)
    later = time.time() + 3600
    os.utime(helped.path / "events.jsonl", (later, later))  # the first process continues reporting
    assert worker.main([str(helped.path)]) == 1, "its launcher ends the first process then, which waits for it"
    assert capsys.readouterr().err == "Process 1 of the run has ended alone: There is no model here.\n"


@pytest.mark.usefixtures("test_kinds")
def test_another_process_can_watch_and_cancel(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "count", steps=100_000, seconds=0.02)
    code = (
        "import sys; from tokalign_lab.runs.control import list_runs\n"
        "run, = list_runs(sys.argv[1]); print(run.state, run.cancel())"
    )
    message = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=WAIT_S
    )
    assert message.stdout.split() == ["running", "cancelled"]
    assert run.state == "cancelled"


@pytest.mark.usefixtures("test_kinds")
def test_a_run_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys; from tokalign_lab.runs import control, kinds, process\n"
        "process.WORKER = (sys.argv[2],); kinds.check_kind = lambda *given: None\n"
        "control.start('count', {'steps': 40, 'seconds': 0.02}, sys.argv[1])"
    )
    script = str(Path(__file__).with_name("runs_worker.py"))
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run"), script], check=True, timeout=WAIT_S)
    run = RunFolder(tmp_path / "run")
    assert run.wait(timeout=WAIT_S) == "finished"
    assert len(steps(run)) == 40


@pytest.mark.usefixtures("test_kinds")
def test_a_worker_that_cannot_start_reports_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", ("-c", "import no_such_module"))
    run = start(tmp_path / "run", "count", steps=1)
    assert run.state == "failed"
    assert "no_such_module" in run.info()["error"]


def test_the_real_worker_tunes_is_killed_paused_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    model = save_tiny(tmp_path / "tiny")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number}. {WORDS}" for number in range(40)), encoding="utf-8")
    settings = {
        "model": str(model),
        "text": [str(text)],
        "steps": 120,
        "sequence_length": 16,
        "batch_size": 2,
        "save_every": 5,
        "evaluate_bytes": 200,
        "held_out_share": 0.2,
        "device": "cpu",
    }
    run = control.start("adapt", settings, tmp_path / "run")
    wait_for(lambda: len(steps(run)) >= 8)
    os.kill(run.info()["pid"], signal.SIGKILL)
    assert run.wait(timeout=WAIT_S) == "lost"
    run.resume()
    wait_for(lambda: any(event["kind"] == "resumed" for event in run.events()[0]))
    run.request_pause()
    assert run.wait(timeout=WAIT_S) == "paused", run.log_tail()
    done = steps(run)[-1]
    run.resume()
    assert run.wait(timeout=WAIT_S) == "finished", run.log_tail()
    assert steps(run) == list(range(1, 121))
    killed, paused = [event["step"] for event in run.events()[0] if event["kind"] == "resumed"]
    assert killed < 120
    assert paused == done, "no step from before a pause is repeated"
    assert (run.path / "model" / "tokalign.json").is_file()


# --- one worker per folder ------------------------------------------------------------------------------------

RACER = """
import sys, time
from pathlib import Path
from tokalign_lab.runs import process
from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import RunFolder
process.WORKER = (sys.argv[2],)
run = RunFolder(sys.argv[1])
(run.path / f"ready-{sys.argv[3]}").touch()
while len(list(run.path.glob("ready-*"))) < 2:
    time.sleep(0.001)
try:
    run.resume()
    print("started")
except InputError as error:
    print(error)
"""


def works(run: RunFolder, wait: float = 0) -> bool:
    """Whether a worker holds the lock of the folder; wait up to `wait` seconds until it does not."""
    try:
        with lock(run.worker_lock, wait=wait):
            return False
    except Busy:
        return True


@pytest.mark.usefixtures("test_kinds")
@pytest.mark.parametrize("times", [40, 1])
def test_two_processes_that_resume_one_run_start_one_worker(tmp_path: Path, times: int) -> None:
    run = RunFolder.create(tmp_path / "run", "count", {"steps": times, "seconds": 0.1})
    run.update(state="paused")
    script = str(Path(__file__).with_name("runs_worker.py"))
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(run.path), script, str(number)], stdout=subprocess.PIPE)
        for number in range(2)
    ]
    outputs = sorted(racer.communicate(timeout=WAIT_S)[0].decode().strip() for racer in racers)
    assert outputs[1] == "started"
    assert re.match(r"The run run (is already running|is no longer queued|has finished)", outputs[0])
    assert run.wait(timeout=WAIT_S) == "finished"
    events = run.events()[0]
    assert [event["step"] for event in events if event["kind"] == "step"] == list(range(1, times + 1))
    assert [event["kind"] for event in events].count("ended") == 1


@pytest.mark.usefixtures("test_kinds")
def test_a_second_worker_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(tmp_path / "run", "sit")
    wait_for(lambda: run.events()[0])
    before = run.info()
    command = [sys.executable, str(Path(__file__).with_name("runs_worker.py")), str(run.path)]
    by_hand = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert by_hand.returncode == 1
    assert "Another process works on the run run already" in by_hand.stderr
    assert run.info() == before
    assert {event["kind"] for event in run.events()[0]} == {"heartbeat"}
    # As on another machine, where the process id is meaningless.
    monkeypatch.setattr(folder_module, "LEAVE_SECONDS", 0.1)
    run.update(state="lost")
    with pytest.raises(AlreadyRunning, match="still works on the run run"):
        run.resume()
    run.update(state="running")
    run.cancel()


@pytest.mark.usefixtures("test_kinds")
def test_a_killed_worker_frees_the_lock(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "count", steps=5, gated=True, until_killed=4)
    assert works(run)
    for step in range(1, 6):
        (run.path / f"gate-{step}").touch()
    assert run.wait(timeout=WAIT_S) == "lost"
    assert not works(run, wait=WAIT_S)  # a killed process is a zombie until its last thread has ended
    run.resume()
    assert run.wait(timeout=WAIT_S) == "finished"
    assert not works(run, wait=WAIT_S)  # a worker ends a moment after it records that the run is finished


@pytest.mark.usefixtures("test_kinds")
def test_a_worker_whose_folder_is_deleted_ends_with_a_message(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "sit")
    info = run.info()
    wait_for(lambda: run.events()[0])
    with open(run.path / "log.txt", encoding="utf-8") as log:
        shutil.rmtree(run.path, ignore_errors=True)  # a heartbeat may come in between
        wait_for(lambda: not process.is_alive(info["pid"], info["pid_started"]))
        assert log.read() == f"The run folder {run.path} was deleted or moved, so its process ends.\n"
    assert not run.exists


def test_two_threads_that_create_one_folder_get_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    reported: list[object] = []

    def make() -> None:
        try:
            reported.append(RunFolder.create(folder, "count", {}))
        except InputError as error:
            reported.append(str(error))

    with lock(folder / ".start.lock"):  # both threads have checked that there is no run yet
        makers = [threading.Thread(target=make) for _ in range(2)]
        for one in makers:
            one.start()
        time.sleep(0.3)
    for one in makers:
        one.join()
    assert sorted(isinstance(one, RunFolder) for one in reported) == [False, True]
    assert "already holds a run" in " ".join(one for one in reported if isinstance(one, str))


# --- files ----------------------------------------------------------------------------------------------------


def test_readers_stop_at_the_last_newline_and_skip_incomplete_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    assert log.read() == ([], 0)
    log.append({"kind": "step", "step": 1, "loss": float("nan")})
    events, offset = log.read()
    assert events[0]["loss"] is None, "JSON has no NaN"
    with open(log.path, "ab") as file:
        file.write('{"kind": "step", "text": "é'.encode())
        file.flush()
        assert log.read(offset) == ([], offset)
        file.write(b'"}\n')
    events, offset = log.read(offset)
    assert events == [{"kind": "step", "text": "é"}]
    with open(log.path, "ab") as file:
        file.write(b'{"kind": "torn"')
    EventLog(log.path).append({"kind": "step", "step": 2})
    events, _ = log.read(offset)
    assert [event["kind"] for event in events] == ["step"]


def test_two_readers_and_two_writers_lose_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    writers = [
        threading.Thread(target=lambda n=n: [log.append({"writer": n, "number": i}) for i in range(300)])
        for n in (0, 1)
    ]
    seen: list[list[dict[str, Any]]] = [[], []]
    done = threading.Event()

    def read(which: int) -> None:
        reader, offset = EventLog(log.path), 0
        last = False
        while not last:
            last = done.is_set()
            events, offset = reader.read(offset)
            seen[which] += events

    readers = [threading.Thread(target=read, args=(n,)) for n in (0, 1)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    for events in seen:
        for writer in (0, 1):
            assert [event["number"] for event in events if event["writer"] == writer] == list(range(300))


def test_a_resumed_curve_has_each_step_once() -> None:
    def step(number: int, loss: float) -> dict[str, Any]:
        return {"kind": "step", "step": number, "loss": loss}

    events = [
        step(1, 1),
        step(2, 1),
        step(3, 1),
        step(4, 1),
        {"kind": "heartbeat"},
        {"kind": "resumed", "step": 2},
    ]
    assert [event["step"] for event in curve(events)] == [1, 2], "steps 3 and 4 have not been repeated"
    events += [step(3, 2), {"kind": "evaluation", "step": 3, "bits_per_byte": 1}]
    assert [(event["step"], event["loss"]) for event in curve(events)] == [(1, 1), (2, 1), (3, 2)]
    assert [event["step"] for event in curve(events, "evaluation")] == [3]
    assert curve([]) == []


@pytest.mark.parametrize("move", [lambda path: path.rename(path.with_name("result")), Path.unlink])
def test_the_lock_of_a_file_that_is_moved_is_not_held_by_two(tmp_path: Path, move: Callable[[Path], Any]) -> None:
    path, waits, done = tmp_path / "unfinished", threading.Event(), threading.Event()

    def second() -> None:
        with open(path, "ab"), lock(path):
            waits.set()
            done.wait(10)

    with lock(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)  # it has opened the file
        move(path)
    waits.wait(10)
    with pytest.raises(Busy), lock(path, wait=0):
        pass
    done.set()
    thread.join()


def write_run(path: Path, **changes: Any) -> RunFolder:
    run = RunFolder.create(path, "count", {})
    run.update(state="running", pid=os.getpid(), pid_started=process.start_time(os.getpid()), **changes)
    return run


def test_a_reused_process_id_is_not_taken_for_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert run.state == "running"
    run.update(pid_started=process.start_time(os.getpid()) - 3600)
    holder = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", holder, str(run.worker_lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert run.cancel(grace=0.1) == "running", "the worker is on another machine, and a signal would end this test"
        other.kill()
    assert run.state == "cancelled"
    run.update(state="running")
    run.cancel_file.unlink()
    assert run.cancel(grace=0.1) == "lost"


def test_an_ended_child_that_nobody_waited_for_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process.start_time(child.pid)
    assert process.is_alive(child.pid, started)
    assert child.stdin is not None
    child.stdin.close()  # it ends with an error and is a zombie until it is waited for
    wait_for(lambda: not process.is_alive(child.pid, started))
    child.wait()


def test_runs_are_listed_newest_first_and_damaged_ones_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path))
    assert control.list_runs() == []
    for name, created in (("old", "2026-01-01T00:00:00+00:00"), ("new", "2026-02-01T00:00:00+00:00")):
        RunFolder.create(tmp_path / name, "count", {}).update(created=created)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "empty").mkdir()
    assert [run.name for run in control.list_runs() if run.state != "damaged"] == ["new", "old"]
    assert [run.name for run in control.list_runs() if run.state == "damaged"] == ["broken"]
    assert control.find_run("old").path == tmp_path / "old"
    assert control.find_run(tmp_path / "new").name == "new"
    with pytest.raises(InputError, match="no run named 'none'"):
        control.find_run("none")
    first = control.new_folder("adapt")
    first.mkdir()
    assert control.new_folder("adapt") != first


def test_a_deleted_run_is_restored_unchanged(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "one", "count", {"steps": 3})
    run.emit({"kind": "step", "step": 1})
    run.update(state="finished")
    run.entitle("the good one")
    gone = trash.delete_run(run)
    assert control.list_runs(tmp_path) == []
    assert [one.title for one in trash.deleted_runs(tmp_path)] == ["the good one"]
    assert trash.trash_bytes(tmp_path) == sum(file.stat().st_size for file in gone.path.iterdir())
    second = RunFolder.create(tmp_path / "one", "count", {"steps": 4})  # in the same place; must not be overwritten
    with pytest.raises(InputError, match="cannot be restored"):
        trash.restore_run("the good one", tmp_path)
    trash.delete_run(second)
    assert trash.restore_run(root=tmp_path).info()["settings"] == {"steps": 4}, "the one deleted last comes first"
    trash.delete_run(second)
    assert trash.restore_run("the good one", tmp_path).path == tmp_path / "one"
    assert steps(run) == [1]
    assert trash.empty_trash(tmp_path) > 0
    assert trash.trash_bytes(tmp_path) == 0
    assert steps(run) == [1], "the restored run is not in the trash"
    with pytest.raises(InputError, match="trash is empty"):
        trash.restore_run(root=tmp_path)


def test_a_run_that_another_process_moves_while_it_is_written_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.create(tmp_path / "run", "align", {})
    made = tempfile.mkstemp

    def moved(**options: Any) -> tuple[int, str]:
        found = made(**options)
        run.path.rename(tmp_path / "elsewhere")
        return found

    monkeypatch.setattr(tempfile, "mkstemp", moved)
    with pytest.raises(InputError, match="another process has moved its folder"):
        run.update(title="new")
    assert not run.path.exists()


@pytest.mark.parametrize(
    "write",
    [
        lambda run: (run.info(), run.emit({"kind": "heartbeat"})),
        lambda run: run.update(error="new"),
        lambda run: run.entitle("new"),
        RunFolder.request_cancel,
        RunFolder.start,
    ],
    ids=["emit", "update", "entitle", "cancel", "start"],
)
def test_a_run_that_another_process_moves_before_it_is_written_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[RunFolder], Any]
) -> None:
    run, read = RunFolder.create(tmp_path / "run", "align", {}), folder_module.read_info

    def moved(file: Path) -> dict[str, Any]:
        found = read(file)
        run.path.rename(tmp_path / "elsewhere")
        return found

    monkeypatch.setattr(folder_module, "read_info", moved)
    with pytest.raises(InputError, match="nother process has") as caught:
        write(run)
    assert "\n" not in str(caught.value)
    assert not run.path.exists(), "the folder stays moved"


def test_a_running_run_is_not_deleted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with pytest.raises(InputError, match="cancel it before"):
        trash.delete_run(run)
    assert run.state == "running"


def test_a_run_is_found_by_its_title(tmp_path: Path) -> None:
    one, two = (RunFolder.create(tmp_path / name, "count", {}) for name in ("one", "two"))
    control.rename_run(one, "  Höhere Lernrate ")
    assert one.title == "Höhere Lernrate"
    assert control.find_run("Höhere Lernrate", tmp_path).path == one.path
    control.rename_run(one, "Höhere Lernrate")  # a run may keep its own name
    for taken in ("Höhere Lernrate", "one"):
        with pytest.raises(InputError, match="choose another name"):
            control.rename_run(two, taken)
    for bad in ("", "   ", "a\nb", "x" * 81):
        with pytest.raises(InputError, match="one line"):
            control.rename_run(two, bad)
    assert two.title == "two"


def test_starting_again_changes_settings_and_leaves_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "start", lambda self: None)
    settings = {"model": "moved", "text": ["default"], "steps": 40, "device": "cpu", "learning_rate_stage1": 1e-3}
    run = RunFolder.create(tmp_path / "old", "adapt", settings)
    run.update(settings=settings)  # as in a run of a version without recipes
    new = control.start_again(run, {"steps": 80, "learning_rate_stage1": 1e-4}, "slower")
    papers = {"recipe": "papers", "batch_size": 4, "sequence_length": 128}
    assert new.info()["settings"] == settings | papers | {"steps": 80, "learning_rate_stage1": 1e-4}
    assert new.title == "slower"
    assert new.path.parent == run.path.parent
    assert run.info()["settings"] == settings | {"recipe": "papers"}
    for changes, message in (
        ({"steps": 0}, "at least 1"),
        ({"step": 3}, "no setting 'step'"),
        ({"steps": "x"}, "whole"),
    ):
        with pytest.raises(InputError, match=message):
            control.start_again(run, changes)
    with pytest.raises(InputError, match="choose another name"):
        control.start_again(run, {}, "slower")
    with pytest.raises(InputError, match="only tuning"):
        control.start_again(RunFolder.create(tmp_path / "other", "align", {}), {})
    assert len(control.list_runs(tmp_path)) == 3, "a refused run leaves no folder"


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "count", {})
    (run.path / "log.txt").write_text("".join(f"línea {number}\n" for number in range(50_000)), encoding="utf-8")
    assert run.log_tail(2) == "línea 49998\nlínea 49999"


def test_a_log_that_was_restarted_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(5):
        log.append({"kind": "step", "step": number})
    _, offset = log.read()
    log.path.unlink()
    log.append({"kind": "step", "step": 9})
    events, again = log.read(offset)
    assert [event["step"] for event in events] == [9]
    assert again < offset


def test_invalid_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no kind of run named 'dance'"):
        control.start("dance", {}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="plain JSON"):
        RunFolder.create(tmp_path / "run", "adapt", {"path": tmp_path})
    with pytest.raises(InputError, match="not a run folder"):
        RunFolder(tmp_path / "run").info()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        RunFolder.create(tmp_path / "file" / "run", "adapt", {})


def test_run_json_is_replaced_atomically(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "count", {"text": "é" * 10_000})
    stop = threading.Event()
    broken: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads((run.path / "run.json").read_text(encoding="utf-8"))
            except ValueError as error:
                broken.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        run.update(error=str(number))
    stop.set()
    reader.join()
    assert not broken


def test_runs_of_earlier_commits_open_and_list(tmp_path: Path) -> None:
    """`old_runs` has an adapt run of the first commit with runs, and an align run of the last with JSON in lexicons."""
    root = shutil.copytree(Path(__file__).with_name("old_runs"), tmp_path / "runs")
    listed = CliRunner().invoke(app, ["runs", "list", "--root", str(root), "--json"])
    assert {row["kind"]: row["state"] for row in json.loads(listed.stdout)["runs"]} == dict.fromkeys(
        ("adapt", "align"), "finished"
    )
    aligned, tuned = sorted(control.list_runs(root), key=lambda run: run.info()["kind"] != "align")
    assert tuned.info()["settings"]["recipe"] == "papers"
    assert [event["loss"] for event in tuned.curve()] == [4.5, 4.0, 3.5, 3.0]
    feed = RunFeed(tuned)
    assert (feed.view.share, feed.view.measured.last("")) == (1.0, 1.9)
    assert kinds.command_of(tuned.info()).startswith("tokalign-lab adapt rearranged/model")
    file = results.lexicon_path(aligned)
    assert file is not None
    lexicon = Lexicon.load(file)
    assert lexicon.key == "b65079f70d65e3e34cc19e3a50c5ad48fc4d1e951b3fc3997edcc18a77cc1839"
    assert len(lexicon.target_of()) == 300
    lexicon.save(tmp_path / "again.parquet")
    again = Lexicon.load(tmp_path / "again.parquet")
    assert again.key == lexicon.key
    assert again.reverse.equals(lexicon.reverse.astype(again.reverse.dtypes))
