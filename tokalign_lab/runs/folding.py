"""The events of a run, collected into curves, stages, speed and time left.

Reading continues where it stopped, so only new events take time. Missing, incomplete or non-numeric values become gaps,
never errors, so that old runs can be opened.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokalign_lab.runs.events import Event

STAGE_WORDS = {1: "stage 1: embeddings and head", 2: "stage 2: the whole model"}
LATE_S = 20.0  # heartbeats come every two seconds; after this time something is wrong
ALL_TEXT = ""  # the name of the whole held-out text among its slices
# Fields of a step event, by the name that the curves use.
STEP_FIELDS = {
    "loss": "loss", "next_token": "next_token", "divergence": "divergence", "learning_rate": "learning_rate",
    "grad_norm": "grad_norm", "tokens_per_second": "tokens_per_second", "bytes_per_second": "bytes_per_second",
    "memory": "memory_bytes", "tokens": "tokens",
}  # fmt: skip


class Rows:
    """Numbers by step, one column per name, in the order of steps; nan for missing ones."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self._columns: dict[str, list[float]] = {}

    def put(self, step: int, values: dict[str, float]) -> None:
        """Add a row; if it is not after the last, the rows from its step on are removed first."""
        self.cut(step - 1)
        for name in values.keys() - self._columns.keys():
            self._columns[name] = [math.nan] * len(self.steps)
        self.steps.append(step)
        for name, column in self._columns.items():
            column.append(values.get(name, math.nan))

    def cut(self, last: int) -> None:
        """Remove the rows after step `last`."""
        if self.steps and self.steps[-1] > last:
            keep = bisect_right(self.steps, last)
            del self.steps[keep:]
            for values in self._columns.values():
                del values[keep:]

    def column(self, name: str) -> np.ndarray:
        """Return a column, float64 (n,); all nan when there is none of that name."""
        return np.asarray(self._columns.get(name, [math.nan] * len(self.steps)), dtype=np.float64)

    def last(self, name: str) -> float | None:
        """Return the last number of a column, if any."""
        return next((value for value in reversed(self._columns.get(name, ())) if value == value), None)

    def names(self) -> list[str]:
        """Names of the columns that hold a number."""
        return [name for name, values in self._columns.items() if any(value == value for value in values)]


@dataclass
class Stage:
    """A stage that has begun: its name ("" for the only one), first and last planned step, seconds worked before it."""

    name: str
    start: int
    end: int
    seconds: float


@dataclass
class RunView:
    """A tuning run, as described by its events so far.

    Attributes
    ----------
    name : its title
    trained, measured : what each step reported, and each measurement of held-out text (bits per byte, by slice)
    samples : prompt to step to its continuation
    references : bits per byte of the source model with its own tokenizer, by slice
    answered : share of the probes answered at each measurement, 0 to 1
    lost : step to the prompts of the probes not answered at the measurement of that step
    control : the view of the run that tuned the source model on the same text; None without one
    kept : why an earlier step than the last one is kept; empty if the last one is kept
    note : how the run deviates from its settings, as a sentence; empty if it does not
    source_note : why the run does not learn from the source model as in its recipe; empty if it does
    progress : the first and the last event that report progress before and between steps
    seconds : working time so far, without gaps of more than `LATE_S` between two events
    last_sign : time of the last event, seconds since 1970
    """

    name: str = ""
    total_steps: int = 0
    trained: Rows = field(default_factory=Rows)
    measured: Rows = field(default_factory=Rows)
    samples: dict[str, dict[int, str]] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)
    stages: dict[int, Stage] = field(default_factory=dict)
    answered: Rows = field(default_factory=Rows)
    lost: dict[int, tuple[str, ...]] = field(default_factory=dict)
    control: RunView | None = None
    kept: str = ""
    note: str = ""
    source_note: str = ""
    progress: list[Event] = field(default_factory=list)
    device: str = ""
    seconds: float = 0.0
    last_sign: float | None = None

    @property
    def steps(self) -> list[int]:
        """Steps that have been reported."""
        return self.trained.steps

    @property
    def message(self) -> str:
        """The last message of progress; "" before the first."""
        return str(self.progress[-1].get("message") or "") if self.progress else ""

    @property
    def share(self) -> float:
        """Share done, 0 to 1: by steps; before the first step by the last progress report."""
        if self.steps and self.total_steps:
            return min(1.0, self.steps[-1] / self.total_steps)
        return number(self.progress[-1].get("share")) if self.progress else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Time left at the pace of the last steps."""
        recent = self.trained.column("seconds")[-30:]
        if len(recent) < 2 or self.total_steps <= self.steps[-1]:
            return None
        done = self.steps[-1] - self.steps[-len(recent)]
        return float((recent[-1] - recent[0]) / done * (self.total_steps - self.steps[-1]))

    @property
    def stage(self) -> str:
        """Name of the stage that the last step belongs to; "" before the first."""
        last = self.steps[-1] if self.steps else 0
        return next((stage.name for stage in self.stages.values() if stage.start < last <= stage.end), "")

    def gap_closed(self, part: str = ALL_TEXT) -> np.ndarray:
        """Return the share of the gap to the source model that is closed at each measurement, float64 (n,).

        0 is the first measurement, 1 the source model with its own tokenizer on the same text; all nan if that is
        unknown.
        """
        bits, reference = self.measured.column(part), self.references.get(part, math.nan)
        gap = bits[0] - reference if len(bits) else math.nan
        return (bits[0] - bits) / gap if gap > 0 else np.full(len(bits), math.nan)

    def add(self, events: Iterable[Event]) -> None:
        """Add new events (see `tokalign_lab.adaptation.events`)."""
        for event in events:
            self._keep_time(event.get("time"))
            kind, step = str(event.get("kind")), number(event.get("step"))
            if kind in _OF_A_STEP and step >= 0:
                _OF_A_STEP[kind](self, event, int(step))
            elif kind in _OF_THE_RUN:
                _OF_THE_RUN[kind](self, event)

    def x(self, axis: str) -> np.ndarray:
        """Return the positions of the steps on an axis ("step", "tokens" or "minutes"), float64 (n,)."""
        if axis == "step":
            return np.asarray(self.steps, dtype=np.float64)
        return self.trained.column("seconds") / 60 if axis == "minutes" else self.trained.column("tokens")

    def x_of(self, axis: str, steps: Sequence[float]) -> np.ndarray:
        """Return the positions of any steps on an axis, interpolated and, for tokens, extrapolated."""
        wanted = np.asarray(steps, dtype=np.float64)
        if axis == "step":
            return wanted
        known = self.x(axis)
        there = np.isfinite(known)
        if not there.any():
            return np.full(len(wanted), math.nan)
        at, x = np.asarray(self.steps, dtype=np.float64)[there], known[there]
        begun = min((stage.seconds for stage in self.stages.values()), default=0.0) / 60 if axis == "minutes" else 0.0
        placed = np.interp(wanted, np.insert(at, 0, 0.0), np.insert(x, 0, begun))
        return np.where(wanted > at[-1], x[-1] * wanted / max(at[-1], 1), placed) if axis == "tokens" else placed

    def _keep_time(self, at: Any) -> None:
        now = number(at)
        if now == now:
            gap = 0.0 if self.last_sign is None else now - self.last_sign
            self.seconds += gap if 0 < gap <= LATE_S else 0.0
            self.last_sign = now


def number(value: Any) -> float:
    """Return a finite number as a float, nan for anything else."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else math.nan


