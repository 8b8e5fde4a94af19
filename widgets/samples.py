"""How the model continues the same prompts, at two steps side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as w

from tokalign_lab.runs.folding import RunView
from tokalign_lab.widgets.panel import bar
from tokalign_lab.widgets.run_words import samples_html


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
