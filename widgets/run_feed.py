"""A run that is followed: its folder, and what it has told so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.widgets.run_view import RunView, number

DEFAULT_STEPS = AdaptSettings().steps


class RunFeed:
    """A run that is followed: its folder, and the view of it that grows.

    Parameters
    ----------
    run : the run
    place : where in the figure it is drawn
    """

    def __init__(self, run: RunFolder | Path | str, place: int = 0) -> None:
        self.place = place
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
        name, total = self.run.title, number(self.info["settings"].get("steps", DEFAULT_STEPS))
        changed = name != self.view.name or any(event.get("kind") != "heartbeat" for event in events)
        self.view.name, self.view.total_steps = name, int(total) if total == total else 0
        self.view.add(events)
        return changed

    def again(self) -> None:
        """Read the folder from its beginning."""
        self._offset, self.view = 0, RunView(floors=self.view.floors)
        self.look()
