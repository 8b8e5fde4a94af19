"""Progress reports of a function.

A function that may run for more than a second takes `progress: Progress = silent`. The caller decides how to show it: a
bar in the terminal, an event in a run folder, a widget. The engine prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the share that is done (0 to 1) and a short message."""


def silent(share: float, message: str) -> None:
    """Report nothing."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """Map 0 to 1 of a sub-task to `start` to `end` of the whole task."""
    return lambda share, message: progress(start + (end - start) * share, message)
