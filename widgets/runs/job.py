"""A run that has no curves: how far it is, in one line, with Cancel."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w

from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.following import RunProgress

from ..common.html import state_html
from ..common.panel import Panel
from ..common.part import bar, html, shown
from ..common.recorded import mark_of
from ..common.state import LabState


class JobPanel(Panel):
    """Watch a run to its end.

    Parameters
    ----------
    run : the run, or its folder
    title : what it does, for people
    result : what it left behind once it has finished, for people
    """

    def __init__(
        self, run: RunFolder | Path | str, title: str, result: str = "", state: LabState | None = None
    ) -> None:
        super().__init__(title, "tl-job", state)
        self._progress = RunProgress(run)
        self.run = self._progress.run
        self._title, self._result = title, result
        self._line = html()
        self._bar = w.FloatProgress(min=0.0, max=1.0, layout=w.Layout(width="100%"))
        self._cancel = self.button("Cancel", self.run.request_cancel, "tl-cancel")
        self._fill([html("", f"<h3>{escape(title)}</h3>"), bar(self._line, self._cancel), self._bar])
        self.mark(mark_of(self.run))
        self.refresh()

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the run, and how it stands."""
        return super().state | {"run": str(self.run.path), "run_state": self.run.state, "share": self._bar.value}

    def refresh(self) -> None:
        """Show how the run stands, and follow it to its end."""
        self.follow(f"job:{self.run.path.resolve()}", self._look)

    def _call(self) -> list[str]:
        return [repr(str(self.run.path)), repr(self._title), *([repr(self._result)] if self._result else [])]

    def _look(self) -> bool:
        """Show how the run stands; returns whether it goes on."""
        ended, info = self._progress.look(), self._progress.info
        state = info["state"]
        told = {"finished": self._result, "failed": info["error"], "lost": info["error"]}
        message = told.get(state, self._progress.message or "starting in its own process")
        self._line.value = state_html(state, more=str(message or ""), recorded=bool(info.get("recorded")))
        self._bar.value = 1.0 if state == "finished" else self._progress.share
        self._cancel.disabled = ended
        shown(self._bar, not ended)
        shown(self._cancel, not ended)
        return not ended
