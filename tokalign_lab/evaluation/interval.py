"""A measured share or mean with n and its bootstrap interval.

The n units (documents, tokens) are resampled with replacement 1,000 times; the interval is the middle 95 % of the means
(percentile bootstrap, Efron 1979). A resample is a multinomial vector of counts, so all of them are one matrix product.
For a share of n independent tokens, the number of hits in a resample is binomial.

The interval shows the spread over samples of this size, not over other kinds of text. Its width is 0 if all units
agree. One unit has no interval: each resample would equal it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.files import plain

RESAMPLES = 1000
LEVEL = 0.95
_BLOCK_NUMBERS = 1 << 24  # 128 MB of resampling counts at a time


@dataclass(frozen=True)
class Interval:
    """A mean, the bounds of its 95 % bootstrap interval (NaN if unknown), and n, the number of units or tokens."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        bounds = "" if math.isnan(self.low) else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{bounds}, n = {self.n:,}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; unknown bounds are None."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Interval:
        """Make an interval from the result of `to_dict`."""
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in values.items()}
        return cls(**known)


def of_mean(values: NDArray[Any], seed: int = 0) -> Interval:
    """Return the mean of one value per unit, float (n,), n >= 1, with its interval (none if n is 1)."""
    values = np.asarray(values, np.float64)
    return of_ratio(values[:, None], np.ones((len(values), 1)), seed)[0]


def of_share(hits: int, n: int, seed: int = 0) -> Interval:
    """Return the share of n >= 1 independent tokens that are hits, with its interval (none if n is 1)."""
    share = hits / n
    if n == 1:
        return Interval(share, math.nan, math.nan, n)
    low, high = _middle(np.random.default_rng(seed).binomial(n, share, RESAMPLES) / n)
    return Interval(share, float(low), float(high), n)


def of_ratio(hits: NDArray[Any], of: NDArray[Any], seed: int = 0) -> list[Interval]:
    """Bootstrap `sum(hits) / sum(of)` over units, for several groups together.

    Units are whole documents, because tokens of one document are not independent. Returns one interval per group; n is
    `sum(of)`. A group that only one unit has gets unknown bounds.

    Parameters
    ----------
    hits, of : float (units, groups): the unit's part of numerator and denominator; `sum(of)` is positive in each group
    seed : seed of the resampling
    """
    hits, of = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    units = len(hits)
    rng = np.random.default_rng(seed)
    drawn = []
    block = max(1, _BLOCK_NUMBERS // units)
    for first in range(0, RESAMPLES, block):
        times = rng.multinomial(units, np.full(units, 1 / units), min(block, RESAMPLES - first)).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a resample may miss a small group
            drawn.append((times @ hits) / (times @ of))
    low, high = _middle(np.concatenate(drawn))
    totals, lone = of.sum(axis=0), (of > 0).sum(axis=0) == 1
    low[lone] = high[lone] = np.nan
    columns = zip(hits.sum(axis=0) / totals, low, high, totals, strict=True)
    return [Interval(float(mean), float(a), float(b), round(n)) for mean, a, b, n in columns]


def _middle(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    tail = 100 * (1 - LEVEL) / 2
    return np.nanpercentile(drawn, (tail, 100 - tail), axis=0)
