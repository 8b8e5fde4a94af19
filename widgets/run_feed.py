"""A run that is followed: its folder, what it has told so far, and the run beside it that found its floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.widgets.run_view import RunView, bits_by_part, number

# What decides which text is held out and measured; runs that differ in it do not compare in bits a byte.
_OF_THE_TEXT = ("text", "max_bytes", "seed", "held_out_share", "evaluate_bytes")
_DEFAULTS = {"max_bytes": None, **AdaptSettings().to_dict()}


class RunFeed:
    """A run that is followed: its folder, and the view of it that grows.

    Parameters
    ----------
    run : the run
    """

    def __init__(self, run: RunFolder | Path | str) -> None:
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        self.info: dict[str, Any] = {}
        self.view = RunView()
        self._offset = 0
        self.look()

    @property
    def key(self) -> str:
        """Tells this run from all others."""
        return str(self.run.path.resolve())

    def look(self) -> bool:
        """Read what is new; returns whether any of it is more than a sign of life.

        Raises
        ------
        InputError
            When the folder holds no run (any more).
        """
        self.info = self.run.reconcile()
        events, offset = self.run.events(self._offset)
        if offset < self._offset:  # begun anew
            self.view = RunView()
        self._offset = offset
        name, total = self.run.title, number(self.info["settings"].get("steps", _DEFAULTS["steps"]))
        changed = name != self.view.name or any(event.get("kind") != "heartbeat" for event in events)
        self.view.name, self.view.total_steps = name, int(total) if total == total else 0
        self.view.add(events)
        return changed

    def again(self) -> None:
        """Read the folder from its beginning."""
        self._offset, self.view = 0, RunView(floors=self.view.floors)
        self.look()


def floors_of(run: RunFolder) -> dict[str, float]:
    """Bits a byte, by slice, that a "measure" run has found; empty where it has found none yet."""
    try:
        found = [event for event in run.events()[0] if event.get("kind") == "evaluation"]
    except InputError:
        return {}
    return {part: bits for part, bits in bits_by_part(found[-1]).items() if bits == bits} if found else {}


def measured_text(info: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells the held-out text of a run from another's."""
    settings = info["settings"]
    return tuple(str(settings.get(name, _DEFAULTS.get(name))) for name in _OF_THE_TEXT)


def floor_run(run: RunFolder) -> RunFolder | None:
    """Find the "measure" run beside a tuning run that measured its source model on the same text.

    The source model is the one that the model's "rearrange" run was given; a model from elsewhere has none.
    """
    info = run.info()
    before = RunFolder(Path(str(info["settings"].get("model", ""))).parent)
    try:
        source = before.info()["settings"].get("model")
    except InputError:
        return None
    for other in list_runs(run.path.resolve().parent):
        told = other.info()
        same = told["kind"] == "measure" and told["settings"].get("model") == source
        if same and measured_text(told) == measured_text(info):
            return other
    return None
