"""The shared view of a lab: one object that all panels read, change and redraw from.

Panels never call each other. A click in one changes `LabState`, and every panel that watches the changed trait redraws.
This object stores only the view: pair, selection, pins, search, colouring. The state of the work is in the run folders.
With a `path` the view is stored in a small JSON file, so that a restarted kernel restores it.
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

Range = tuple[float | None, float | None]  # lowest and highest value; None: no limit
EVERYTHING: Range = (None, None)


@dataclass(frozen=True)
class Query:
    """Filters and order of the lexicon rows to show.

    Attributes
    ----------
    text : text that the label or raw string of a row's target or source token must contain
    regex : whether `text` is a regular expression
    origin : one of `ORIGINS`; "" for all
    script : Unicode script of the target token, such as "Latin"; "" for all
    length : bytes of the target token
    frequency : occurrences of the target token in the text
    score, margin : of the best candidate
    selected : whether to show only the selected tokens
    sort : a name of `lexicon.view.SORTS`
    reverse : whether to reverse the order
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
        """Make a query from the values of `to_dict`; unknown names are ignored, so that an old view can be read.

        Raises `TypeError` or `ValueError` for an invalid range.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("length", "frequency", "score", "margin"):
            if name in known:
                low, high = known[name]
                known[name] = (None if low is None else float(low), None if high is None else float(high))
        return cls(**known)


SPACES = ("source", "target")
COLOURINGS = ("origin", "script", "score", "margin", "hubness", "frequency", "neighbours")
KEPT_IDS = 2000  # most ids of a selection that are stored; a larger one is a box, which the user can draw again


@dataclass(frozen=True)
class Selection:
    """Selected tokens of one vocabulary.

    Attributes
    ----------
    space : their vocabulary, "source" or "target"
    ids : token ids in the order of selection; the panels show details of the first, the primary token
    by : the panel where they were selected ("lexicon", "maps", "diagnosis", ...); "" for the user's own code
    """

    space: str = "target"
    ids: tuple[int, ...] = ()
    by: str = ""

    def __bool__(self) -> bool:
        return bool(self.ids)


class LabState(t.HasTraits):
    """The view that all panels share.

    Parameters
    ----------
    path : file that stores the view; None: it is not stored
    """

    source = t.Unicode("smollm2-135m")
    target = t.Unicode("sp32k")
    sentence = t.Unicode("Tokenizers disagree: naïve café, 東京, def f(x): return x**2")
    selection = t.Instance(Selection, args=())
    pins = t.Tuple(default_value=())  # of (space, token id)
    query = t.Instance(Query, args=())
    colour_by = t.Enum(COLOURINGS, default_value="origin")
    theme = t.Enum(("light", "dark"), default_value="light")
    work = t.Dict()  # runs that the lab shows: the run's name for each step ("align", "rearrange", "adapt")
    own_work = t.Dict()  # the same for the user's own runs, while the lab shows recorded ones
    tab = t.Unicode("pair")
    looks = t.Dict()  # views of single panels: plain values for each panel's name ("maps", "training")

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
        """Select tokens of one vocabulary; each panel finds their partners in its lexicon."""
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
        """Show these runs, given as names by step; views of single panels are dropped if the alignment changes."""
        with self.hold_trait_notifications():
            if work.get("align") != self.work.get("align"):
                self.looks = {}  # the view of one alignment's maps does not fit another's
            self.work = work

    def reset_view(self, work: dict[str, str], tab: str) -> None:
        """Show the runs of another pair, and reset selection and panels, which do not fit it."""
        with self.hold_trait_notifications():
            self.selection, self.looks, self.tab, self.work = Selection(), {}, tab, work

    def to_dict(self) -> dict[str, Any]:
        """Return the view as plain values, from which `restore` shows it again."""
        values = {name: getattr(self, name) for name in self._kept if name not in ("selection", "pins", "query")}
        chosen = self.selection
        selection = {"space": chosen.space, "ids": list(chosen.ids[:KEPT_IDS]), "by": chosen.by}
        return values | {
            "selection": selection, "pins": [list(pin) for pin in self.pins], "query": self.query.to_dict(),
        }  # fmt: skip

    def _keep(self, _change: object) -> None:
        if self.path is None:
            return
        with self._lock:  # two callbacks may run at once: their threads depend on the version of ipykernel
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
