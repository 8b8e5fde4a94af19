"""Start to tune the model that an alignment leads to: rearrange it first, where that is not done yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.runs.chain import NO_MODEL
from tokalign_lab.runs.control import start_again
from tokalign_lab.runs.folder import RunFolder

from ..common.background import submit
from ..common.panel import bar, button

FIELDS = {
    "steps": "Steps",
    "learning_rate_stage1": "Learning rate, stage 1",
    "learning_rate_stage2": "Learning rate, stage 2",
    "stage1_share": "Share of stage 1",
    "batch_size": "Batch size",
    "sequence_length": "Tokens a sequence",
    "seed": "Seed",
}


class SettingsFields:
    """The fields, side by side in `box`.

    Parameters
    ----------
    hook : beginning of each field's CSS class
    values : settings to begin with; the defaults of `AdaptSettings` where they say nothing
    """

    def __init__(self, hook: str, values: Mapping[str, Any] | None = None) -> None:
        self._before = AdaptSettings().to_dict()
        self.fields: dict[str, w.Widget] = {
            name: (w.IntText if isinstance(self._before[name], int) else w.FloatText)(
                value=self._before[name], description=words, continuous_update=False
            )
            for name, words in FIELDS.items()
        }
        for name, field in self.fields.items():
            field.add_class(f"{hook}-{name.replace('_', '-')}")
        self.box = bar(*self.fields.values())
        self.take(values or {})

    def take(self, values: Mapping[str, Any]) -> None:
        """Show these settings; `changed` counts from them."""
        self._before = AdaptSettings().to_dict() | dict(values)
        for name, field in self.fields.items():
            field.value = self._before[name]

    @property
    def changed(self) -> dict[str, Any]:
        """Those that a person has changed."""
        return {name: field.value for name, field in self.fields.items() if field.value != self._before[name]}

    @property
    def values(self) -> dict[str, Any]:
        """All of them."""
        return {name: field.value for name, field in self.fields.items()}


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


class TuneForm(w.VBox):
    """The settings that matter most, and the button.

    Parameters
    ----------
    guarded : wraps a callback so that its errors are seen (`Panel.guarded`)
    on_tune : called with settings of `AdaptSettings`; it may take a second
    values : settings to begin with
    """

    def __init__(
        self,
        guarded: Callable[..., Callable[..., None]],
        on_tune: Callable[[dict[str, Any]], Any],
        values: dict[str, Any],
    ) -> None:
        self._guarded, self._on_tune = guarded, on_tune
        self.settings = SettingsFields("tl-tune", values)
        self.start_button = button("Rearrange and tune", guarded(self.start), "tl-tune-start", style="primary")
        words = w.HTML(
            "<h4>Tune the rearranged model</h4><div class='tl-note'>On the text that the pair was aligned on, in two "
            "stages, in a process of its own. The model gets its new rows first.</div>"
        )
        self.status = w.HTML()
        super().__init__([words, self.settings.box, bar(self.start_button, self.status)])
        self.add_class("tl-tune-form")

    def start(self) -> None:
        """Check the settings, and start away from the callback."""
        settings = self.settings.values
        AdaptSettings.from_dict(settings)
        self.start_button.disabled = True
        self.status.value = "<div class='tl-note' role='status'>Starting …</div>"

        def work() -> None:
            try:
                self._on_tune(settings)
            finally:
                self.start_button.disabled, self.status.value = False, ""

        submit(self._guarded(work))
