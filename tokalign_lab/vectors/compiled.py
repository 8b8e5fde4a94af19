"""`njit`: numba's decorator, with compiled functions cached on disk if possible.

numba caches them next to the source or below the home folder. In a container that runs as another user, neither may be
writable, and numba raises a RuntimeError when a module is imported. Then the cache of this package is used. If that is
not writable either, each process compiles again, which takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from tokalign_lab.files import cache_folder


def _is_kept() -> bool:
    """Whether numba finds a folder; where it finds none of its own, it is given one, which other packages use too."""
    for folder in (numba.config.CACHE_DIR, str(cache_folder() / "numba")):
        numba.config.CACHE_DIR = folder
        try:
            numba.njit(cache=True)(_is_kept)
            return True
        except RuntimeError:
            pass
    return False


IS_KEPT = _is_kept()
"""Whether the next process finds what this one has compiled."""


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function as `numba.njit` does with these options."""
    return numba.njit(cache=IS_KEPT, **options)
