"""`--config`: options of a command from a YAML file, or from the settings of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import typer
import yaml

from tokalign_lab import console
from tokalign_lab.errors import InputError, first_line
from tokalign_lab.settings.fields import Settings
from tokalign_lab.settings.kinds import MeasuredTextSettings


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML that reads 5e-5 as a number, although YAML 1.1 requires 5.0e-5."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_config(context: typer.Context, path: Path | None, classes: Sequence[type[Settings]]) -> None:
    """Make the options in a file the defaults of a command; ends the command with code 2 if the file cannot be used."""
    if path is None or context.resilient_parsing:
        return
    several = {str(one.name): getattr(one, "multiple", False) for one in context.command.params}
    known = several.keys() - {"config", "json", "help", "more_text"}
    try:
        values = _read(path)
        if "kind" in values and isinstance(values.get("settings"), dict):
            values = _of_run(path, values, classes, known)
        unknown = sorted(map(str, values.keys() - known))
        if unknown:
            takes = ", ".join(sorted(known)) or "no options"
            raise InputError(f"'{path}' has the option {unknown[0]!r}, but `{context.info_name}` takes {takes}.")
    except InputError as error:
        console.stderr.print(str(error), style="bold red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from None
    # As strings, as on the command line, which then checks them as usual (2.5 is no whole number).
    given = {name: _words(value) for name, value in values.items() if value is not None}
    context.default_map = {k: [v] if several[k] and isinstance(v, str) else v for k, v in given.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"'{path}' cannot be read as YAML ({first_line(error)}).") from error
    if not isinstance(values, dict):
        raise InputError(f"'{path}' must hold options and values, a line each, such as `seed: 1`.")
    return values


def _of_run(path: Path, run: dict[str, Any], classes: Sequence[type[Settings]], known: Set[str]) -> dict[str, Any]:
    """Return a run's settings; if the command is of another kind, only those that determine its text."""
    from tokalign_lab import catalog
    from tokalign_lab.runs.kinds import kind_of

    of_run = kind_of(run["kind"]).settings
    names = {name for one in classes if issubclass(of_run, one) for name in one.names()}
    names |= known & set(MeasuredTextSettings.names())
    paths = {one.name for one in of_run.options() if one.path}
    made_in = run.get("cwd")
    start = path.parent / (made_in if isinstance(made_in, str) else ".")

    def placed(value: Any) -> Any:
        """Resolve a path that is relative to the folder in which the run was created."""
        if isinstance(value, list):
            return [placed(one) for one in value]
        if not isinstance(value, str) or not value or catalog.is_known(value):
            return value
        there = Path(os.path.normpath(start / value))
        return str(there) if there.exists() else value

    return {k: placed(v) if k in paths else v for k, v in run["settings"].items() if k in names}


def _words(value: Any) -> Any:
    if isinstance(value, dict):
        return [f"{key}={number}" for key, number in value.items()]
    if isinstance(value, list | tuple):
        return [str(one) for one in value] or [""]
    return str(value)
