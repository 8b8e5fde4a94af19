"""Start a tuning run again with other settings: a small form of those that matter most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from tokalign_lab.errors import InputError
from tokalign_lab.runs.chain import NO_MODEL
from tokalign_lab.runs.control import start_again
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.widgets.background import submit
from tokalign_lab.widgets.panel import bar, button
from tokalign_lab.widgets.settings_fields import SettingsFields


class AgainForm:
    """A button that opens the form, and the form.

    Parameters
    ----------
    guarded : wraps callbacks, so that their errors are shown
    started : called with the new run
    """

    def __init__(self, guarded: Callable[..., Callable[..., None]], started: Callable[[RunFolder], None]) -> None:
        self._guarded, self._started = guarded, started
        self._run: RunFolder | None = None
        self.open_button = button(
            "Start again …",
            guarded(self._open_or_close),
            "tl-again",
            "Start a new run with these settings, some of them changed",
        )
        self.settings = SettingsFields("tl-again")
        self.fields = self.settings.fields
        self.name = w.Text(
            description="Name of the new run", placeholder="a name, if you like", continuous_update=False
        )
        self.name.add_class("tl-again-name")
        self.start_button = button("Start the new run", guarded(self.start), "tl-again-start", style="primary")
        note = w.HTML("<div class='tl-note'>A new run with its own folder; this one stays as it is.</div>")
        self.box = w.VBox([note, bar(self.name), self.settings.box, bar(self.start_button)])
        self.box.add_class("tl-again-form")
        self.box.layout.display = "none"

    def of(self, run: RunFolder, settings: dict[str, Any]) -> None:
        """Take over the settings of a run, unless the form already is that run's."""
        if self._run is not None and self._run.path == run.path:
            return
        self._run = run
        self.settings.take(settings)
        self.name.value = ""

    def start(self) -> None:
        """Start the new run; what is wrong with a setting is said, and nothing is started then."""
        run = self._run
        if run is None:
            return
        changes = self.settings.changed
        title = self.name.value
        self.start_button.disabled = True

        def work() -> None:
            try:
                new = start_again(run, changes, title)
            finally:
                self.start_button.disabled = False
            self.box.layout.display = "none"
            self._started(new)

        submit(self._guarded(work))

    def _open_or_close(self) -> None:
        if self._run is not None and self._run.recorded:
            raise InputError(NO_MODEL)
        self.box.layout.display = "none" if self.box.layout.display == "" else ""
