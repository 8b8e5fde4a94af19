"""The shared view of a lab: one object that all panels read, change through methods, and repaint from.

Panels never call each other. A click in one becomes a change of `LabState`, and every panel that watches that trait
repaints. Run folders hold the truth about work; this holds only the view: pair, selection, pins, search, colouring.
With a `path` the view is kept in a small JSON file, so that a restarted kernel's first cell brings it back.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import traitlets as t

from tokalign_lab.files import write_json

Range = tuple[float | None, float | None]  # None leaves that end open
EVERYTHING: Range = (None, None)


@dataclass(frozen=True)
class Query:
    """Filters and order of the rows to show.

    Attributes
    ----------
    text : what a token's label or raw string must contain
    regex : whether `text` is a regular expression
    origin : one of `ORIGINS`; "" for all
    script : Unicode script of the target token, such as "Latin"; "" for all
    length : bytes of the target token
    frequency : times the text uses the target token
    score, margin : of the best candidate
    selected : only the tokens that are selected
    sort : a name of `lexicon.view.SORTS`
    reverse : the other way around
    """

    text: str = ""
    regex: bool = False
    origin: str = ""
    script: str = ""
    length: Range = EVERYTHING
    frequency: Range = EVERYTHING
    score: Range = EVERYTHING
    margin: Range = EVERYTHING
    selected: bool = False
    sort: str = "frequency"
    reverse: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the query as plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def limited(self, name: str, limits: Range) -> Query:
        """Return this query with another range: `name` is "length", "frequency", "score" or "margin"."""
        changed: dict[str, Any] = {name: limits}
        return replace(self, **changed)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Query:
        """Take over plain values; names that are not known are skipped, so that an old view can be read.

        Raises `TypeError` or `ValueError` for a range that is not one.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("length", "frequency", "score", "margin"):
            if name in known:
                low, high = known[name]
                known[name] = (None if low is None else float(low), None if high is None else float(high))
        return cls(**known)


SPACES = ("source", "target")
COLOURINGS = ("origin", "script", "score", "margin", "hubness", "frequency", "neighbours")
KEPT_IDS = 2000  # ids of a selection that are written to disk; more of them are a box that can be drawn again


@dataclass(frozen=True)
class Selection:
    """Some tokens, and the vocabulary whose ids they are.

    Attributes
    ----------
    space : "source" or "target"
    ids : token ids, in the order of choosing; the first, the primary token, is the one that details are shown of
    by : who chose them ("lexicon", "maps", "diagnosis", ...); "" for the user's own code
    """

    space: str = "target"
    ids: tuple[int, ...] = ()
    by: str = ""

    def __bool__(self) -> bool:
        return bool(self.ids)


class LabState(t.HasTraits):
    """The view all panels share.

    Parameters
    ----------
    path : file to keep the view in; None keeps it in memory only
    """

    source = t.Unicode("smollm2-135m")
    target = t.Unicode("sp32k")
    sentence = t.Unicode("Tokenizers disagree: naïve café, 東京, def f(x): return x**2")
    selection = t.Instance(Selection, args=())
    pins = t.Tuple(default_value=())  # of (space, token id)
    query = t.Instance(Query, args=())
    colour_by = t.Enum(COLOURINGS, default_value="origin")
    theme = t.Enum(("light", "dark"), default_value="light")
    work = t.Dict()  # runs that the lab shows: step ("align", "rearrange", "adapt") to the run's name
    own_work = t.Dict()  # the same for the user's own runs, while the lab shows recorded ones
    tab = t.Unicode("pair")
    looks = t.Dict()  # view of one panel: its name ("maps", "training") to plain values

    _kept = (
        "source", "target", "sentence", "selection", "pins", "query", "colour_by", "theme", "work", "own_work", "tab",
        "looks",
    )  # fmt: skip

    def __init__(self, path: Path | str | None = None, **values: Any) -> None:
        super().__init__()
        self.path = Path(path) if path is not None else None
        self._lock = threading.Lock()
        if self.path is not None and self.path.is_file():
            self._read()
        for name, value in values.items():
            if not self.has_trait(name):
                raise TypeError(f"LabState has no {name!r}; it has {', '.join(self._kept)}.")
            setattr(self, name, value)
        self.observe(self._keep, names=list(self._kept))

    def select(self, space: str, ids: Iterable[int], by: str = "") -> None:
        """Choose tokens of one vocabulary; their partners follow from the lexicon in each panel."""
        if space not in SPACES:
            raise ValueError(f"A selection is of the source or the target, not of {space!r}.")
        self.selection = Selection(space, tuple(dict.fromkeys(int(i) for i in ids)), by)

    def clear_selection(self) -> None:
        """Clear the selection."""
        self.selection = Selection()

    def pin(self, space: str, token_id: int) -> None:
        """Pin a token, or unpin it."""
        pinned = (space, int(token_id))
        self.pins = tuple(p for p in self.pins if p != pinned) if pinned in self.pins else (*self.pins, pinned)

    def show_runs(self, work: dict[str, str]) -> None:
        """Look at these runs, step to name; the view of the maps of another alignment is dropped."""
        with self.hold_trait_notifications():
            if work.get("align") != self.work.get("align"):
                self.looks = {}  # a part of one map is no part of another's
            self.work = work

    def reset_view(self, work: dict[str, str], tab: str) -> None:
        """Look at the runs of another pair: nothing of the former view fits them."""
        with self.hold_trait_notifications():
            self.selection, self.looks, self.tab, self.work = Selection(), {}, tab, work

    def to_dict(self) -> dict[str, Any]:
        """Return everything needed to show the same view again, as plain values."""
        values = {name: getattr(self, name) for name in self._kept if name not in ("selection", "pins", "query")}
        chosen = self.selection
        selection = {"space": chosen.space, "ids": list(chosen.ids[:KEPT_IDS]), "by": chosen.by}
        return values | {
            "selection": selection, "pins": [list(pin) for pin in self.pins], "query": self.query.to_dict(),
        }  # fmt: skip

    def _keep(self, _change: object) -> None:
        if self.path is None:
            return
        with self._lock:  # the thread of a callback depends on the version of ipykernel; two may run at once
            write_json(self.path, self.to_dict())

    def _read(self) -> None:
        """Restore the state from the file."""
        assert self.path is not None
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return  # an unreadable view must not prevent the lab from opening
        if isinstance(values, dict):
            self.restore(values)

    def restore(self, values: dict[str, Any]) -> LabState:
        """Restore values from `to_dict`; values that no longer fit are ignored. Returns this state."""
        for name in self._kept:
            try:
                if name == "selection":
                    self.select(values[name]["space"], values[name]["ids"], values[name].get("by", ""))
                elif name == "pins":
                    self.pins = tuple((str(space), int(i)) for space, i in values[name])
                elif name == "query":
                    self.query = Query.from_dict(values[name])
                else:
                    setattr(self, name, values[name])
            except (AttributeError, KeyError, TypeError, ValueError, t.TraitError):
                continue
        return self
