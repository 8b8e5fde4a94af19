"""Matrix products in strips of rows, one strip per thread, so that results have the same bits for any thread count.

BLAS splits a product by its number of threads, and rounding depends on the split. Here the strips have a fixed size,
and BLAS uses one thread in each.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tokalign_lab.vectors.compiled import n_threads

T = TypeVar("T")


def in_strips(work: Callable[[slice], T], n: int, size: int) -> list[T]:
    """Call `work` on strips of `size` of the `n` rows, on all threads; return the results in order."""
    strips = [slice(first, min(n, first + size)) for first in range(0, n, size)]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads()) as pool:
        return list(pool.map(work, strips))


def product(rows: NDArray[np.float32], other: NDArray[np.float32], size: int = 2048) -> NDArray[np.float32]:
    """Return `rows @ other`, float32 (n, m), with the same bits for any number of threads."""
    result = np.empty((len(rows), other.shape[1]), np.float32)
    in_strips(lambda strip: np.matmul(rows[strip], other, out=result[strip]), len(rows), size)
    return result
