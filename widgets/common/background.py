"""Work that must not hold up a callback, and the one thread that watches run folders.

A widget callback computes for less than 50 ms; anything longer goes through `submit`. Widget traits may be set from
threads (prints and `Output` may not). Tests run the same code in order and at once inside `with inline():`.

Watchers are named. A panel that is made again by re-running its cell takes the name over from the former one, so that
no two of them write the same curve, and one thread serves all panels at about twice a second.
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


def submit(work: Callable[[], None]) -> None:
    """Run `work` soon, away from the callback that asks for it."""
    if _inline:
        work()
    else:
        _pool.submit(work)


def later(work: Callable[[], None], seconds: float) -> None:
    """Run `work` after so many seconds in a thread of its own, unless the process has ended.

    While the interpreter is taken down, when widgets are closed too, it is run at once: a thread that is started then
    is waited for without end.
    """
    if sys.is_finalizing():
        work()
        return
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


@contextmanager
def inline() -> Iterator[None]:
    """Within the block, `submit` runs its work before it returns."""
    global _inline
    before, _inline = _inline, True
    try:
        yield
    finally:
        _inline = before


class Watcher:
    """One daemon thread that calls each watcher at every tick until that one reports that it is done."""

    def __init__(self, tick_s: float = TICK_S) -> None:
        self._tick_s = tick_s
        self._lock = threading.Lock()
        self._watching: dict[str, Callable[[], bool]] = {}
        self._thread: threading.Thread | None = None

    def watch(self, name: str, look: Callable[[], bool]) -> None:
        """Call `look` at every tick while it returns True; an earlier watcher of this name is stopped."""
        with self._lock:
            self._watching[name] = look
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tokalign-watcher", daemon=True)
                self._thread.start()

    def stop(self, name: str, look: Callable[[], bool]) -> None:
        """Stop this watcher; a later one of the same name continues."""
        with self._lock:
            if self._watching.get(name) == look:
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
            for name, look in now:
                try:
                    goes_on = look()
                except Exception:  # a watcher shows its own errors; one that cannot must not stop the others
                    goes_on = False
                if not goes_on:
                    self.stop(name, look)


WATCHER = Watcher()
