"""`njit`: numba's decorator, with compiled functions cached on disk if possible.

numba caches them next to the source or in the home folder. In a container that runs as another user, neither may be
writable, and numba raises a RuntimeError on import. Then the cache folder of this package is used. If that is not
writable either, each process compiles again, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

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


IS_CACHED = _is_cached()
"""Whether compiled functions are cached for the next process."""


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function as `numba.njit` does with these options."""
    return numba.njit(cache=IS_CACHED, **options)
