"""The command line that does what a run did, for a report or a notebook's reader to repeat."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tokalign_lab.runs.kinds import kind_of

# Kinds that a command of that name repeats, and where its result goes.
_RESULT = {"align": ("--out", "lexicon.parquet"), "rearrange": ("--out", "model"), "adapt": ("--run", "runs/again")}


def command_of(info: Mapping[str, Any]) -> str:
    """Return the shell command of a run.

    Parameters
    ----------
    info
        What `RunFolder.info` returns: "kind" and "settings" are read.

    Returns
    -------
    str
        A line for a shell; for a kind without a command, a Python line that starts such a run.
    """
    kind, settings = info["kind"], dict(info["settings"])
    if kind not in _RESULT:
        return f"python -c {shlex.quote(f'from tokalign_lab.runs.control import start; start({kind!r}, {settings!r})')}"
    given = [one for one in kind_of(kind).settings.options() if one.name in settings and one.name != "out"]
    given.sort(key=lambda one: bool(one.flag))  # arguments first
    words = [word for one in given for word in one.words(settings[one.name])]
    return shlex.join(["tokalign-lab", kind, *words, *_RESULT[kind]])
