"""The floor of a tuning run: what its source model reached with its own tokenizer on the same text."""

from __future__ import annotations

from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.folding import ALL_TEXT, bits_by_part
from tokalign_lab.runs.following import RunFeed
from tokalign_lab.runs.results import made_by
from tokalign_lab.settings.kinds import MeasuredTextSettings, text_of


class Floor:
    """Bits a byte to come back to, for the run that is looked at; perhaps still being measured.

    Parameters
    ----------
    given : the figure, or a "measure" run that finds it; None to look for one beside the run
    first : the run it was given for; a run of another text has another floor
    """

    def __init__(self, given: float | RunFolder | None, first: RunFeed) -> None:
        self.given = given
        self._text = measured_text(first.info)
        self._run: RunFolder | None = None
        self._found: dict[str, float] = {}
        self._control: RunFeed | None = None

    def look_for(self, feed: RunFeed) -> None:
        """Decide where the floor of this run comes from: what was given for its text, else the run beside it."""
        given = self.given if measured_text(feed.info) == self._text else None
        self._found = {ALL_TEXT: float(given)} if isinstance(given, (int, float)) else {}
        control = control_run(feed.run)
        self._control = None if control is None else RunFeed(control)
        self._run = given if isinstance(given, RunFolder) else None
        if given is None:
            self._run = floor_run(feed.run)

    def tell(self, feed: RunFeed) -> bool:
        """Tell the run's view its floor, by slice; returns whether that is new."""
        if not self._found and self._run is not None:
            self._found = floors_of(self._run)
        new = feed.view.floors != self._found
        feed.view.floors = self._found
        if self._control is not None and (self._control.look() or feed.view.control is None):
            feed.view.control, new = self._control.view, True
        return new

    @property
    def awaited(self) -> bool:
        """Whether it is not known and can still come."""
        return self._run is not None and not self._found and self._run.state not in ENDED


def floors_of(run: RunFolder) -> dict[str, float]:
    """Bits a byte, by slice, that a "measure" run has found; empty where it has found none yet."""
    try:
        found = [event for event in run.events()[0] if event.get("kind") == "evaluation"]
    except InputError:
        return {}
    return {part: bits for part, bits in bits_by_part(found[-1]).items() if bits == bits} if found else {}


def measured_text(info: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells the held-out text of a run from another's."""
    return tuple(str(value) for value in text_of(info["settings"], MeasuredTextSettings).values())


def floor_run(run: RunFolder) -> RunFolder | None:
    """Find the "measure" run in the same folder that measured a tuning run's source model on the same text."""
    return _of_the_source(run, "measure")


def control_run(run: RunFolder) -> RunFolder | None:
    """Find the "adapt" run in the same folder that tuned the source model, with its own tokenizer, on the same text."""
    return _of_the_source(run, "adapt")


def _of_the_source(run: RunFolder, kind: str) -> RunFolder | None:
    """Find the run of this kind on the source model and the same text.

    The source model is the one that the model's "rearrange" run was given; a model from elsewhere has none.
    """
    info = run.info()
    before = made_by(run)
    if before is None:
        return None
    source = before.info()["settings"].get("model")
    for other in list_runs(run.path.resolve().parent):
        told = other.info()
        same = told["kind"] == kind and told["settings"].get("model") == source
        if same and measured_text(told) == measured_text(info):
            return other
    return None
