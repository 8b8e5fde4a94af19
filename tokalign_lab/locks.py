"""Locks between processes: a file that one process holds at a time.

The operating system holds the lock (flock) and frees it when the process ends, however it ends. The file itself stays
and means nothing. A lock is not inherited by programs that the holder starts.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.05


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def lock(path: Path, wait: float = math.inf) -> Iterator[bool]:
    """Hold the lock of a file, which is made where it is missing; its folder must exist.

    Parameters
    ----------
    path
        The file.
    wait
        Seconds to wait for another holder; by default as long as it takes.

    Yields
    ------
    bool
        Whether another process, or another thread of this one, held the lock first.

    Raises
    ------
    Busy
        When it is still held after that time.
    """
    deadline = time.monotonic() + wait
    waited = False
    with open(path, "ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(str(path)) from None
            waited = True
            time.sleep(_POLL_SECONDS)
        yield waited
