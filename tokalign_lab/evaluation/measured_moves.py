"""What was measured of moved models: how much quality a move costs, right after it and after recovery.

`data/measured_moves.jsonl` is made by `benchmarks/measured_moves.py` from docs/results and from decision 16. A loss is
a factor: bits per byte of the moved model over bits per byte of what it is compared with. Right after the move that is
the untuned source model, after recovery the source model tuned on the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class MeasuredMove:
    """One run on one slice of its held-out text; the last four are bits per byte, None where they were not measured.

    Attributes
    ----------
    run, page : str
        What was run, and the page with the figures.
    source, target : str
        Catalogue names of the source model and of the target tokenizer.
    slice : str
        "prose", "code", a language code, or another group of text.
    tokens : int
        Tokens that the recovery read; 0 without recovery.
    untuned, start : float or None
        The source model, and the moved model before recovery.
    control, end : float or None
        The source model tuned on the same bytes, and the moved model after recovery.
    """

    run: str
    page: str
    source: str
    target: str
    slice: str
    tokens: int
    untuned: float | None
    start: float | None
    control: float | None
    end: float | None

    @property
    def loss_at_start(self) -> float | None:
        """Factor right after the move."""
        return None if self.start is None or self.untuned is None else self.start / self.untuned

    @property
    def loss_at_end(self) -> float | None:
        """Factor after recovery."""
        return None if self.end is None or self.control is None else self.end / self.control


@dataclass(frozen=True)
class ExpectedLoss:
    """The range of measured losses that says most about a move.

    Attributes
    ----------
    low, high : float
        Smallest and largest factor; 1.2 means 20 % more bits per byte.
    basis : str
        Which runs these are: of this pair or of other pairs, on this slice or on other slices.
    this_pair : bool
        Whether the pair itself was measured.
    n : int
        How many figures the range is of; a range of one figure says nothing about its error.
    tokens : tuple of int
        Fewest and most tokens that these runs read for recovery.
    runs : tuple of str
        The runs, with their pages.
    """

    low: float
    high: float
    basis: str
    this_pair: bool
    n: int
    tokens: tuple[int, int]
    runs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "tokens": list(self.tokens), "runs": list(self.runs)}


@cache
def all_moves() -> tuple[MeasuredMove, ...]:
    """Read the measurements that come with the package."""
    lines = (files("tokalign_lab") / "data" / "measured_moves.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(MeasuredMove(**json.loads(line)) for line in lines)


def expected_loss(
    source: str, target: str, slice: str, recovered: bool, moves: Iterable[MeasuredMove] | None = None
) -> ExpectedLoss:
    """Find what was measured nearest to a move.

    The pair goes before the slice: runs of this pair on this slice; else of this pair on other slices; else of other
    pairs on this slice; else all.

    Parameters
    ----------
    source, target
        Names of the model and of the tokenizer, as the user gives them; only equal names are the same pair.
    slice
        Of the text.
    recovered
        After recovery, or right after the move.
    moves
        `all_moves` by default.
    """
    losses = [
        (move, loss)
        for move in (all_moves() if moves is None else moves)
        if (loss := move.loss_at_end if recovered else move.loss_at_start) is not None
    ]
    for this_pair, this_slice in ((True, True), (True, False), (False, True), (False, False)):
        found = [
            (move, loss)
            for move, loss in losses
            if (not this_pair or (move.source, move.target) == (source, target))
            and (not this_slice or move.slice == slice)
        ]
        if found:
            break
    names = dict.fromkeys(f"{move.page}: {move.source} to {move.target}, {move.run}" for move, _ in found)
    tokens = [move.tokens for move, _ in found]
    return ExpectedLoss(
        low=min(loss for _, loss in found),
        high=max(loss for _, loss in found),
        basis=f"{'this pair' if this_pair else 'other pairs'}, {'this slice' if this_slice else 'other slices'}",
        this_pair=this_pair,
        n=len(found),
        tokens=(min(tokens), max(tokens)),
        runs=tuple(names),
    )
