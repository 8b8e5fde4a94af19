"""When a run has diverged: the loss is not finite, or it has risen and does not recover.

A spike is no divergence: the papers show runs that spike and recover. The reference is the median loss of the fifty
steps before, or the first loss of the stage if that is lower (a rate that is much too high makes a run diverge from its
second step on). A run has diverged if its loss stays too high for ten steps in a row. Too high means: at least one nat
above the reference, and more than half of the way from it to the loss of a uniform model, ln(vocab_size).
"""

from __future__ import annotations

import math
import statistics
from collections import deque

_PATIENCE = 10  # steps
_MEMORY = 50  # steps
_LEAST_RISE = 1.0  # nats


class Diverged(RuntimeError):
    """The loss is not finite or has exploded; the message has the step and what to try."""


class LossWatch:
    """Follows the losses of one stage."""

    def __init__(self, vocab_size: int) -> None:
        self._nothing = math.log(vocab_size)
        self._first = math.inf
        self._before: deque[float] = deque(maxlen=_MEMORY)
        self._high: list[float] = []

    @property
    def in_doubt(self) -> bool:
        """Whether the latest loss is too high; a checkpoint of such a model must not replace a good one."""
        return bool(self._high)

    def add(self, loss: float) -> str | None:
        """Add the loss of a step, in nats; returns a description of the problem once the run has diverged."""
        if not math.isfinite(loss):
            return "is not a number"
        if not self._before:
            self._first = loss
        usual = self._usual() if self._before else loss
        if loss <= usual + max(_LEAST_RISE, (self._nothing - usual) / 2):
            self._before.append(loss)
            self._high.clear()
            return None
        self._high.append(loss)
        if len(self._high) < _PATIENCE:
            return None
        return f"has exploded, from {usual:.2f} to {statistics.median(self._high):.2f} for {_PATIENCE} steps,"

    def _usual(self) -> float:
        return min(self._first, statistics.median(self._before))
