"""Pause, cancel and resume: the buttons of the run that is looked at."""

from __future__ import annotations

from collections.abc import Callable

from tokalign_lab.runs.folder import RESUMABLE, RunFolder

from ..common.part import Bar


class RunControls(Bar):
    """Three buttons for one run, which may become another.

    Parameters
    ----------
    chosen : returns the run they are for, None for none
    after : called when a button has changed how the run stands
    """

    def __init__(self, chosen: Callable[[], RunFolder | None], after: Callable[[], object]) -> None:
        self._run_of, self._after = chosen, after
        self.pause_button = self.button(
            "Pause", self.pause, "tl-pause", "Stop when the step that runs is done and kept; Resume goes on from there"
        )
        self.cancel_button = self.button(
            "Cancel", self.cancel, "tl-cancel", "Stop at the next step, and within seconds"
        )
        self.resume_button = self.button("Resume", self.resume, "tl-resume", "Go on from the last checkpoint")
        self._buttons = (self.pause_button, self.cancel_button, self.resume_button)
        super().__init__(self._buttons)

    def pause(self) -> None:
        """Ask the run to stop after the step that runs; returns at once."""
        self._ask(RunFolder.request_pause)

    def cancel(self) -> None:
        """Ask the run to stop; returns at once."""
        self._ask(RunFolder.request_cancel)

    def resume(self) -> None:
        """Go on from the last checkpoint; the process starts away from this callback."""
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
        """Let be pressed what makes sense for a run of this kind that stands so; see `RunFolder.asked`."""
        running = state == "running"
        # Only tuning keeps checkpoints: another run that is stopped begins anew, and "pause" would promise too much.
        self.pause_button.disabled = not running or bool(asked) or kind != "adapt"
        self.pause_button.description = "Pausing …" if running and asked == "paused" else "Pause"
        self.cancel_button.disabled = not (running and asked != "cancelled") and state != "queued"
        self.cancel_button.description = "Cancelling …" if running and asked == "cancelled" else "Cancel"
        self.resume_button.disabled = state not in RESUMABLE

    def none(self) -> None:
        """There is no run: nothing can be pressed."""
        for one in self._buttons:
            one.disabled = True

    def _ask(self, how: Callable[[RunFolder], None]) -> None:
        run = self._run_of()
        if run is not None:
            how(run)
            self.show(run.info()["kind"], run.state, run.asked)
            self._after()
