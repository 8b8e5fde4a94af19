"""The schema of `run.json`, and the description of a run that violates it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.catalog import is_known
from tokalign_lab.errors import InputError, first_line

STATES = ("queued", "running", "finished", "failed", "cancelled", "paused", "lost")
DAMAGED = "damaged"
"""The state of a run whose `run.json` cannot be used."""
_MOST_TEXT = 1_000
_NEEDED: dict[str, type] = {"kind": str, "state": str, "created": str, "settings": dict}
_OPTIONAL: dict[str, type] = {
    "name": str, "pid": int, "pid_started": float, "cwd": str, "versions": dict, "ended": str, "error": str,
    "deleted": str, "was": str,
}  # fmt: skip
# Settings that readers of runs use, by kind; a kind checks the others when it starts.
_KINDS = ("align", "rearrange", "adapt", "measure", "score")
_SETTINGS: dict[str, type] = {
    "source": str, "target": str, "model": str, "donor": str, "lexicon": str, "recipe": str, "teacher": str,
    "text": list, "steps": int, "seed": int, "max_bytes": int,
}  # fmt: skip


def kept_settings(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as stored in `run.json`, so that a later change of a default does not change a tuning run."""
    if kind != "adapt":
        return dict(settings)
    usual = AdaptSettings.from_dict({name: settings[name] for name in ("recipe",) if name in settings})
    sizes = ("recipe", "steps", "batch_size", "sequence_length")
    return {**{name: getattr(usual, name) for name in sizes}, **settings}


def placed_settings(info: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings in a folder's `run.json` as any process can use them.

    A relative path of an existing file is resolved from the folder in which the run was created.
    """
    from tokalign_lab.runs.kinds import KINDS  # imports the engine

    kind = KINDS.get(info["kind"])  # none for a damaged run
    paths = {one.name for one in kind.settings.options() if one.path} if kind else set()
    made_in = info.get("cwd")
    start = folder / (made_in if isinstance(made_in, str) else ".")

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(one) for one in value]
        if not isinstance(value, str) or not value or is_known(value):
            return value
        there = os.path.normpath(start / value)
        return there if os.path.exists(there) else value

    return {name: placed(value) if name in paths else value for name, value in info["settings"].items()}


def read_info(file: Path) -> dict[str, Any]:
    """Read a `run.json`; raises `InputError` when there is no such file.

    If the content is damaged, it is replaced by a description with the state `DAMAGED`, no settings, and the reason as
    "error", so that a damaged run is listed like the others.
    """
    missing = InputError(f"{file.parent} is not a run folder (no readable run.json in it).")
    if not file.is_file():
        raise missing
    empty = dict.fromkeys(("pid", "pid_started", "cwd", "ended", "error"))
    name = file.parent.resolve().name
    changed = 0.0
    try:
        changed = file.stat().st_mtime
        content = json.loads(file.read_bytes())
        _check(content)
        if content["kind"] == "adapt":
            content["settings"].setdefault("recipe", "papers")  # runs made before there were recipes
        return {"name": name, **empty, **content}
    except FileNotFoundError:  # another process moved the run in the meantime
        raise missing from None
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        return {
            **empty,
            **{"name": name, "kind": "unknown", "state": DAMAGED, "settings": {}, "versions": {}},
            "created": datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds"),
            "error": f"The run's run.json is damaged ({reason[:200]}); delete the run or write the file again.",
        }


def _check(content: Any) -> None:
    """Raise `ValueError` if the content cannot be used."""
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} instead of an object")
    for name, kind in _NEEDED.items():
        if content.get(name) is None:
            raise ValueError(f"it has no {name!r}")
        _check_type(name, content[name], kind)
    for name, kind in _OPTIONAL.items():
        _check_type(name, content.get(name), kind)
    settings = content["settings"] if content["kind"] in _KINDS else {}
    for name, kind in _SETTINGS.items():
        _check_type(name, settings.get(name), kind)
    if content["state"] not in STATES:
        raise ValueError(f"its state {content['state'][:50]!r} is none")
    if not 0 < (content.get("pid") or 1) < 2**31:
        raise ValueError(f"its pid {content['pid']} is none")
    if not all(isinstance(text, str) for text in settings.get("text") or []):
        raise ValueError("its text is no list of names")


def _check_type(name: str, value: Any, kind: type) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    right = number if kind is float else isinstance(value, kind) and (kind is not int or number)
    if not right:
        raise ValueError(f"its {name!r} is a {type(value).__name__}, not a {kind.__name__}")
    if kind is str and name != "error" and (len(value) > _MOST_TEXT or "\0" in value):
        raise ValueError(f"its {name!r} is no name")
