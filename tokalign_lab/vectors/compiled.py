"""`njit`: numba's decorator, with compiled functions cached on disk if possible.

numba caches them next to the source or in the home folder. In a container that runs as another user, neither may be
writable, and numba raises a RuntimeError on import. Then the cache folder of this package is used. If that is not
writable either, each process compiles again, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import numba
from threadpoolctl import threadpool_limits

from tokalign_lab.files import cache_folder


def _is_cached() -> bool:
    """Whether numba can cache; if its default folders are not writable, set `numba.config.CACHE_DIR` for all code."""
    for folder in (numba.config.CACHE_DIR, str(cache_folder() / "numba")):
        numba.config.CACHE_DIR = folder
        try:
            numba.njit(cache=True)(_is_cached)
            return True
        except RuntimeError:
            pass
    return False


def _start_threads() -> None:
    """Start numba's threads without changing the number of threads of torch.

    When its threads start, numba sets OpenMP's number of threads for the whole process, and torch uses OpenMP: it would
    ignore OMP_NUM_THREADS. With more threads than free cores, a forward pass takes up to ten times as long.
    """
    with suppress(ImportError):
        import_module("numba.np.ufunc.omppool")  # loads OpenMP, if numba uses it
    with threadpool_limits(user_api="openmp"):  # restores the number at the end
        numba.get_num_threads()


_start_threads()
IS_CACHED = _is_cached()
"""Whether compiled functions are cached for the next process."""


def n_threads() -> int:
    """Return the number of threads that compiled functions use."""
    return int(numba.get_num_threads())


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function as `numba.njit` does with these options."""
    return numba.njit(cache=IS_CACHED, **options)
