"""Text for a run's state, durations, sizes and numbers."""

from __future__ import annotations

import math
import time
from typing import Any

from tokalign_lab.runs.folding import LATE_S, RunView

STATE_WORDS = {
    "queued": "waiting to start",
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "paused": "paused",
    "lost": "lost: its process is gone",
    "damaged": "damaged: its run.json cannot be used",
}
ASKED_WORDS = {"cancelled": "cancelling", "paused": "pausing"}


def state_word(state: str, asked: str = "", recorded: bool = False) -> str:
    """Return the state in words; `asked` is the requested stop (`RunFolder.asked`)."""
    if recorded:
        return "recorded"
    return ASKED_WORDS[asked] if asked and state == "running" else STATE_WORDS.get(state, state)


def duration(seconds: float) -> str:
    """Return a time span in words."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(n: float) -> str:
    """Return bytes in words."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6)):
        if n >= divisor:
            return f"{n / divisor:,.1f} {unit}"
    return f"{n / 1e3:,.0f} kB"


def figure(value: float | None, digits: int = 3) -> str:
    """Return a number with this many significant digits; – if there is none."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def fixed(value: float | None, none: str = "–") -> str:
    """Return a number with three decimal places; `none` if there is none."""
    return none if value is None or not math.isfinite(value) else f"{value:.3f}"


def status_words(info: dict[str, Any], view: RunView, now: float | None = None) -> str:
    """Return one line about the state of a run."""
    now = time.time() if now is None else now
    parts = []
    if view.steps:
        of = f" of {view.total_steps:,}" if view.total_steps else ""
        parts.append(f"step {view.steps[-1]:,}{of}")
        parts += [view.stage] if view.stage else []
    age = max(0.0, now - view.last_sign) if view.last_sign is not None else 0.0
    if info["state"] == "running" and not view.steps:
        parts.append(view.message or "reading the text and loading the model")
    if info["state"] == "running" and age > LATE_S:
        parts.append(f"no heartbeat for {duration(age)}: it may hang, see the log")
    elif info["state"] == "running":
        if view.seconds_left is not None:
            parts.append(f"about {duration(view.seconds_left)} left")
        if view.device:
            parts.append(f"on {view.device}")
        if view.last_sign is not None:
            parts.append(f"last heartbeat {duration(age)} ago")
    elif view.seconds:
        parts.append(f"worked {duration(view.seconds)}")
    if view.kept:
        parts.append(view.kept)
    if view.note:
        parts.append(view.note)
    return " · ".join(parts)
