"""The curves as a table, for who does not see them or wants the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np

from tokalign_lab.plots.curves import AXES, LINE_WORDS, MARK_WORDS, VALUES, Look, trained_curve
from tokalign_lab.runs.folding import ALL_TEXT, RunView
from tokalign_lab.runs.words import figure

from ..common.html import samples_html
from ..common.panel import bar

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


class LookBar:
    """Four controls and the `Look` that they say.

    Parameters
    ----------
    look : what they show at first
    on_change : called when a person has changed one of them
    """

    def __init__(self, look: Look, on_change: Callable[[], None]) -> None:
        self.look = look
        self._on_change = on_change
        self._offering = False
        self._value = w.Dropdown(options=[(VALUES[look.value], look.value)], description="On the left")
        self._axis = w.Dropdown(
            options=[(_AXIS_WORDS[axis], axis) for axis in AXES], value=look.axis, description="Along the axis"
        )
        self._smoothing = w.FloatSlider(
            value=look.smoothing, min=0, max=0.99, step=0.01, description="Smoothing", continuous_update=False,
            readout_format=".2f",
        )  # fmt: skip
        self._part = w.Dropdown(options=[(part_words(look.part), look.part)], description="Held-out text")
        controls = {
            "value": self._value,
            "axis": self._axis,
            "smoothing": self._smoothing,
            "part": self._part,
        }
        for name, control in controls.items():
            control.add_class(f"tl-curve-{name}")
            control.observe(lambda change, name=name: self._on_control(name, change["new"]), names="value")
        self.box = bar(*controls.values())

    def offer(self, runs: Sequence[RunView]) -> None:
        """Let those values and slices be chosen that any of the runs has told; what is chosen stays on offer."""
        told = {name for run in runs for name in run.trained.names()} | {"loss", self.look.value}
        parts = {part for run in runs for part in run.measured.names()} | {ALL_TEXT, self.look.part}
        self._offering = True  # plain options first become chosen when they are set
        try:
            self._set(self._value, [(words, name) for name, words in VALUES.items() if name in told], self.look.value)
            self._set(self._part, [(part_words(part), part) for part in sorted(parts)], self.look.part)
        finally:
            self._offering = False

    def _set(self, control: w.Dropdown, options: list[tuple[str, str]], chosen: str) -> None:
        if list(control.options) != options:
            control.options = options
            control.value = chosen

    def _on_control(self, name: str, value: Any) -> None:
        if not self._offering:
            self.look = replace(self.look, **{name: value})
            self._on_change()


def part_words(part: str) -> str:
    """Name a slice of the held-out text for people."""
    return "All of it" if part == ALL_TEXT else part


class Samples:
    """Two steps to choose, and a table; until a person chooses, the first step and the latest.

    Parameters
    ----------
    guarded : wraps callbacks, so that their errors are shown
    """

    def __init__(self, guarded: Callable[..., Callable[..., None]]) -> None:
        self._runs: Sequence[RunView] = ()
        self._offering = False
        self._chosen: list[int | None] = [None, None]
        self._steps = [
            w.Dropdown(description=words, options=[]) for words in ("Continuations at step", "beside those at step")
        ]
        self._table = w.HTML()
        self._table.add_class("tl-samples")
        for place, control in enumerate(self._steps):
            control.add_class(("tl-sample-left", "tl-sample-right")[place])
            control.observe(guarded(lambda change, place=place: self._on_choice(place, change["new"])), names="value")
        self._bar = bar(*self._steps)
        self.box = w.VBox([self._bar, self._table])
        self.box.layout.display = "none"

    @property
    def html(self) -> str:
        """What the table says."""
        return str(self._table.value)

    def show(self, runs: Sequence[RunView]) -> None:
        """Show the continuations of these runs."""
        self._runs = runs
        steps = sorted({step for run in runs for texts in run.samples.values() for step in texts})
        self.box.layout.display = "" if steps else "none"
        self._bar.layout.display = "" if len(steps) > 1 else "none"
        if not steps:
            return
        chosen = [
            at if at in steps else default for at, default in zip(self._chosen, (steps[0], steps[-1]), strict=True)
        ]
        options = [(f"{step:,}", step) for step in steps]
        self._offering = True
        try:
            for control, step in zip(self._steps, chosen, strict=True):
                if list(control.options) != options:
                    control.options = options
                control.value = step
        finally:
            self._offering = False
        self._draw()

    def _on_choice(self, place: int, step: int | None) -> None:
        if not self._offering:
            self._chosen[place] = step
            self._draw()

    def _draw(self) -> None:
        left, right = (control.value for control in self._steps)
        self._table.value = samples_html(self._runs, left, right if right != left else None)
