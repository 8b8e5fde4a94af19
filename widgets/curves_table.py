"""The curves as a table, for who does not see them or wants the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from tokalign_lab.plots.curves import LINE_WORDS, MARK_WORDS, VALUES, Look, trained_curve
from tokalign_lab.runs.folding import ALL_TEXT, RunView
from tokalign_lab.runs.words import figure

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
