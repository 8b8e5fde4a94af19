"""Locks between processes: a file that one process locks at a time.

The operating system holds the lock (flock) and releases it when the process ends for any reason. The existence
of the file means nothing. Child processes do not inherit a lock.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from tokalign_lab.errors import InputError

_POLL_SECONDS = 0.05


class Busy(Exception):
    """Another process holds the lock."""


@contextmanager
def lock(path: Path, wait: float = math.inf) -> Iterator[bool]:
    """Hold the lock of a file, which is created if it is missing; its folder must exist.

    Yields whether it had to wait for another process, or another thread of this one. Raises Busy if the lock is still
    held after `wait` seconds; by default there is no limit. The process that holds the lock may rename or remove the
    file.
    """
    deadline = time.monotonic() + wait
    waited = False
    while True:
        with open(path, "ab") as file:
            locked = _locks(file)
            if locked and _is_at(path, file):
                yield waited
                return
        if time.monotonic() >= deadline and (waited or not locked):  # a file that has just moved gets a second try
            raise Busy(str(path))
        waited = True
        time.sleep(_POLL_SECONDS)


def _locks(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


@contextmanager
def lock_or_refuse(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of a file; raises `InputError` with the sentence `refusal` if another process holds it."""
    with ExitStack() as held:
        try:
            held.enter_context(lock(path, wait=0))
        except Busy:
            raise InputError(refusal) from None
        yield
