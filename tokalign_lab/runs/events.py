"""The events of a run: one JSON object per line, append-only.

A writer appends a whole line with a single call. A reader stores the byte offset up to which it has read and stops at
the last newline, so any number of readers can follow a run that may be killed at any time. If `kill -9` leaves an
incomplete line, the next writer ends it with a newline, and readers skip it.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokalign_lab.files import plain

Event = dict[str, Any]


class EventLog:
    """The `events.jsonl` of one run at `path`; it need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._mended = False

    def append(self, event: Event) -> None:
        """Add one event, with its `time` (seconds since 1970). Numbers that JSON cannot hold become null.

        Raises OSError if the disk is full; later events may succeed.
        """
        line = json.dumps({"time": round(time.time(), 3), **plain(event)}, ensure_ascii=False) + "\n"
        with self._lock:
            if not self._mended:
                self._close_torn_line()
                self._mended = True
            content = line.encode("utf-8", errors="replace")
            with open(self.path, "ab", buffering=0) as file:
                if file.write(content) < len(content):  # the disk is full now
                    self._mended = False
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """Return the events after byte `offset`, and the offset for the next call.

        A line without its newline is left for the next call; a line that is not JSON is skipped. A file that is now
        shorter than `offset` was replaced, so it is read from its beginning.
        """
        if not self.path.is_file():  # opening a pipe would block
            return [], 0
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, os.SEEK_END) < offset:
                    offset = 0
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return [], 0
        end = data.rfind(b"\n") + 1
        events = []
        for line in data[:end].splitlines():
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue  # incomplete, from a crash
            if isinstance(event, dict):
                events.append(event)
        return events, offset + end

    def _close_torn_line(self) -> None:
        try:
            with open(self.path, "rb+") as file:
                file.seek(0, os.SEEK_END)
                if file.tell() == 0:
                    return
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
        except FileNotFoundError:
            pass


def curve(events: Iterable[Event], kind: str = "step") -> list[Event]:
    """Return one event of `kind` per step, in order, as if the run had never stopped.

    A resumed run repeats the steps after its checkpoint. Of two events for a step the later one counts; steps after the
    checkpoint that have not been repeated are left out, and so are events without a step.
    """
    by_step: dict[int, Event] = {}
    for event in events:
        at = event.get("step")
        if not isinstance(at, int):
            continue
        if event.get("kind") == "resumed":
            by_step = {step: kept for step, kept in by_step.items() if step <= at}
        elif event.get("kind") == kind:
            by_step[at] = event
    return [by_step[step] for step in sorted(by_step)]
