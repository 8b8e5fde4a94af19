"""Background work for panels, and the one thread that watches run folders.

A widget callback must return within 50 ms; `submit` runs anything longer in a thread. Threads may set widget traits
(but must not print or use `Output`). Inside `with inline():`, tests run the same code synchronously.

Watchers are named. When a cell is re-run, its new panel takes over the name of the old one, so that two panels never
write the same curve. One thread serves all panels, about twice a second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

TICK_S = 0.5

_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokalign-panel")
_inline = False


def submit(work: Callable[[], None], after_s: float = 0.0) -> None:
    """Run `work` in a thread, after `after_s` seconds; returns immediately."""
    if _inline:
        work()
    elif after_s:
        later(work, after_s)
    else:
        _pool.submit(work)


def later(work: Callable[[], None], seconds: float) -> None:
    """Run `work` after `seconds` in a daemon thread, unless the process has ended.

    At interpreter shutdown, which also closes widgets, it is run immediately: shutdown would wait forever for a thread
    started then.
    """
    if sys.is_finalizing():
        work()
        return
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


@contextmanager
def inline() -> Iterator[None]:
    """Make `submit` synchronous within the block."""
    global _inline
    before, _inline = _inline, True
    try:
        yield
    finally:
        _inline = before


class Watcher:
    """One daemon thread that calls each watcher at every tick until the watcher returns False."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._lock = threading.Lock()
        self._watching: dict[str, Callable[[], bool]] = {}
        self._thread: threading.Thread | None = None

    def watch(self, name: str, poll: Callable[[], bool]) -> None:
        """Call `poll` at every tick while it returns True; replaces an earlier watcher of this name."""
        with self._lock:
            self._watching[name] = poll
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tokalign-watcher", daemon=True)
                self._thread.start()

    def stop(self, name: str, poll: Callable[[], bool]) -> None:
        """Stop this watcher; a newer watcher of the same name continues."""
        with self._lock:
            if self._watching.get(name) == poll:
                del self._watching[name]

    def names(self) -> list[str]:
        """Return the names of the current watchers."""
        with self._lock:
            return sorted(self._watching)

    def _run(self) -> None:
        while True:
            time.sleep(self._tick_s)
            with self._lock:
                if not self._watching:
                    self._thread = None
                    return
                now = list(self._watching.items())
            for name, poll in now:
                try:
                    continues = poll()
                except Exception:  # watchers show their own errors; one that fails to must not stop the others
                    continues = False
                if not continues:
                    self.stop(name, poll)


WATCHER = Watcher()
