"""The progress line of a run, and the buttons that pause, cancel and resume it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import ipywidgets as w

from tokalign_lab.runs.folder import ENDED, RESUMABLE, RunFolder
from tokalign_lab.runs.folding import RunView
from tokalign_lab.runs.following import RunFeed

from .numbers import Number
from .panel import Panel, mark_of
from .part import Bar, Box, bar, html, shown, state_html
from .state import LabState


class JobPanel(Panel):
    """Show the progress of a run until it ends.

    Parameters
    ----------
    run : the run, or its folder
    title : heading of the panel
    result : text to show once the run has finished
    doing : returns the text for the current activity from the events; by default the last message
    made : returns the verdict on a finished run, as HTML, and its key numbers; None to show neither
    """

    def __init__(
        self,
        run: RunFolder | Path | str,
        title: str,
        result: str = "",
        state: LabState | None = None,
        doing: Callable[[RunView], str] = attrgetter("message"),
        made: Callable[[RunFolder], tuple[str, Sequence[Number]] | None] = lambda _run: None,
    ) -> None:
        super().__init__(title, "tl-job", state)
        self._progress = RunFeed(run)
        self.run = self._progress.run
        self._title, self._result, self._doing, self._made = title, result, doing, made
        self._line = html()
        tooltip = "Share of the work that is done"
        self._bar = self.control(w.FloatProgress, "", tooltip=tooltip, min=0.0, max=1.0, layout=w.Layout(width="100%"))
        self._cancel = self.button("Cancel", self.run.request_cancel, "Stop within seconds")
        self.headline(title, "")
        line = bar(self._cancel, self._line)  # the line changes its length; the button must not move
        self._fill([self._head, line, self._bar], line)
        self.mark(mark_of(self.run))
        self.refresh()

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the run and its state."""
        return super().state | {"run": str(self.run.path), "run_state": self.run.state, "share": self._bar.value}

    def refresh(self) -> None:
        """Show the state of the run, and follow it to its end."""
        self.follow(f"job:{self.run.path.resolve()}", self._poll)

    def _call(self) -> list[str]:
        return [repr(str(self.run.path)), repr(self._title), *([repr(self._result)] if self._result else [])]

    def _poll(self) -> bool:
        """Show the state of the run; returns whether it continues."""
        self._progress.poll()
        ended, info, view = self._progress.ended, self._progress.info, self._progress.view
        state = info["state"]
        if state == "finished":
            self.headline(self._title, *(self._made(self.run) or ("",)))
        messages = {
            "finished": " · ".join(filter(None, (self._result, view.note))),
            "failed": info["error"],
            "lost": info["error"],
        }
        message = messages.get(state, self._doing(view) or "starting in a separate process")
        self._line.value = state_html(state, self.run.asked, str(message or ""), bool(info.get("recorded")))
        self._bar.value = 1.0 if state == "finished" else view.share
        self._cancel.disabled = ended
        shown(self._bar, not ended)
        shown(self._cancel, not ended)
        return not ended


class RunBox(Box):
    """A part that starts a run, and shows its progress and then its result.

    Attributes
    ----------
    job : box that contains the `JobPanel` of the run
    """

    def __init__(self, state: LabState) -> None:
        self._state = state
        self.job = Box()
        self.job.add_class("tl-inner-job")
        super().__init__()

    def watch_run(
        self,
        run: RunFolder,
        title: str,
        result: str = "",
        then: Callable[[RunFolder], None] | None = None,
        cancelled: Callable[[], None] | None = None,
        **more: Any,
    ) -> None:
        """Show the state of a run; call `then` when it has finished, `cancelled` when it was cancelled.

        `more` is passed to `JobPanel`.
        """
        self.leave_run()
        self.job.children = (JobPanel(run, title, result, self._state, **more),)

        def poll() -> bool:
            state = run.state
            if state == "finished" and then is not None:
                then(run)
            elif state == "cancelled" and cancelled is not None:
                cancelled()
            return state not in ENDED

        self.follow(f"inner:{id(self)}", poll)

    def leave_run(self) -> None:
        """Remove the run from the page; the run itself continues."""
        self.unfollow(f"inner:{id(self)}")
        former, self.job.children = self.job.children, ()
        for panel in former:
            panel.close()


class RunControls(Bar):
    """The buttons Pause, Cancel and Resume.

    Parameters
    ----------
    chosen : returns the run that the buttons apply to, None if there is none
    after : called when a button has changed the state of the run
    """

    def __init__(self, chosen: Callable[[], RunFolder | None], after: Callable[[], object]) -> None:
        self._run_of, self._after = chosen, after
        self.pause_button = self.button("Pause", self.pause, "Finish the current step, save a checkpoint, then stop")
        self.cancel_button = self.button(
            "Cancel", self.cancel, "Stop within seconds; steps since the last checkpoint are lost"
        )
        self.resume_button = self.button("Resume", self.resume, "Continue from the last checkpoint")
        self._buttons = (self.pause_button, self.cancel_button, self.resume_button)
        super().__init__(self._buttons)

    def pause(self) -> None:
        """Ask the run to stop after the current step; returns immediately."""
        self._ask(RunFolder.request_pause)

    def cancel(self) -> None:
        """Ask the run to stop; returns immediately."""
        self._ask(RunFolder.request_cancel)

    def resume(self) -> None:
        """Continue from the last checkpoint; a thread starts the process."""
        run = self._run_of()
        if run is None:
            return
        self.resume_button.disabled = True

        def work() -> None:
            try:
                run.resume()
            finally:  # another page may have resumed it
                self._after()

        self.soon(work)

    def show(self, kind: str, state: str, asked: str) -> None:
        """Enable the buttons that apply to a run of this kind in this state; see `RunFolder.asked`."""
        running = state == "running"
        # Only tuning saves checkpoints. Other runs start from the beginning, so they offer no "Pause".
        self.pause_button.disabled = not running or bool(asked) or kind != "adapt"
        self.pause_button.description = "Pausing …" if running and asked == "paused" else "Pause"
        self.cancel_button.disabled = not (running and asked != "cancelled") and state != "queued"
        self.cancel_button.description = "Cancelling …" if running and asked == "cancelled" else "Cancel"
        self.resume_button.disabled = state not in RESUMABLE

    def none(self) -> None:
        """Disable all buttons; for when there is no run."""
        for one in self._buttons:
            one.disabled = True

    def _ask(self, how: Callable[[RunFolder], None]) -> None:
        run = self._run_of()
        if run is not None:
            how(run)
            self.show(run.info()["kind"], run.state, run.asked)
            self._after()
