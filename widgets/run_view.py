"""A run folder's events, folded into what a person wants to know: curves, stages, speed, time left. No widgets here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokalign_lab.runs.events import Event, curve

STATE_WORDS = {
    "queued": "waiting to start",
    "running": "running",
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "lost": "lost: its process is gone",
}
STAGE_WORDS = {1: "stage 1: embeddings and head", 2: "stage 2: the whole model"}
LATE_S = 20.0  # a heartbeat comes every two seconds; after this long something is wrong


@dataclass
class RunView:
    """What a tuning run has done so far."""

    steps: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    evaluated_at: list[float] = field(default_factory=list)
    bits_per_byte: list[float] = field(default_factory=list)
    floor: float | None = None
    stages: list[tuple[str, float, float]] = field(default_factory=list)  # name, first step, last step
    total_steps: int = 0
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    samples: list[tuple[int, str, str]] = field(default_factory=list)  # step, prompt, text
    message: str = ""
    device: str = ""
    last_sign: float | None = None  # seconds since 1970

    @property
    def share(self) -> float:
        """Done, 0 to 1."""
        return min(1.0, self.steps[-1] / self.total_steps) if self.steps and self.total_steps else 0.0


def view_of(events: Sequence[Event], total_steps: int = 0, floor: float | None = None) -> RunView:
    """Fold the events of an adapt run (see `tokalign_lab.adaptation.events`).

    Parameters
    ----------
    total_steps : steps the run was asked for
    floor : bits per byte of the source model with its own tokenizer on the same text
    """
    view = RunView(total_steps=total_steps, floor=floor)
    steps = [event for event in curve(events, "step") if event.get("loss") is not None]
    view.steps, view.losses = [e["step"] for e in steps], [e["loss"] for e in steps]
    evaluated = [event for event in curve(events, "evaluation") if event.get("bits_per_byte") is not None]
    view.evaluated_at, view.bits_per_byte = (
        [e["step"] for e in evaluated],
        [e["bits_per_byte"] for e in evaluated],
    )
    for event in events:
        _note(view, event)
    if steps:
        view.tokens_per_second = steps[-1].get("tokens_per_second")
    view.stages = _stages(events)
    view.seconds_left = _seconds_left(steps, view.total_steps)
    view.last_sign = events[-1].get("time") if events else None
    return view


def _note(view: RunView, event: Event) -> None:
    kind = event.get("kind")
    if kind == "sample":
        view.samples = [s for s in view.samples if (s[0], s[1]) != (event["step"], event.get("prompt", ""))]
        view.samples.append((int(event["step"]), str(event.get("prompt", "")), str(event.get("text", ""))))
    elif kind == "device":
        view.device = str(event.get("device", ""))
    elif kind == "progress":
        view.message = str(event.get("message", ""))


def _stages(events: Sequence[Event]) -> list[tuple[str, float, float]]:
    """Return the stages begun so far, each as long as it is planned to be."""
    begun = {event["stage"]: event for event in events if event.get("kind") == "stage"}
    return [
        (STAGE_WORDS.get(stage, f"stage {stage}"), event["step"], event["step"] + event["steps"])
        for stage, event in sorted(begun.items())
    ]


def _seconds_left(steps: Sequence[Event], total: int, window: int = 30) -> float | None:
    recent = steps[-window:]
    if len(recent) < 2 or total <= recent[-1]["step"]:
        return None
    done = recent[-1]["step"] - recent[0]["step"]
    return float((recent[-1]["time"] - recent[0]["time"]) / done * (total - recent[-1]["step"])) if done > 0 else None


def duration(seconds: float) -> str:
    """Return a time span in words."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def status_words(info: dict[str, Any], view: RunView, now: float | None = None) -> str:
    """One line that says how a run stands, without colour."""
    now = time.time() if now is None else now
    parts = []
    if view.steps:
        of = f" of {view.total_steps:,}" if view.total_steps else ""
        parts.append(f"step {view.steps[-1]:,}{of}")
        parts += [name for name, start, end in view.stages if start < view.steps[-1] <= end]
    if info["state"] == "running":
        if view.tokens_per_second:
            parts.append(f"{view.tokens_per_second:,.0f} tokens a second")
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
    return " · ".join(parts)
