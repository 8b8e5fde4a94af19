"""A worker for tests: the real worker, with run kinds that do little work and need no torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from tokalign_lab.runs import kinds, worker


def count(settings: dict[str, Any], context: worker.RunContext) -> None:
    """Count steps.

    At the step `until_killed` the process kills itself, the first time. If `gated`, step n begins with the event
    "begun" and ends when the file `gate-n` exists.
    """
    checkpoint = context.folder.path / "checkpoint"
    start = int(checkpoint.read_text()) if context.resume and checkpoint.exists() else 0
    if context.resume:
        context.emit({"kind": "resumed", "step": start, "cwd": os.getcwd()})
    for step in range(start + 1, settings["steps"] + 1):
        context.interrupt()
        time.sleep(settings.get("seconds", 0.0))
        if settings.get("gated"):
            context.emit({"kind": "begun", "step": step})
            while not (context.folder.path / f"gate-{step}").exists():
                time.sleep(0.02)
        context.emit({"kind": "step", "step": step, "loss": 1 / step, "again": context.resume})
        if step % 3 == 0 or settings.get("save_each"):
            checkpoint.write_text(str(step))
        if step == settings.get("until_killed") and not context.resume:
            with open(context.folder.path / "events.jsonl", "ab") as file:
                file.write(b'{"kind": "step", "step": 99, "lo')  # an incomplete line
            os.kill(os.getpid(), signal.SIGKILL)


def crash(settings: dict[str, Any], context: worker.RunContext) -> None:
    raise ZeroDivisionError("as the test wants")


def refuse(settings: dict[str, Any], context: worker.RunContext) -> None:
    from tokalign_lab.errors import InputError

    raise InputError("The text is empty; give some.")


def sit(settings: dict[str, Any], context: worker.RunContext) -> None:
    """Work without reaching a step boundary."""
    time.sleep(600)


def deaf(settings: dict[str, Any], context: worker.RunContext) -> None:
    """Run native code that no signal interrupts, so that the signal handler never runs."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


class Free:
    """Settings that accept any names and values."""

    @staticmethod
    def from_dict(values: dict[str, Any]) -> dict[str, Any]:
        return values


WORK = {"count": count, "crash": crash, "refuse": refuse, "sit": sit, "deaf": deaf}
kinds.KINDS.update({name: kinds.Kind(Free, work) for name, work in WORK.items()})
if os.environ.get("TEST_GRACE"):
    worker.CANCEL_GRACE_SECONDS = worker.LEAVE_SECONDS = float(os.environ["TEST_GRACE"])

if __name__ == "__main__":
    sys.exit(worker.main())
