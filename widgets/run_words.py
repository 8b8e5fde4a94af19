"""A run in words and figures: how it stands, what it last told, and the tables beside its curves. No widgets here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from typing import Any

from tokalign_lab.widgets.run_view import ALL_TEXT, LATE_S, RunView

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
    """Say how a run stands; `asked` is how it was asked to end (`RunFolder.asked`)."""
    if recorded:
        return "recorded"
    return ASKED_WORDS[asked] if asked and state == "running" else STATE_WORDS.get(state, state)


def state_html(state: str, asked: str = "", more: str = "", recorded: bool = False) -> str:
    """Return a run's state as a coloured word, and what else there is to say."""
    word = escape(state_word(state, asked, recorded))
    return f'<span role="status"><span class="tl-state tl-state-{escape(state)}">{word}</span> {escape(more)}</span>'


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
    """Return a number to so many significant digits, – where there is none."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def status_words(info: dict[str, Any], view: RunView, now: float | None = None) -> str:
    """One line that says how a run stands, without colour."""
    now = time.time() if now is None else now
    parts = []
    if view.steps:
        of = f" of {view.total_steps:,}" if view.total_steps else ""
        parts.append(f"step {view.steps[-1]:,}{of}")
        parts += [view.stage] if view.stage else []
    if info["state"] == "running":
        speed = view.trained.last("tokens_per_second")
        if speed:
            parts.append(f"{speed:,.0f} tokens a second")
        if view.seconds_left is not None:
            parts.append(f"about {duration(view.seconds_left)} left")
        if not view.steps:
            parts.append(view.message or "reading the text and loading the model")
        if view.device:
            parts.append(f"on {view.device}")
        if view.last_sign is not None:
            age = max(0.0, now - view.last_sign)
            late = " (it may hang; look at the log)" if age > LATE_S else ""
            parts.append(f"last sign of life {duration(age)} ago{late}")
    elif view.seconds:
        parts.append(f"worked {duration(view.seconds)}")
    return " · ".join(parts)


def cards_html(view: RunView) -> str:
    """Return the latest figures of a run, each with its name; nothing before the first."""
    told, bits = view.trained, view.measured.last(ALL_TEXT)
    floor, memory = view.floors.get(ALL_TEXT), told.last("memory")
    cards = [
        (figure(told.last("loss"), 4), "loss (nats a token)", told.last("loss")),
        (figure(told.last("divergence"), 4), "divergence from the teacher", told.last("divergence")),
        (
            figure(bits, 4) + ("" if floor is None else f" (floor {figure(floor, 4)})"),
            "bits a byte of held-out text",
            bits,
        ),
        (figure(told.last("learning_rate")), "learning rate", told.last("learning_rate")),
        (figure(told.last("grad_norm")), "gradient norm", told.last("grad_norm")),
        (figure(told.last("tokens_per_second")), "tokens a second", told.last("tokens_per_second")),
        (figure(told.last("bytes_per_second")), "bytes of text a second", told.last("bytes_per_second")),
        (figure(told.last("tokens")), "tokens read", told.last("tokens")),
        (size(memory or 0), "memory", memory),
    ]
    shown = "".join(
        f'<div class="tl-card"><div class="tl-card-value">{value}</div><div class="tl-card-name">{name}</div></div>'
        for value, name, there in cards
        if there is not None
    )
    return f'<div class="tl-cards">{shown}</div>' if shown else ""


def samples_html(views: Sequence[RunView], left: int, right: int | None) -> str:
    """How each prompt is continued, by each run, at one step and at another side by side.

    Parameters
    ----------
    left, right : steps; no second column where `right` is None
    """
    steps = [left] if right is None else [left, right]
    lines = []
    for prompt in dict.fromkeys(prompt for view in views for prompt in view.samples):
        for view in views:
            texts = view.samples.get(prompt, {})
            if texts:
                cells = "".join(f"<td>{escape(texts.get(step, '–'))}</td>" for step in steps)
                run = f"<td>{escape(view.name)}</td>" if len(views) > 1 else ""
                lines.append(f"<tr><th scope='row'>{escape(prompt)}</th>{run}{cells}</tr>")
    heads = ["Prompt", *(["Run"] if len(views) > 1 else []), *(f"Continued at step {step:,}" for step in steps)]
    head = "".join(f"<th scope='col'>{word}</th>" for word in heads)
    return (
        "<div class='tl-table-scroll'><table class='tl-table tl-texts'><caption>How the model continues the same "
        f"prompts</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
