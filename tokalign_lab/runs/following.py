"""Following a run: reading its folder from where the last call stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokalign_lab.adaptation.recipes import DEFAULT, RECIPES
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.folding import ALL_TEXT, RunView, bits_by_part, number
from tokalign_lab.runs.results import last_evaluation, made_by
from tokalign_lab.runs.schema import placed_settings
from tokalign_lab.settings.kinds import MeasuredTextSettings, text_of


def steps_of(settings: Mapping[str, Any]) -> int:
    """Return the steps of a tuning run by its `run.json`; 0 where they make no sense."""
    recipe = settings.get("recipe", DEFAULT)
    usual = AdaptSettings.from_dict({"recipe": recipe if recipe in RECIPES else DEFAULT})
    found = number(settings.get("steps", usual.steps))
    return int(found) if math.isfinite(found) else 0


class Follower:
    """A run and the growing view of its events.

    Attributes
    ----------
    info : its `run.json` when it was last read
    view : its events so far
    """

    def __init__(self, run: RunFolder | Path | str) -> None:
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        self.info: dict[str, Any] = {}
        self.view = RunView()
        self._offset = 0

    def fold(self) -> list[Event]:
        """Add the new events to the view and return them; if the run was restarted, the view starts again."""
        events, offset = self.run.events(self._offset)
        if offset < self._offset:
            self.view = RunView()
        self._offset = offset
        self.view.add(events)
        return events


class RunFeed(Follower):
    """A followed run; `place` is its index in the figure."""

    def __init__(self, run: RunFolder | Path | str, place: int = 0) -> None:
        super().__init__(run)
        self.place = place
        self.poll()

    @property
    def key(self) -> str:
        """Identifies the run among all others."""
        return str(self.run.path.resolve())

    @property
    def ended(self) -> bool:
        """Whether the run had ended when it was last read."""
        return self.info["state"] in ENDED

    def poll(self) -> bool:
        """Read new events; returns whether any of them is not a heartbeat.

        Raises `InputError` when the folder holds no run (any more).
        """
        self.info = self.run.reconcile()
        events = self.fold()
        name = self.run.title
        changed = name != self.view.name or any(event.get("kind") != "heartbeat" for event in events)
        self.view.name, self.view.total_steps = name, steps_of(self.info["settings"])
        return changed

    def again(self) -> None:
        """Read the folder from its beginning."""
        self._offset, self.view = 0, RunView(references=self.view.references)
        self.poll()


class Reference:
    """Bits per byte of the source model and of the control, for the shown run; both measurements may still be running.

    Parameters
    ----------
    given : the source model's bits per byte; None to look for a "measure" run next to the run
    first : the run that it belongs to; a run of another text has another reference
    """

    def __init__(self, given: float | None, first: RunFeed) -> None:
        self.given = given
        self._text = measured_text(first.info, first.run.path)
        self.find_for(first)

    def find_for(self, feed: RunFeed) -> None:
        """Find the reference of a run: the given one if the text is the same, else a run in the same folder."""
        given = self.given if measured_text(feed.info, feed.run.path) == self._text else None
        self._found = {} if given is None else {ALL_TEXT: float(given)}
        self._run = run_of_the_source(feed.run, "measure") if given is None else None
        control = run_of_the_source(feed.run, "adapt")
        self._control = None if control is None else RunFeed(control)

    def update_view(self, feed: RunFeed) -> bool:
        """Add the reference, by slice, to the run's view; returns whether it is new."""
        if not self._found and self._run is not None:
            try:
                measured = last_evaluation(self._run)
            except InputError:  # the run was deleted
                measured = None
            self._found = {part: bits for part, bits in bits_by_part(measured or {}).items() if bits == bits}
        new = feed.view.references != self._found
        feed.view.references = self._found
        if self._control is not None and (self._control.poll() or feed.view.control is None):
            feed.view.control, new = self._control.view, True
        return new

    @property
    def awaited(self) -> bool:
        """Whether the reference is not yet known but a run is measuring it."""
        return self._run is not None and not self._found and self._run.state not in ENDED


def measured_text(info: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Return the settings that identify the held-out text of a run, from the content of its `run.json`."""
    return tuple(str(value) for value in text_of(placed_settings(info, folder), MeasuredTextSettings).values())


def run_of_the_source(run: RunFolder, kind: str) -> RunFolder | None:
    """Find the run in the same folder that measured ("measure") or tuned ("adapt") the source model on the same text.

    The source model is that of the model's "rearrange" run; other models have none. Finished runs have priority over
    running ones, and newer over older ones.
    """
    before = made_by(run)
    if before is None:
        return None
    source, text = before.info()["settings"].get("model"), measured_text(run.info(), run.path)
    found = []
    for other in list_runs(run.path.resolve().parent):
        info = other.info()
        of_source = info["kind"] == kind and info["settings"].get("model") == source
        if of_source and measured_text(info, other.path) == text:
            found.append((info["state"], other))
    _, best = min(found, key=lambda one: (one[0] != "finished", one[0] in ENDED), default=(None, None))
    return best
