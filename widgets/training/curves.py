"""Parts of the training monitor: verdict, numbers, curves as a table, controls of the curves, samples and probes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import ipywidgets as w
import numpy as np

from tokalign_lab.plots.curves import AXES, LINE_WORDS, MARK_WORDS, VALUES, CurveOptions, trained_curve
from tokalign_lab.runs.folding import ALL_TEXT, RunView
from tokalign_lab.runs.words import figure, size

from ..common.numbers import MEANINGS, Number, share
from ..common.part import Bar, Box, bar, html, shown

TABLE_ROWS = 10


def shown_steps(runs: Sequence[RunView]) -> list[int]:
    """Return at most `TABLE_ROWS` steps with measurements, including the first and the last.

    With fewer than two measurements, all reported steps count.
    """
    steps = sorted({step for run in runs for step in run.measured.steps})
    if len(steps) < 2:
        steps = sorted({*steps, *(step for run in runs for step in run.steps)})
    if len(steps) <= TABLE_ROWS:
        return steps
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, TABLE_ROWS).round().astype(int))]


def curves_table(runs: Mapping[int, RunView], options: CurveOptions) -> str:
    """Return the values at some steps as HTML, two columns per run: the value of the last plot, and bits per byte."""
    part = "all text" if options.part == ALL_TEXT else options.part
    columns = []
    for run in runs.values():
        at, _, _, smooth = trained_curve(run, options)
        bits = dict(zip(run.measured.steps, run.measured.column(options.part).tolist(), strict=True))
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
        for words in (VALUES[options.value], f"Bits per byte, {part}")
    )
    return (
        "<div class='tl-table-scroll'><table class='tl-table tl-figures'><caption>The curves in figures; values "
        f"of steps are smoothed as drawn</caption><thead><tr><td></td>{names}</tr><tr><th scope='col'>Step</th>"
        f"{kinds * len(runs)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _at(step: int, steps: np.ndarray, values: np.ndarray) -> float | None:
    """Return the value at a step, or else at the last step before it; None before the first step or after the last."""
    index = int(np.searchsorted(steps, step, side="right")) - 1
    return float(values[index]) if index >= 0 and step <= steps[-1] else None


_AXIS_WORDS = {"step": "Steps", "tokens": "Tokens read", "minutes": "Minutes"}


class OptionsBar(Bar):
    """Four controls that set `CurveOptions`.

    Parameters
    ----------
    options : initial values
    on_change : called when the user changes one of them
    """

    def __init__(self, options: CurveOptions, on_change: Callable[[], None]) -> None:
        self.options = options
        self._on_change = on_change
        self._value = self._choice(
            "value",
            "Last plot",
            options=[(VALUES[options.value], options.value)],
            tooltip="The value shown in the last plot",
        )
        axes = [(_AXIS_WORDS[axis], axis) for axis in AXES]
        self._axis = self._choice("axis", "X axis", options=axes, value=options.axis, tooltip="Unit of the X axis")
        self._smoothing = self._choice(
            "smoothing", "Smoothing", w.FloatSlider, value=options.smoothing, min=0, max=0.99, step=0.01,
            continuous_update=False, readout_format=".2f", tooltip="Weight of earlier steps; 0: no smoothing",
        )  # fmt: skip
        self._part = self._choice(
            "part",
            "Held-out text",
            options=[(part_words(options.part), options.part)],
            tooltip="Slice of the held-out text that bits per byte and the gap are measured on",
        )
        super().__init__([self._value, self._axis, self._smoothing, self._part])

    def _choice(self, name: str, words: str, kind: Any = w.Dropdown, **more: Any) -> Any:
        def changed(value: Any) -> None:
            self.options = replace(self.options, **{name: value})
            self._on_change()

        return self.control(kind, words, changed, **more)

    def offer_reported(self, runs: Sequence[RunView]) -> None:
        """Offer the values and slices that any of the runs has reported, and the current choice."""
        reported = {name for run in runs for name in run.trained.names()} | {"loss", self.options.value}
        parts = {part for run in runs for part in run.measured.names()} | {ALL_TEXT, self.options.part}
        values = [(words, name) for name, words in VALUES.items() if name in reported]
        self.offer(self._value, values, self.options.value)
        self.offer(self._part, [(part_words(part), part) for part in sorted(parts)], self.options.part)


def part_words(part: str) -> str:
    """Return the display name of a slice of the held-out text."""
    return "All of it" if part == ALL_TEXT else part


class Samples(Box):
    """Continuations of the same prompts, and forgotten probes, at two steps; by default the first and the latest."""

    def __init__(self) -> None:
        self._runs: Sequence[RunView] = ()
        self._chosen: dict[str, int | None] = {"left": None, "right": None}
        words = {"left": "Samples at step", "right": "compared with step"}
        self._steps = [
            self.menu(word, partial(self._on_choice, place), options=[], tooltip="A step with measurements")
            for place, word in words.items()
        ]
        self._table = html("tl-samples")
        self._bar = bar(*self._steps)
        super().__init__([self._bar, self._table])
        shown(self, False)

    @property
    def html(self) -> str:
        """The HTML of the tables."""
        return str(self._table.value)

    def show(self, runs: Sequence[RunView]) -> None:
        """Show the samples of these runs, and the probes of the first."""
        self._runs = runs
        sampled = {step for run in runs for texts in run.samples.values() for step in texts}
        steps = sorted(sampled.union(*(run.lost for run in runs)))
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
        other = right if right != left else None
        self._table.value = probes_html(self._runs[0], left, other) + samples_html(self._runs, left, other)


SHOWN_PROBES = 8


def probes_html(view: RunView, left: int, right: int | None) -> str:
    """Return the probes answered wrongly at one or both of two steps as HTML, forgotten ones first."""
    if right is None or left not in view.lost or right not in view.lost:
        return ""
    before, after = set(view.lost[left]), set(view.lost[right])
    groups = {
        "forgotten": sorted(after - before),
        "learned again": sorted(before - after),
        "still wrong": sorted(before & after),
    }
    lines = [
        f"<tr><th scope='row'>{escape(prompt)} …</th><td>{'right' if name == 'forgotten' else 'wrong'}</td>"
        f"<td>{'right' if name == 'learned again' else 'wrong'}</td>"
        f"<td><span class='tl-state tl-probe-{name.replace(' ', '-')}'>{name}</span></td></tr>"
        for name, prompts in groups.items()
        for prompt in prompts
    ]
    counts = ", ".join(f"{len(prompts)} {name}" for name, prompts in groups.items())
    head = (
        "<table class='tl-table tl-texts'><thead><tr><th scope='col'>Probe that the source model answers</th>"
        f"<th scope='col'>Step {left:,}</th><th scope='col'>Step {right:,}</th><th></th></tr></thead><tbody>"
    )
    first, others = (f"{head}{''.join(some)}</tbody></table>" for some in (lines[:SHOWN_PROBES], lines[SHOWN_PROBES:]))
    more = f"<details><summary>{len(lines) - SHOWN_PROBES} more</summary>{others}</details>"
    return (
        f"<h4 title='{escape(MEANINGS['probes'].words)}'>What the model forgot: {counts}</h4>"
        f"{first if lines else ''}{more if len(lines) > SHOWN_PROBES else ''}"
    )


def samples_html(views: Sequence[RunView], left: int, right: int | None) -> str:
    """Return each run's continuation of each prompt at two steps side by side, as HTML.

    Parameters
    ----------
    left, right : steps; if `right` is None, there is one column
    """
    steps = [left] if right is None else [left, right]
    lines = []
    for prompt in dict.fromkeys(prompt for view in views for prompt in view.samples):
        for view in views:
            texts = view.samples.get(prompt, {})
            if texts:
                cells = "".join(f"<td>{escape(_trimmed(texts.get(step, '–')))}</td>" for step in steps)
                run = f"<td>{escape(view.name)}</td>" if len(views) > 1 else ""
                lines.append(f"<tr><th scope='row'>{escape(prompt)}</th>{run}{cells}</tr>")
    heads = ["Prompt", *(["Run"] if len(views) > 1 else []), *(f"Continued at step {step:,}" for step in steps)]
    head = "".join(f"<th scope='col'>{word}</th>" for word in heads)
    return (
        "<div class='tl-table-scroll'><table class='tl-table tl-texts'><caption>How the model continues the same "
        f"prompts</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _trimmed(text: str) -> str:
    """Return a text without white space at its end and empty lines at its start; an indentation stays."""
    return re.sub(r"\A\s*\n", "", text.rstrip())


def numbers_of(view: RunView) -> list[Number]:
    """Return up to four key numbers of a run, the first four that were measured."""
    bits, answered = view.measured.last(ALL_TEXT), view.answered.last("probes")
    found = {
        "bits": None if bits is None else figure(bits, 4),
        **dict(compared(view)[:1]),
        "tokens_per_second": _figure_of(view, "tokens_per_second"),
        "probes": None if answered is None else share(answered),
        "loss": _figure_of(view, "loss"),
    }
    return [(key, value) for key, value in found.items() if value is not None][:4]


def compared(view: RunView) -> list[Number]:
    """Compare the last measurement with step 0 and with the source model.

    The share of the gap that is closed is meaningful, and returned, only for a value between the two.
    """
    bits, reference = view.measured.last(ALL_TEXT), view.references.get(ALL_TEXT)
    if bits is None:
        return []
    found = [("worse", "worse")] * bool(bits > view.measured.column(ALL_TEXT)[0])
    found += [("better", "better")] * (reference is not None and bits < reference)
    closed = view.gap_closed()
    return found or [("gap", share(float(value))) for value in closed[np.isfinite(closed)][-1:]]


def verdict_html(view: RunView) -> str:
    """Return the result of a run as one sentence, followed by `RunView.source_note`."""
    note = f" {escape(view.source_note)}" * bool(view.source_note)
    bits, reference = view.measured.last(ALL_TEXT), view.references.get(ALL_TEXT)
    if bits is None:
        return f"Nothing is measured yet; bits per byte appear with the first evaluation.{note}"
    words = f"At step {view.measured.steps[-1]:,} the model needs <b>{figure(bits, 4)}</b> bits per byte"
    control = view.control.measured.last(ALL_TEXT) if view.control is not None else None
    if reference is not None:
        words += f", the source model {figure(reference, 4)}"
        words += "" if control is None else f" ({figure(control, 4)} if tuned on the same text)"
    found = " and ".join(f"{value} {MEANINGS[key].name}" for key, value in compared(view))
    words += f": {found}" * bool(found)
    known = "." if reference is not None else ". The source model is not measured yet."
    return f"{words}{known}{note}"


def more_numbers(view: RunView) -> list[Number]:
    """Return the other numbers that the last step of a run reported."""
    names = ("loss", "divergence", "learning_rate", "grad_norm", "bytes_per_second", "tokens")
    found = [(name, value) for name in names if (value := _figure_of(view, name)) is not None]
    memory = view.trained.last("memory")
    return [*found, *([("memory", size(memory))] if memory else [])]


def _figure_of(view: RunView, name: str) -> str | None:
    value = view.trained.last(name)
    return None if value is None else figure(value, 3 if name.endswith("per_second") else 4)
