"""Settings classes: type, default, help text and bounds of each option, named once.

A settings class is a frozen dataclass whose fields are made by `option` and `required`. The command line derives its
options from them, `run.json` stores the values as plain JSON, and `from_dict` refuses a wrong name, type or value with
one sentence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, dataclass_transform, get_args, get_origin, get_type_hints

from tokalign_lab.errors import InputError


def option(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    flag: str = "",
    path: bool = False,
) -> Any:
    """Declare a setting that has a default.

    Parameters
    ----------
    default : value if the setting is not given; a dict is copied for each object
    help : one sentence for `--help`, forms and documentation
    least, most, above, below : inclusive (first two) and exclusive bounds; for a dict, of each value
    flag : option on the command line, if it is not `--name-with-hyphens`
    path : whether the value may be a path, which a run's process must find from any folder
    """
    bounds = {"least": least, "most": most, "above": above, "below": below}
    metadata = {"help": help, "bounds": bounds, "flag": flag, "path": path}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, **how: Any) -> Any:
    """Declare a setting without default, as `option`; on the command line it is an argument if it has no `flag`."""
    return option(MISSING, help, **how)


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes
    ----------
    name : name of the field
    kind : type of the value: int, float, bool, str, tuple (of str) or dict (of str to float)
    optional : whether it may be None
    default : None if it is required
    required : whether it must be given
    help, path : as for `option`
    bounds : `least`, `most`, `above` and `below` of `option`
    flag : option on the command line, "--on/--off" for a bool; "" for an argument
    """

    name: str
    kind: type
    optional: bool
    default: Any
    required: bool
    help: str
    flag: str
    path: bool
    bounds: Mapping[str, float | None]

    def words(self, value: Any) -> list[str]:
        """Return the command-line words for a value; an empty value is "" if the default is not empty."""
        if not self.flag:
            return [str(value)]
        if self.kind is bool:
            return [] if value is None else [self.flag.split("/")[0 if value else 1]]
        if value in (None, "", [], {}):
            return [] if self.default in (None, "", (), {}) else [self.flag, ""]
        if self.kind is dict:
            value = [f"{key}={number}" for key, number in value.items()]
        return [word for item in (value if isinstance(value, list) else [value]) for word in (self.flag, str(item))]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings:
    """Base of all settings classes; a subclass needs no decorator.

    Attributes
    ----------
    subject : subject of the errors about an unknown or missing setting
    """

    subject: ClassVar[str] = "This"

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        """Convert values to their types; refuse a wrong type or a value out of bounds in one sentence."""
        for one in self.options():
            value = _convert(one, getattr(self, one.name))
            object.__setattr__(self, one.name, value)
            _check_bounds(one.name, value, one.bounds)

    @classmethod
    def options(cls) -> list[Option]:
        """Return all settings, in the order of the fields."""
        hints = get_type_hints(cls)
        found = []
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            kind, optional = _kind(hints[field.name])
            default = field.default if field.default_factory is MISSING else field.default_factory()
            must, about = default is MISSING, field.metadata
            name = field.name.replace("_", "-")
            flag = about["flag"] or ("" if must else f"--{name}/--no-{name}" if kind is bool else f"--{name}")
            given = None if must else default
            limits = about["bounds"]
            found.append(Option(field.name, kind, optional, given, must, about["help"], flag, about["path"], limits))
        return found

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from plain JSON values; missing ones keep their default.

        Raises `InputError` for an unknown or a missing name, a value of the wrong type, or one out of range.
        """
        known = {one.name: one for one in cls.options()}
        unknown = sorted(values.keys() - known.keys())
        if unknown:
            raise InputError(f"{cls.subject} has no setting {unknown[0]!r}; it takes {', '.join(known)}.")
        missing = [one.name for one in known.values() if one.required and one.name not in values]
        if missing:
            raise InputError(f"{cls.subject} needs the setting {missing[0]!r}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain JSON values of all settings."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _kind(hint: Any) -> tuple[type, bool]:
    """Return the type of a setting's values, and whether None is one of them."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (plain,) = [one for one in choices if one is not NoneType]
    origin = get_origin(plain)
    return str if origin is Literal else origin or plain, NoneType in choices


def _convert(one: Option, value: Any) -> Any:
    if value is None and one.optional:
        return None
    if one.kind is dict:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: _number(f"{one.name} of {key!r}", weight, float) for key, weight in value.items()}
        raise InputError(f"The setting {one.name} must be numbers by slice, not {value!r}.")
    if one.kind is tuple:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InputError(f"The setting {one.name} must be a list of texts, not {value!r}.")
    if one.kind in (bool, str):
        if isinstance(value, one.kind):
            return value
        what = "true or false" if one.kind is bool else "a text"
        raise InputError(f"The setting {one.name} must be {what}, not {value!r}.")
    return _number(one.name, value, one.kind)


def _number(name: str, value: Any, kind: type) -> int | float:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and whole:
        return int(value)
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    raise InputError(f"The setting {name} must be a {'whole number' if kind is int else 'number'}, not {value!r}.")


def _check_bounds(name: str, value: Any, bounds: Mapping[str, float | None]) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            _check_bounds(f"{name} of {key!r}", one, bounds)
        return
    least, most, above, below = (bounds[name] for name in ("least", "most", "above", "below"))
    if not isinstance(value, int | float) or all(bound is None for bound in bounds.values()):
        return
    low, high = (least if above is None else above), (most if below is None else below)
    under = low is not None and (value < low or (value == above))
    over = high is not None and (value > high or (value == below))
    if not math.isfinite(value) or under or over:
        if high is not None:
            what = f"between {low} and {high}"
        elif above is not None:
            what = f"a number above {above}"
        else:
            what = f"{'a whole number' if isinstance(value, int) else 'a number'} of at least {least}"
        raise InputError(f"The setting {name} is {value}, but it must be {what}.")
