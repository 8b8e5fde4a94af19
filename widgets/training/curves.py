"""The curves as a table, what of them is looked at, and continuations of the same prompts beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np

from tokalign_lab.plots.curves import AXES, LINE_WORDS, MARK_WORDS, VALUES, Look, trained_curve
from tokalign_lab.runs.folding import ALL_TEXT, RunView
from tokalign_lab.runs.words import figure, size

from ..common.html import card, cards
from ..common.part import Bar, Box, bar, html, shown

TABLE_ROWS = 10


def shown_steps(runs: Sequence[RunView]) -> list[int]:
    """At most `TABLE_ROWS` steps, first and last among them: those at which held-out text was measured, if any."""
    steps = sorted({step for run in runs for step in run.measured.steps})
    if len(steps) < 2:
        steps = sorted({*steps, *(step for run in runs for step in run.steps)})
    if len(steps) <= TABLE_ROWS:
        return steps
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, TABLE_ROWS).round().astype(int))]


def curves_table(runs: Mapping[int, RunView], look: Look) -> str:
    """Return the figures at some steps, a pair of columns a run: the value on the left, bits a byte on the right."""
    part = "all text" if look.part == ALL_TEXT else look.part
    columns = []
    for run in runs.values():
        at, _, _, smooth = trained_curve(run, look)
        bits = dict(zip(run.measured.steps, run.measured.column(look.part).tolist(), strict=True))
        columns.append((at, smooth, bits))
    lines = []
    for step in shown_steps(list(runs.values())):
        cells = "".join(
            f"<td class='tl-number'>{figure(_at(step, at, smooth), 4)}</td>"
            f"<td class='tl-number'>{figure(bits.get(step), 4)}</td>"
            for at, smooth, bits in columns
        )
        lines.append(f"<tr><th scope='row'>{step:,}</th>{cells}</tr>")
    if not lines:
        return ""
    names = "".join(
        f"<th scope='colgroup' colspan='2'>{escape(run.name)}"
        f"{f' <small>{LINE_WORDS[place]}, {MARK_WORDS[place]}</small>' if len(runs) > 1 else ''}</th>"
        for place, run in runs.items()
    )
    kinds = "".join(
        f"<th scope='col' class='tl-number'>{escape(words)}</th>"
        for words in (VALUES[look.value], f"Bits a byte, {part}")
    )
    floor = next(iter(runs.values())).floors.get(look.part)
    told = "" if floor is None else (
        f"<div class='tl-note'>The source model with its own tokenizer, the floor to come back to: {floor:.3f}.</div>"
    )  # fmt: skip
    return (
        "<div class='tl-table-scroll'><table class='tl-table tl-figures'><caption>The curves in figures; what a step "
        f"tells is smoothed as drawn</caption><thead><tr><td></td>{names}</tr><tr><th scope='col'>Step</th>"
        f"{kinds * len(runs)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{told}"
    )


def _at(step: int, steps: np.ndarray, values: np.ndarray) -> float | None:
    """Return the value at a step, or at the last one before it; none before the first step or after the last."""
    place = int(np.searchsorted(steps, step, side="right")) - 1
    return float(values[place]) if place >= 0 and step <= steps[-1] else None


_AXIS_WORDS = {"step": "Steps", "tokens": "Tokens read", "minutes": "Time worked"}


class LookBar(Bar):
    """Four controls and the `Look` that they say.

    Parameters
    ----------
    look : what they show at first
    on_change : called when a person has changed one of them
    """

    def __init__(self, look: Look, on_change: Callable[[], None]) -> None:
        self.look = look
        self._on_change = on_change
        self._value = self._choice("value", "On the left", options=[(VALUES[look.value], look.value)])
        axes = [(_AXIS_WORDS[axis], axis) for axis in AXES]
        self._axis = self._choice("axis", "Along the axis", options=axes, value=look.axis)
        self._smoothing = self._choice(
            "smoothing", "Smoothing", w.FloatSlider, value=look.smoothing, min=0, max=0.99, step=0.01,
            continuous_update=False, readout_format=".2f",
        )  # fmt: skip
        self._part = self._choice("part", "Held-out text", options=[(part_words(look.part), look.part)])
        super().__init__([self._value, self._axis, self._smoothing, self._part])

    def _choice(self, name: str, words: str, kind: Any = w.Dropdown, **more: Any) -> Any:
        def changed(value: Any) -> None:
            self.look = replace(self.look, **{name: value})
            self._on_change()

        return self.control(kind, words, f"tl-curve-{name}", changed, **more)

    def offer_told(self, runs: Sequence[RunView]) -> None:
        """Let those values and slices be chosen that any of the runs has told; what is chosen stays on offer."""
        told = {name for run in runs for name in run.trained.names()} | {"loss", self.look.value}
        parts = {part for run in runs for part in run.measured.names()} | {ALL_TEXT, self.look.part}
        values = [(words, name) for name, words in VALUES.items() if name in told]
        self.offer(self._value, values, self.look.value)
        self.offer(self._part, [(part_words(part), part) for part in sorted(parts)], self.look.part)


def part_words(part: str) -> str:
    """Name a slice of the held-out text for people."""
    return "All of it" if part == ALL_TEXT else part


class Samples(Box):
    """How the model continues the same prompts, at two steps side by side; by default the first and the latest."""

    def __init__(self) -> None:
        self._runs: Sequence[RunView] = ()
        self._chosen: dict[str, int | None] = {"left": None, "right": None}
        words = {"left": "Continuations at step", "right": "beside those at step"}
        self._steps = [
            self.menu(said, f"tl-sample-{place}", partial(self._on_choice, place), options=[])
            for place, said in words.items()
        ]
        self._table = html("tl-samples")
        self._bar = bar(*self._steps)
        super().__init__([self._bar, self._table])
        shown(self, False)

    @property
    def html(self) -> str:
        """What the table says."""
        return str(self._table.value)

    def show(self, runs: Sequence[RunView]) -> None:
        """Show the continuations of these runs."""
        self._runs = runs
        steps = sorted({step for run in runs for texts in run.samples.values() for step in texts})
        shown(self, bool(steps))
        shown(self._bar, len(steps) > 1)
        if not steps:
            return
        options = [(f"{step:,}", step) for step in steps]
        for control, at, first in zip(self._steps, self._chosen.values(), (steps[0], steps[-1]), strict=True):
            self.offer(control, options, at if at in steps else first)
        self._draw()

    def _on_choice(self, place: str, step: int | None) -> None:
        self._chosen[place] = step
        self._draw()

    def _draw(self) -> None:
        left, right = (control.value for control in self._steps)
        self._table.value = samples_html(self._runs, left, right if right != left else None)


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


def cards_html(view: RunView) -> str:
    """Return the latest figures of a run, each with its name; nothing before the first."""
    told, bits = view.trained, view.measured.last(ALL_TEXT)
    floor, memory = view.floors.get(ALL_TEXT), told.last("memory")
    beside = "" if floor is None else f" (floor {figure(floor, 4)})"
    figures = [
        (figure(told.last("loss"), 4), "loss (nats a token)", told.last("loss")),
        (figure(told.last("divergence"), 4), "divergence from the teacher", told.last("divergence")),
        (figure(bits, 4) + beside, "bits a byte of held-out text", bits),
        (figure(told.last("learning_rate")), "learning rate", told.last("learning_rate")),
        (figure(told.last("grad_norm")), "gradient norm", told.last("grad_norm")),
        (figure(told.last("tokens_per_second")), "tokens a second", told.last("tokens_per_second")),
        (figure(told.last("bytes_per_second")), "bytes of text a second", told.last("bytes_per_second")),
        (figure(told.last("tokens")), "tokens read", told.last("tokens")),
        (size(memory or 0), "memory", memory),
    ]
    return cards([card(value, name) for value, name, there in figures if there is not None])
