"""Which step of a run is kept, and when a run stops before its last step.

With little text, more steps keep lowering the bits per byte of that kind of text while the model forgets other things.
So each measurement has two numbers: bits per byte of held-out text, and the share of probes that the model answers
(`probes`). A step forgets more than it learns if, since an earlier step, it has lost more than `MOST_LOST` of the
probes, and a larger share of those it answered than of its bits per byte. Of the other steps, the one with the lowest
bits per byte is kept. A run stops when held-out text no longer improves, or when two measurements in a row forget more
than they learn.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tokalign_lab.files import write_json

MOST_LOST = 0.1  # share of the probes; about two standard errors of the difference if 16 of 85 probes change
LEAST_GAIN = 0.002  # smallest relative decrease of bits per byte that counts as an improvement
_FILE = "measured.json"


@dataclass(frozen=True)
class Measured:
    """One measurement of a run.

    Attributes
    ----------
    step : steps done
    bits_per_byte : of held-out text
    answered : share of the probes that are answered; nan if there are none
    """

    step: int
    bits_per_byte: float
    answered: float


class Guard:
    """Follows the measurements of a run; they are stored in `folder`, so that a resumed run decides in the same way.

    Parameters
    ----------
    folder : gets `measured.json`, and from the caller the weights of the best step
    patience : measurements without an improvement before the run stops; 0 never stops it and keeps the last step
    step : steps that are done already; later measurements in the file are dropped, because they will be repeated
    """

    def __init__(self, folder: Path, patience: int, step: int = 0) -> None:
        self.folder = folder
        self._patience = patience
        path = folder / _FILE
        kept = json.loads(path.read_text(encoding="utf-8")) if step and path.is_file() else []
        self.measured = [one for one in (Measured(**values) for values in kept) if one.step <= step]

    def add(self, one: Measured) -> bool:
        """Add a measurement; returns whether its step is now the one to keep."""
        self.measured = [before for before in self.measured if before.step < one.step] + [one]
        write_json(self.folder / _FILE, [asdict(before) for before in self.measured])
        return self.best == one

    @property
    def best(self) -> Measured:
        """The measurement whose step is kept."""
        if not self._patience:
            return self.measured[-1]
        best = self.measured[0]
        for number, one in enumerate(self.measured):
            if one.bits_per_byte < best.bits_per_byte and not self._forgets_since(number):
                best = one
        return best

    def _forgets_since(self, number: int) -> list[Measured]:
        """Return the earlier measurements since which this one forgets more than it learns."""
        now = self.measured[number]
        return [
            before
            for before in self.measured[:number]
            if (lost := before.answered - now.answered) > MOST_LOST
            and lost / before.answered > 1 - now.bits_per_byte / before.bits_per_byte
        ]

    @property
    def reason(self) -> str:
        """The reason to stop the run now, as a sentence; empty if it should continue."""
        if not self._patience or len(self.measured) < 2:
            return ""
        last, end = self.measured[-1], len(self.measured) - 1
        if self._forgets_since(end) and self._forgets_since(end - 1):
            return (
                f"Stopped at step {last.step}: {self._forgotten()} Step {self.best.step} is kept. Add text of the kind "
                "that it forgets, or train to the end with patience 0."
            )
        recent, earlier = self.measured[-self._patience :], self.measured[: -self._patience]
        if earlier and min(one.bits_per_byte for one in recent) > (1 - LEAST_GAIN) * min(
            one.bits_per_byte for one in earlier
        ):
            return (
                f"Stopped at step {last.step}: held-out text has not improved over the last {self._patience} "
                f"measurements; step {self.best.step} is kept."
            )
        return ""

    @property
    def verdict(self) -> str:
        """Why the last step of a run is not kept, as a sentence; empty if it is."""
        best, last = self.best, self.measured[-1]
        if best == last:
            return ""
        is_better = best.bits_per_byte <= last.bits_per_byte
        why = "it is better on held-out text." if is_better else self._forgotten()
        return f"Step {best.step} of {last.step} is kept: {why}"

    def _forgotten(self) -> str:
        """Say what the last step forgets; it forgets more than it learns since an earlier one."""
        last = self.measured[-1]
        most = max(self._forgets_since(len(self.measured) - 1), key=lambda one: one.answered)
        return (
            f"the model forgets more than it learns from this text; it answers {last.answered:.0%} of the probes, and "
            f"it answered {most.answered:.0%} at step {most.step}."
        )
