"""A dictionary from two mapped spaces: each token's best partner by CSLS, in both directions, with random dropout.

One step of VecMap's self-learning (`vecmap.py`). `neighbours.py` ranks ten candidates for every query. Here one matrix
product serves both directions, and only the best partner is kept. A random share of the similarities may be dropped, so
that self-learning escapes poor local optima (Artetxe et al. 2018, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.search.neighbours import density
from tokalign_lab.vectors.compiled import njit
from tokalign_lab.vectors.strips import product as multiply

_BLOCK_NUMBERS = 1 << 25  # 128 MB of float32 similarities at a time
_CHUNK = 256  # columns of one thread


@dataclass(frozen=True)
class Dictionary:
    """Pairs of rows of two spaces, from both directions, and the average similarity of partners (`objective`)."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    objective: float


def induce(source: NDArray[np.float32], target: NDArray[np.float32], keep: float = 1.0, seed: int = 0) -> Dictionary:
    """Pair each row with its best partner on the other side; returns up to n + m pairs.

    `source` and `target` are float32 (n, d) and (m, d), rows of length 1 in one space. Each similarity is kept with
    probability `keep`, by `seed`; a dropped one makes no pair, but counts in the objective.
    """
    of_source, of_target = density(source, target)
    row_choice, row_score = np.full(len(source), -1, np.int64), np.zeros(len(source), np.float32)
    column_choice, column_score = np.full(len(target), -1, np.int64), np.full((len(target), 2), -np.inf, np.float32)
    block = max(1, _BLOCK_NUMBERS // len(target))
    for first in range(0, len(source), block):
        rows = slice(first, first + block)
        product = multiply(source[rows], target.T, size=256)
        _choose_by_row(product, of_target / 2, keep, 2 * seed, first, row_choice[rows], row_score[rows])
        _choose_by_column(product, of_source[rows] / 2, keep, 2 * seed + 1, first, column_choice, column_score)
    by_row, by_column = np.flatnonzero(row_choice >= 0), np.flatnonzero(column_choice >= 0)
    return Dictionary(
        np.concatenate([by_row, column_choice[by_column]]),
        np.concatenate([row_choice[by_row], by_column]),
        float(row_score.mean(dtype=np.float64) + column_score[:, 0].mean(dtype=np.float64)) / 2,
    )


@njit()
def _rounded(value: Any) -> Any:
    """Round to 2^-20, so that the order of addition changes no choice."""
    return np.float32(np.rint(value * 1048576.0) / 1048576.0)


@njit()
def _kept(row: Any, column: Any, seed: Any, threshold: Any) -> Any:
    """Whether a similarity is kept: the hash of its position (SplitMix64, Steele et al. 2014) is below `threshold`."""
    mixed = (np.uint64(row) << np.uint64(32)) + np.uint64(column) + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32) < threshold


@njit(parallel=True)
def _choose_by_row(product: Any, penalty: Any, keep: Any, seed: Any, first_row: Any, choice: Any, score: Any) -> None:
    threshold = np.uint64(keep * 4294967296.0)
    for row in numba.prange(len(product)):
        best, chosen, where = np.float32(-np.inf), np.float32(-np.inf), -1
        for column in range(product.shape[1]):
            value = _rounded(product[row, column] - penalty[column])
            best = max(best, value)
            if value > chosen and _kept(first_row + row, column, seed, threshold):
                chosen, where = value, column
        choice[row], score[row] = where, best


@njit(parallel=True)
def _choose_by_column(
    product: Any, penalty: Any, keep: Any, seed: Any, first_row: Any, choice: Any, score: Any
) -> None:
    """Like `_choose_by_row`; `score` has the best of all blocks so far, and the best kept one."""
    threshold = np.uint64(keep * 4294967296.0)
    for chunk in numba.prange(-(-product.shape[1] // _CHUNK)):
        first, last = chunk * _CHUNK, min((chunk + 1) * _CHUNK, product.shape[1])
        for row in range(len(product)):
            for column in range(first, last):
                value = _rounded(product[row, column] - penalty[row])
                if value > score[column, 0]:
                    score[column, 0] = value
                if value > score[column, 1] and _kept(first_row + row, column, seed, threshold):
                    score[column, 1], choice[column] = value, first_row + row
