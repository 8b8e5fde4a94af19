"""Following a run: reading on in its folder from where the last look ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.folding import RunView, number

DEFAULT_STEPS = AdaptSettings().steps


class Follower:
    """A run, and how far its events have been read.

    Parameters
    ----------
    run : the run

    Attributes
    ----------
    info : its `run.json` at the last look
    """

    def __init__(self, run: RunFolder | Path | str) -> None:
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        self.info: dict[str, Any] = {}
        self._offset = 0

    def new_events(self) -> tuple[list[Event], bool]:
        """Return the events since the last call, and whether the run has begun again, so that all are new."""
        events, offset = self.run.events(self._offset)
        again = offset < self._offset
        self._offset = offset
        return events, again


class RunProgress(Follower):
    """How far a run is.

    Attributes
    ----------
    told : the progress events of this start, of which the last counts
    """

    def __init__(self, run: RunFolder | Path | str) -> None:
        super().__init__(run)
        self.told: list[Event] = []

    def look(self) -> bool:
        """Read what is new; returns whether the run has ended.

        Raises
        ------
        InputError
            When the folder holds no run (any more).
        """
        self.info = self.run.reconcile()
        events, again = self.new_events()
        self.told = [*([] if again else self.told), *(event for event in events if "share" in event)]
        return self.info["state"] in ENDED

    @property
    def share(self) -> float:
        """Done, 0 to 1."""
        return float(self.told[-1]["share"]) if self.told else 0.0

    @property
    def message(self) -> str:
        """What it said last; "" before the first word."""
        return str(self.told[-1].get("message") or "") if self.told else ""


class RunFeed(Follower):
    """A run that is followed: its folder, and the view of it that grows.

    Parameters
    ----------
    run : the run
    place : where in the figure it is drawn
    """

    def __init__(self, run: RunFolder | Path | str, place: int = 0) -> None:
        super().__init__(run)
        self.place = place
        self.view = RunView()
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
        events, again = self.new_events()
        if again:
            self.view = RunView()
        name, total = self.run.title, number(self.info["settings"].get("steps", DEFAULT_STEPS))
        changed = name != self.view.name or any(event.get("kind") != "heartbeat" for event in events)
        self.view.name, self.view.total_steps = name, int(total) if total == total else 0
        self.view.add(events)
        return changed

    def again(self) -> None:
        """Read the folder from its beginning."""
        self._offset, self.view = 0, RunView(floors=self.view.floors)
        self.look()
