"""A measured share or mean with how sure it is: n and a bootstrap interval.

Draw the n units (documents, tokens) again with replacement, take the mean, a thousand times over; the middle 95 % of
those means is the interval (Efron 1979, the percentile method). A draw is a vector of how often each unit was taken,
which is multinomial, so that all draws are one matrix product. For a share among n independent tokens it is simpler
still: the number of hits in a draw is binomial.

The interval says what another sample of this size would give, not what another text would. Where all units agree it
has no width; n then says how little that may mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
_BLOCK_NUMBERS = 1 << 24  # 128 MB of draws at a time


@dataclass(frozen=True)
class Interval:
    """A mean, the bounds of its 95 % bootstrap interval, and the number of units or tokens that it was taken over."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n:,}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def of_mean(values: NDArray[Any], seed: int = 0) -> Interval:
    """Mean of one value a unit, float (n,), n >= 1."""
    values = np.asarray(values, np.float64)
    return of_ratio(values[:, None], np.ones((len(values), 1)), seed)[0]


def of_share(hits: int, n: int, seed: int = 0) -> Interval:
    """Share of n >= 1 independent tokens that are hits."""
    share = hits / n
    low, high = _middle(np.random.default_rng(seed).binomial(n, share, RESAMPLES) / n)
    return Interval(share, float(low), float(high), n)


def of_ratio(hits: NDArray[Any], of: NDArray[Any], seed: int = 0) -> list[Interval]:
    """Bootstrap `sum(hits) / sum(of)` over units, for several groups at once.

    Units that come in clumps, such as the tokens of one document, are drawn together, as they would be in another
    sample.

    Parameters
    ----------
    hits, of
        float (units, groups): what each unit adds to numerator and denominator. Every group has some of the latter.
    seed
        Of the draws.

    Returns
    -------
    list of Interval
        One a group; its n is `sum(of)`.
    """
    hits, of = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    units = len(hits)
    rng = np.random.default_rng(seed)
    drawn = []
    block = max(1, _BLOCK_NUMBERS // units)
    for first in range(0, RESAMPLES, block):
        times = rng.multinomial(units, np.full(units, 1 / units), min(block, RESAMPLES - first)).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a draw may miss a small group altogether
            drawn.append((times @ hits) / (times @ of))
    low, high = _middle(np.concatenate(drawn))
    totals = of.sum(axis=0)
    columns = zip(hits.sum(axis=0) / totals, low, high, totals, strict=True)
    return [Interval(float(mean), float(a), float(b), round(n)) for mean, a, b, n in columns]


def _middle(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    tail = 100 * (1 - LEVEL) / 2
    return np.nanpercentile(drawn, (tail, 100 - tail), axis=0)
