"""Measured quality of converted models: right after the swap of the tokenizer, and after recovery.

`benchmarks/measured_moves.py` makes `data/measured_moves.jsonl` from the results pages and decision 16. A loss is a
factor: bits per byte of the converted model over bits per byte of a reference. Right after the swap the reference is
the untuned source model, after recovery the source model tuned on the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class MeasuredMove:
    """One run on one slice of its held-out text; the last four attributes are bits per byte, None if not measured.

    Attributes
    ----------
    run, page : description of the run, and the page with its figures
    source, target : catalogue names of the source model and of the target tokenizer
    slice : "prose", "code", a language code, or another group of text
    tokens : tokens read in recovery; 0 without recovery
    untuned, start : the source model, and the converted model before recovery
    control, end : the source model tuned on the same bytes, and the converted model after recovery
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
        """Factor right after the swap."""
        return None if self.start is None or self.untuned is None else self.start / self.untuned

    @property
    def loss_at_end(self) -> float | None:
        """Factor after recovery."""
        return None if self.end is None or self.control is None else self.end / self.control


@dataclass(frozen=True)
class ExpectedLoss:
    """Range of the measured losses that are closest to a swap.

    Attributes
    ----------
    low, high : smallest and largest factor; 1.2 means 20 % more bits per byte
    basis : the kind of runs: of this pair or of other pairs, on this slice or on other slices
    this_pair : whether the pair itself was measured
    n : number of measurements; with one, nothing is known about its error
    tokens : minimum and maximum of the tokens read in recovery
    runs : the runs, with their pages
    """

    low: float
    high: float
    basis: str
    this_pair: bool
    n: int
    tokens: tuple[int, int]
    runs: tuple[str, ...]


@cache
def all_moves() -> tuple[MeasuredMove, ...]:
    """Read the measurements that ship with the package."""
    lines = (files("tokalign_lab") / "data" / "measured_moves.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(MeasuredMove(**json.loads(line)) for line in lines)


def expected_loss(
    source: str, target: str, slice: str, recovered: bool, moves: Iterable[MeasuredMove] | None = None
) -> ExpectedLoss:
    """Find the measured losses that are closest to a swap.

    The pair has priority over the slice: runs of this pair on this slice; else of this pair on other slices; else of
    other pairs on this slice; else all.

    Parameters
    ----------
    source, target : names of the model and of the tokenizer; only equal names are the same pair
    slice : slice of the text
    recovered : whether the loss is after recovery, or right after the swap
    moves : `all_moves` by default
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
