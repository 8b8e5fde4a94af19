"""The process of a run: start, identify and signal it.

A job has its own session (`start_new_session`), so that interrupting or restarting a notebook's kernel does not affect
it. A process is identified by its id *and* its start time, because the system reuses ids.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tokalign_lab.errors import InputError

WORKER: tuple[str, ...] = ("-m", "tokalign_lab.runs.worker")
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "true",
    # Waiting threads sleep, because spinning threads take CPU time from the notebook or from a second run.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors are allocated at every step. With pages of 4 KiB, that takes longer than filling them: torch's cross
    # entropy of 512 positions over 262k tokens took 0.94 s, and 0.32 s with huge pages.
    "THP_MEM_ALLOC_ENABLE": "1",
}
_CLOCK_SLACK = 1.5  # seconds; the start time is derived from the boot time, which clock corrections change slightly
_children: dict[int, subprocess.Popen[bytes]] = {}  # kept so that ended children are reaped


def start_time(pid: int) -> float:
    """Return the start time of process `pid`, in seconds since 1970."""
    return float(psutil.Process(pid).create_time())


def is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process that had id `pid` and started at `started` still runs (a zombie does not)."""
    if pid is None:
        return False
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < _CLOCK_SLACK
    except psutil.Error:
        return False


def launcher(settings: Mapping[str, Any]) -> list[str]:
    """Return Python's arguments that start the workers of a run with these settings; empty for one worker.

    `accelerate_config` names a configuration for `accelerate launch`; `processes` is their number on this machine.

    Raises `InputError` if the number of processes is below 1, or the configuration does not exist.
    """
    processes, config = settings.get("processes"), settings.get("accelerate_config")
    if processes is not None and (type(processes) is not int or processes < 1):
        raise InputError(f"The setting processes is {processes!r}, but it must be a whole number of at least 1.")
    if config and not Path(config).is_file():
        raise InputError(f"There is no accelerate configuration '{config}'; see docs/scale.md for some.")
    if config:
        count = [] if processes is None else ["--num_processes", str(processes)]
        return ["-m", "accelerate.commands.launch", "--config_file", str(config), *count]
    if processes is None or processes == 1:
        return []
    # accelerate's own launcher starts only one process if there is no GPU
    return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def spawn(
    arguments: Sequence[str], log: Path, cwd: str | None = None, launcher: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a worker in its own session and in the folder `cwd`; its output and errors are appended to `log`."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, *launcher, *WORKER, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**_ENVIRONMENT, **os.environ, **_thread_limits()},
            start_new_session=True,
        )
    _children[process.pid] = process
    return process


def has_open(pid: int | None, file: Path) -> bool:
    """Whether the process `pid` has that file open."""
    try:
        return pid is not None and any(os.path.samefile(one.path, file) for one in psutil.Process(pid).open_files())
    except (psutil.Error, OSError):
        return False


def send(pid: int, signal_number: signal.Signals) -> None:
    """Send a signal to a process; nothing happens if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def _thread_limits() -> dict[str, str]:
    """Limit threads to leave one core to the notebook if there are more than two, unless the user has set limits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores <= 2:
        return {}
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(cores - 1) for name in names if name not in os.environ}
