"""Settings of the anchored vectors, in a module that does not import numba."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnchoredSettings:
    """Settings of the anchored vectors, measured one by one (docs/results/anchored_settings.md).

    In P@1, a window of 5 is 1.4 points better than GloVe's 15; `sides_apart` (separate columns for left and right
    neighbours), `power` and `smoothing` change less than one point. One pass is 0.7 points better than three, and 500
    dimensions 0.6 better than 300; neither has shown a difference in bits per byte.
    """

    dimensions: int = 300
    window: int = 5
    min_count: int = 5
    anchors: int = 4096
    smoothing: float = 0.75
    power: float = 0.25
    sides_apart: bool = True
    passes: int = 3
