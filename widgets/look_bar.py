"""What of the curves is looked at: the controls above them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w

from tokalign_lab.plots.curves import AXES, VALUES, Look
from tokalign_lab.runs.folding import ALL_TEXT, RunView
from tokalign_lab.widgets.panel import bar

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
