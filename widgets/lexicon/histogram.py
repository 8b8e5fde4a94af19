"""Histogram of score, margin or frequency over the rows found; each bar is a filter.

Bars are buttons in the page, so that the keyboard and a screen reader have them too. A second plotly figure would cost
five megabytes and a second of the browser's time; twenty bars need neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t

from ..common.state import EVERYTHING, Range

_HERE = Path(__file__).parent
N_BARS = 20
NAMES = {"score": "Score", "margin": "Margin", "frequency": "Times in text", "length": "Bytes"}
_COUNTED = ("frequency", "length")  # whole numbers, spread over decades


class Histogram(anywidget.AnyWidget):
    """Bars of counts.

    Attributes
    ----------
    bars : list of {"label": str, "n": int, "on": bool}
    name : what is counted over
    said : a sentence under the bars
    unfolded : whether the table is open
    on_bar : called with the range of the bar that is pressed, `EVERYTHING` when it was chosen already
    """

    _esm = _HERE / "histogram.js"
    bars: t.List[dict[str, Any]] = t.List().tag(sync=True)
    name = t.Unicode("").tag(sync=True)
    said = t.Unicode("").tag(sync=True)
    unfolded = t.Bool(False).tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self.on_bar: Callable[[Range], None] | None = None
        self._ranges: Sequence[Range] = []
        self.on_msg(self._on_message)

    def _on_message(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if "pressed" in content:
            self.press(int(content["pressed"]))

    def press(self, index: int) -> None:
        """Simulate a click on this bar."""
        if self.on_bar is not None and 0 <= index < len(self._ranges):
            self.on_bar(EVERYTHING if self.bars[index]["on"] else self._ranges[index])

    def show(self, measure: str, everything: np.ndarray, kept: np.ndarray, chosen: Range) -> None:
        """Draw `everything[kept]` in bars over the range of `everything`; bars inside `chosen` are on.

        `kept` is what all other filters leave, so that the bars next to a chosen one can still be pressed.
        """
        ranges = ranges_of(measure, everything)
        values = everything[kept & np.isfinite(everything)]
        lows = np.array([low for low, _ in ranges])
        place = np.searchsorted(lows, values, side="right") - 1
        counts = np.bincount(place[place >= 0], minlength=len(ranges)) if ranges else np.zeros(0, np.int64)
        self._ranges = ranges
        unknown = int(kept.sum()) - len(values)
        with self.hold_sync():
            self.name = NAMES[measure]
            self.bars = [
                {"label": _label(measure, *ends), "n": int(n), "on": chosen != EVERYTHING and _inside(ends, chosen)}
                for ends, n in zip(ranges, counts, strict=True)
            ]
            self.said = f"{len(values):,} tokens, heights by square root" + (f"; {unknown:,} have none" * (unknown > 0))


def ranges_of(measure: str, values: np.ndarray) -> list[tuple[float, float]]:
    """Cut the range of the values into bars, each with its lowest and its highest value, both included."""
    known = values[np.isfinite(values)]
    if measure in _COUNTED:
        known = known[known >= 0]
    if not len(known):
        return []
    low, high = float(known.min()), float(known.max())
    if measure in _COUNTED:
        decades = [0, 1, 2, 3, 5, 8, *(step * 10**k for k in range(1, 12) for step in (1, 2, 5))]
        steps = [edge for edge in decades if edge <= high]
        steps = steps[max(0, int(np.searchsorted(steps, low, side="right")) - 1) :]
        return [(float(a), float(b - 1)) for a, b in zip(steps, [*steps[1:], int(high) + 1], strict=True)]
    edges = np.round(np.linspace(low, high, N_BARS + 1), 4)
    edges[0], edges[-1] = np.floor(low * 1e4) / 1e4, np.ceil(high * 1e4) / 1e4
    edges = np.unique(edges)
    if len(edges) == 1:
        return [(float(edges[0]), float(edges[0]))]
    # a value on an edge belongs to the bar that begins there; float32 tells apart what stands 1e-6 below
    ends = [*(edges[1:-1] - 1e-6), edges[-1]]
    return [(float(a), float(b)) for a, b in zip(edges[:-1], ends, strict=True)]


def _inside(ends: tuple[float, float], chosen: Range) -> bool:
    low, high = chosen
    return (low is None or ends[0] >= low - 1e-9) and (high is None or ends[1] <= high + 1e-9)


def _label(measure: str, low: float, high: float) -> str:
    if measure in _COUNTED:
        return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    return f"{low:.3f} to {high:.3f}"
