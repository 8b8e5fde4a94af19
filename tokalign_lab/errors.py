"""The one error that bad input ends in.

Everything a user can get wrong is checked at the edge, before work begins, and raised as `InputError` with a
single sentence: what was wrong, where, and what to do. The command line prints that sentence and exits with 2;
panels show it under the control that caused it. Any other exception is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class InputError(ValueError):
    """Input that cannot be worked with; its message is one sentence for the person who gave it."""


class DiskError(InputError):
    """The disk is full, or there is no permission: the input may be fine, but its result has no place."""


def require_extra(extra: str, package: str, what: str) -> None:
    """Check that a package of one of this project's extras is installed; it is not imported.

    Parameters
    ----------
    extra
        Name of the extra in pyproject.toml.
    package
        Import name of a package that the extra brings.
    what
        What needs it; begins the sentence.

    Raises
    ------
    InputError
        If the package is not installed; the sentence names the extra.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{what} needs the package '{package}', which is not installed; run: pip install 'tokalign-lab[{extra}]'."
        )


def first_line(error: BaseException) -> str:
    """Return the message of another library's error, cut to one line that fits into a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def plain_disk_errors(place: Path | str | None = None) -> Iterator[None]:
    """Turn a full disk or a missing permission in this block into a `DiskError`.

    Parameters
    ----------
    place
        What the block writes, for the sentence; the name in the system's error when not given.

    Raises
    ------
    DiskError
        For the system's errors ENOSPC, EDQUOT and EFBIG, EACCES, EPERM and EROFS, also where a library has put one
        into an error of its own.
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
        if number in _DENIED:
            where = getattr(error, "filename", None) or where
            raise DiskError(
                f"There is no permission to use {where}; change its permissions or choose another place "
                "(TOKALIGN_CACHE for the cache)."
            ) from error
        raise


def _system_error(error: Exception) -> int | None:
    """Return the system's number for an error; Rust's libraries write it into a text as `(os error 28)`."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # torch and ndarray.tofile do not say why they could not write; it is the disk.
    if re.search(r"PytorchStreamWriter failed writing|\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC
    return next((number for number in (*_FULL, *_DENIED) if f"(os error {number})" in str(error)), None)
