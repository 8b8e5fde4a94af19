"""The one error that bad input ends in.

Everything a user can get wrong is checked at the edge, before work begins, and raised as `InputError` with a
single sentence: what was wrong, where, and what to do. The command line prints that sentence and exits with 2;
panels show it under the control that caused it. Any other exception is a fault of ours and keeps its traceback.
"""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be worked with; its message is one sentence for the person who gave it."""


def first_line(error: BaseException) -> str:
    """Return what another library's error says, cut to one line that fits into a sentence of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
