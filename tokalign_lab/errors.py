"""The error for bad input.

Input is checked before work begins, and a user's mistake is raised as `InputError` with one sentence: what is wrong,
where, and what to do. The command line prints that sentence and exits with 2; panels show it under the control that
caused it. Any other exception is our bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_LONGEST_REASON = 300


class InputError(ValueError):
    """Input that cannot be used; the message is one sentence for the user."""


class DiskError(InputError):
    """A result cannot be written: the disk is full or broken, or there is no permission. The input may be fine."""


def require_extra(extra: str, package: str, what: str) -> None:
    """Check, without importing it, that a package of the extra `extra` in pyproject.toml is installed.

    Raises InputError, which names the extra, if the package is not installed. `what` is the subject of the message.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{what} needs the package '{package}', which is not installed; run: pip install 'tokalign-lab[{extra}]'."
        )


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error for use in a sentence; two lines if the first ends in ":"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".:")


@contextmanager
def plain_read_errors(sentence: Callable[[str], str]) -> Iterator[None]:
    """Convert the errors that another library raises in this block to an `InputError`.

    For blocks that only read a user's file: libraries raise many types for damaged files, and the panics of Rust
    libraries are not even subclasses of `Exception`. `sentence` makes the message from the reason. Errors that the file
    does not cause are not converted: too little memory, a full disk, a missing permission.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, Exception) and _system_error(error) in (*_FULL, *_DENIED):
            raise
        raise InputError(sentence(first_line(error)[:_LONGEST_REASON])) from error


@contextmanager
def plain_disk_errors(place: Path | str | None = None) -> Iterator[None]:
    """Convert the error of a full or broken disk or of a missing permission in this block to a `DiskError`.

    A name that is too long becomes an `InputError`. `place` is the file or folder for the message; if None, the name in
    the system's error. Covers ENOSPC, EDQUOT, EFBIG, EACCES, EPERM, EROFS, EIO and ENAMETOOLONG, all but the last two
    also inside another library's error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        number = _system_error(error)
        where = place or getattr(error, "filename", None) or "the result"
        if number in _FULL:
            raise DiskError(
                f"The disk is full, so {where} was not written; free some space or choose a folder on another disk "
                "(TOKALIGN_CACHE for the cache, TMPDIR for temporary files)."
            ) from error
        if number == errno.EIO:
            raise DiskError(f"{where} cannot be read or written (input/output error); check the disk.") from error
        if number == errno.ENAMETOOLONG:
            where = getattr(error, "filename", None) or where
            raise InputError(f"The name {str(where)[:80]!r} ... is too long for a file; give another.") from error
        if number in _DENIED:
            where = getattr(error, "filename", None) or where
            raise DiskError(
                f"There is no permission to use {where}; change its permissions or choose another place "
                "(TOKALIGN_CACHE for the cache)."
            ) from error
        raise


def _system_error(error: Exception) -> int | None:
    """Return the errno of an error; Rust libraries write it as `(os error 28)`."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # torch and ndarray.tofile do not report the reason, which is a full disk.
    if re.search(r"PytorchStreamWriter failed writing|\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC
    return next((number for number in (*_FULL, *_DENIED) if f"(os error {number})" in str(error)), None)
