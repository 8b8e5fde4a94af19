"""`njit`: numba's decorator, with compiled functions kept on the disk for the next process, and checked.

numba keeps them next to the source or below the home folder. In a container that runs as another user, neither may be
writable, and numba ends in a RuntimeError when a module is imported. Then the cache of this package is used; if that
is not writable either, each process compiles again, which takes seconds.

numba reads what it has kept without a check: half a file is a traceback in every process from then on, and a flipped
bit is run. Here a damaged function is compiled again.
"""

from __future__ import annotations

import logging
import pickle
import zlib
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import IndexDataCacheFile

from tokalign_lab.files import cache_folder

_log = logging.getLogger("tokalign_lab")


class _CheckedFile(IndexDataCacheFile):  # type: ignore[misc]
    """The files of one function: an index of its signatures, and for each the compiled code with a checksum."""

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except Exception as error:
            _report(self._index_name, error)
            return {}  # no signature is compiled yet

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        super()._save_data(name, (zlib.crc32(content), content))

    def _load_data(self, name: str) -> Any:
        try:
            checksum, content = super()._load_data(name)
            if zlib.crc32(content) != checksum:
                raise ValueError("another checksum")
            return pickle.loads(content)
        except Exception as error:
            _report(name, error)
            raise OSError from error  # which numba takes for a missing file


def _report(name: str, error: Exception) -> None:
    _log.warning("The compiled function in %s is damaged (%s); compiling it again", name, error)


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


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function as `numba.njit` does with these options, and keep it where that is possible."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(cache=IS_KEPT, **options)(function)
        if IS_KEPT:
            compiled._cache._cache_file.__class__ = _CheckedFile  # numba has no option for it
        return compiled

    return decorate
