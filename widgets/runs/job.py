"""A run that has no curves: how far it is, in one line, with Cancel."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as w

from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.words import state_word

from ..common.background import WATCHER
from ..common.panel import Panel, bar, button
from ..common.recorded import mark_of
from ..common.state import LabState


class JobPanel(Panel):
    """Watch a run to its end.

    Parameters
    ----------
    run : the run
    title : what it does, for people
    result : what it left behind once it has finished, for people
    """

    def __init__(self, run: RunFolder, title: str, result: str = "", state: LabState | None = None) -> None:
        super().__init__(title, "tl-job", state)
        self.run = run
        self._result = result
        self._offset = 0
        self._told: Event = {"share": 0.0, "message": "starting in its own process"}
        self._line = w.HTML()
        self._bar = w.FloatProgress(min=0.0, max=1.0, layout=w.Layout(width="100%"))
        self._cancel = button("Cancel", run.request_cancel, "tl-cancel")
        self._fill([w.HTML(f"<h3>{escape(title)}</h3>"), bar(self._line, self._cancel), self._bar])
        self.mark(mark_of(run))
        self._name = f"job:{run.path.resolve()}"
        if not self._look():
            WATCHER.watch(self._name, self._tick)

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the run, and how it stands."""
        return super().state | {"run": str(self.run.path), "run_state": self.run.state, "share": self._bar.value}

    def refresh(self) -> None:
        """Read the run folder again."""
        self._offset = 0
        self._look()

    def close(self) -> None:
        """Stop watching; the run goes on."""
        if not self.closed:
            WATCHER.stop(self._name, self._tick)
        super().close()

    def _tick(self) -> bool:
        if self.closed:
            return False
        try:
            return not self._look()
        except Exception as error:  # no one sees a thread's exceptions: the panel must say them
            self.show_error(error)
            return False

    def _word(self, info: dict[str, Any]) -> str:
        return state_word(info["state"], recorded=bool(info.get("recorded")))

    def _look(self) -> bool:
        """Show how the run stands; returns whether it has ended."""
        info = self.run.reconcile()
        events, self._offset = self.run.events(self._offset)
        told = [event for event in events if "share" in event]
        if told:
            self._told = told[-1]
        state = info["state"]
        ended = state in ENDED
        words = {"finished": self._result, "failed": info["error"], "lost": info["error"]}.get(state)
        message = self._told.get("message", "") if words is None else words
        self._line.value = (
            f'<span role="status"><span class="tl-state tl-state-{state}">{self._word(info)}</span> '
            f"{escape(str(message or ''))}</span>"
        )
        self._bar.value = 1.0 if state == "finished" else float(self._told["share"])
        self._cancel.disabled = ended
        self._bar.layout.display = self._cancel.layout.display = "none" if ended else ""
        return ended
