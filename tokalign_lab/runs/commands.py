"""The command line that does what a run did, for a report or a notebook's reader to repeat."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

# Settings that are a command's arguments, in their order, and where its result goes.
_ARGUMENTS = {"align": ("source", "target"), "rearrange": ("model", "lexicon"), "adapt": ("model",)}
_RESULT = {"align": ("--out", "lexicon.parquet"), "rearrange": ("--out", "model"), "adapt": ("--run", "runs/again")}
_SPELLED = {"cross_documents": ("--cross-documents", "--documents-apart"), "bf16": ("--bf16", "--no-bf16")}


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
    if kind not in _ARGUMENTS:
        return f"python -c {shlex.quote(f'from tokalign_lab.runs.control import start; start({kind!r}, {settings!r})')}"
    words = ["tokalign-lab", kind, *(str(settings.pop(name)) for name in _ARGUMENTS[kind])]
    for name, value in settings.items():
        words += _option(name, value)
    return shlex.join([*words, *_RESULT[kind]])


def _option(name: str, value: Any) -> list[str]:
    option = f"--{name.replace('_', '-')}"
    if value is None or value == "":
        return []
    if name in _SPELLED:
        return [_SPELLED[name][0 if value else 1]]
    if isinstance(value, bool):
        return [option] if value else []
    if isinstance(value, dict):
        return [word for key, factor in value.items() for word in (option, f"{key}={factor}")]
    if isinstance(value, list):
        return [word for item in value for word in (option, str(item))]
    return [option, str(value)]
