"""How long work tells how far it is.

A function that may run for more than a second takes `progress: Progress | None`. The caller decides what becomes
of it: a bar on the terminal, an event in a run folder, a widget. The engine itself prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the share that is done (0 to 1) and a short message."""


def part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Map a sub-task's 0 to 1 onto `start` to `end` of the whole task's progress."""
    if progress is None:
        return None
    whole = progress
    return lambda share, message: whole(start + (end - start) * share, message)