def _take_step(view: RunView, event: Event, step: int) -> None:
    values = {name: number(event[field]) for name, field in STEP_FIELDS.items() if field in event}
    view.trained.put(step, values | {"seconds": view.seconds})


def _take_evaluation(view: RunView, event: Event, step: int) -> None:
    view.measured.put(step, bits_by_part(event))
    if "probes_answered" in event:
        view.answered.put(step, {"probes": number(event["probes_answered"])})
        lost = event.get("probes_lost")
        view.lost[step] = tuple(str(prompt) for prompt in lost) if isinstance(lost, list) else ()


def _take_sample(view: RunView, event: Event, step: int) -> None:
    view.samples.setdefault(str(event.get("prompt", "")), {})[step] = str(event.get("text", ""))


def _take_stage(view: RunView, event: Event, step: int) -> None:
    steps, stage = number(event.get("steps")), event.get("stage")
    if steps > 0 and isinstance(stage, int):
        seconds = view.stages[stage].seconds if stage in view.stages else view.seconds
        only = stage == 2 and step == 0  # a run of one stage trains the whole model; its number would mislead
        name = "" if only else STAGE_WORDS.get(stage, f"stage {stage}")
        view.stages[stage] = Stage(name, step, step + int(steps), seconds)


def _take_resumed(view: RunView, event: Event, step: int) -> None:
    """Drop what was recorded after the checkpoint: these steps are repeated."""
    for rows in (view.trained, view.measured, view.answered):
        rows.cut(step)
    tables: list[dict[int, Any]] = [view.lost, *view.samples.values()]
    for by_step in tables:
        for later in [at for at in by_step if at > step]:
            del by_step[later]


def _take_source(view: RunView, event: Event) -> None:
    reason = str(event.get("reason") or "")
    alone = "" if event.get("losses") else "The run learns from the text alone, without the source model: "
    view.source_note = reason and alone + reason


def _take_progress(view: RunView, event: Event) -> None:
    view.progress[1:] = [event]


_OF_A_STEP: dict[str, Callable[[RunView, Event, int], None]] = {
    "step": _take_step, "evaluation": _take_evaluation, "sample": _take_sample, "stage": _take_stage,
    "resumed": _take_resumed,
}  # fmt: skip
_OF_THE_RUN: dict[str, Callable[[RunView, Event], None]] = {
    "source": _take_source, "progress": _take_progress,
    "device": lambda view, event: setattr(view, "device", str(event.get("device", ""))),
    "kept": lambda view, event: setattr(view, "kept", str(event.get("reason", ""))),
    "note": lambda view, event: setattr(view, "note", str(event.get("text", ""))),
}  # fmt: skip


def bits_by_part(event: Event) -> dict[str, float]:
    """Return the bits per byte of an evaluation: of the whole text under `ALL_TEXT`, of each slice under its name."""
    by_slice = event.get("by_slice")
    parts = {str(name): number(bits) for name, bits in by_slice.items()} if isinstance(by_slice, dict) else {}
    return parts | {ALL_TEXT: number(event.get("bits_per_byte"))}


def view_of(
    events: Iterable[Event], total_steps: int = 0, reference: float | None = None, name: str = "this run"
) -> RunView:
    """Collect all events of an adapt run.

    Parameters
    ----------
    total_steps : number of steps in the run's settings
    reference : bits per byte of the source model with its own tokenizer on the same text
    name : its title
    """
    view = RunView(name, total_steps, references={} if reference is None else {ALL_TEXT: reference})
    view.add(events)
    return view
