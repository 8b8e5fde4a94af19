"""Forms that start a tuning run: one for the model of an alignment, one for an earlier run with other settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as w

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.runs.chain import NO_MODEL
from tokalign_lab.runs.control import start_again
from tokalign_lab.runs.folder import RunFolder

from ..common.part import Bar, Box, Folds, bar, html, status_html

FIELDS = {
    "steps": "Steps",
    "learning_rate_stage1": "Learning rate, stage 1",
    "learning_rate_stage2": "Learning rate, stage 2",
    "learning_rate_rows": "Learning rate of rows, stage 2",
    "stage1_share": "Share of stage 1",
    "batch_size": "Batch size",
    "sequence_length": "Tokens per sequence",
    "seed": "Seed",
}


_RATES = ("learning_rate_rows", "learning_rate_stage2")
_HELP = {option.name: option.help for option in AdaptSettings.options()}


class SettingsFields(Bar):
    """Fields for the most important settings of a tuning run, side by side.

    Parameters
    ----------
    values : initial settings; by default those of `AdaptSettings`
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._before = _settings({})
        self.fields: dict[str, w.Widget] = {
            name: self.control(
                w.IntText if isinstance(self._before[name], int) else w.FloatText, words,
                value=self._before[name], continuous_update=False,
                tooltip=_HELP[name],
            )
            for name, words in FIELDS.items()
        }  # fmt: skip
        super().__init__(tuple(self.fields.values()))
        self.take(values or {})

    def take(self, values: Mapping[str, Any]) -> None:
        """Show these settings; `changed` compares with them."""
        self._before = _settings(values)
        for name, field in self.fields.items():
            field.value = self._before[name]

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that the user has changed."""
        return {name: value for name, value in self.values.items() if value != self._before[name]}

    @property
    def values(self) -> dict[str, Any]:
        """All settings of the form."""
        return {name: field.value for name, field in self.fields.items()}


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all tuning settings: the given ones, and the defaults for the others, with learning rates filled in."""
    given = {name: values[name] for name in AdaptSettings.names() if name in values}
    try:
        settings = AdaptSettings.from_dict(given)
    except InputError:  # the given settings are invalid; they are shown unchanged
        settings = AdaptSettings.from_dict({})
    return (
        settings.to_dict()
        | {name: float(f"{rate:.3g}") for name, rate in zip(_RATES, settings.rates(), strict=True)}  # fit their fields
        | {name: value for name, value in given.items() if value is not None}
    )


class AgainForm(Box):
    """Starts a tuning run again with other settings.

    Parameters
    ----------
    started : called with the new run
    """

    def __init__(self, started: Callable[[RunFolder], None]) -> None:
        self._started = started
        self._run: RunFolder | None = None
        self.settings = SettingsFields()
        self.fields = self.settings.fields
        self.name = self.entry(
            "Name of the new run", placeholder="optional name", continuous_update=False,
            tooltip="Name of the new run in lists and legends", layout={"width": "340px"},
        )  # fmt: skip
        self.start_button = self.button("Start the new run", self.start, "Start it in a separate process", "primary")
        note = html("", "<div class='tl-note'>Starts a new run in its own folder; this run does not change.</div>")
        super().__init__([note, bar(self.name), self.settings, bar(self.start_button)])
        self.add_class("tl-again-form")

    def of(self, run: RunFolder, settings: dict[str, Any]) -> None:
        """Show the settings of a run, unless the form already belongs to it."""
        if self._run is not None and self._run.path == run.path:
            return
        self._run = run
        self.settings.take(settings)
        self.name.value = ""

    def start(self) -> None:
        """Start the new run; an invalid setting is reported and nothing is started."""
        run = self._run
        if run is None:
            return
        if run.recorded:
            raise InputError(NO_MODEL)
        changes, title = self.settings.changed, self.name.value
        self.soon(lambda: self._started(start_again(run, changes, title)), self.start_button)


class TuneForm(Box):
    """Tunes the model of an alignment, and rearranges it first if necessary.

    Parameters
    ----------
    on_tune : called in a thread with settings of `AdaptSettings`
    values : initial settings
    """

    def __init__(self, on_tune: Callable[[dict[str, Any]], Any], values: dict[str, Any]) -> None:
        self._on_tune, self._given = on_tune, values
        self.settings = SettingsFields(values)
        self.start_button = self.button(
            "Rearrange and tune", self.start, "Make the model if necessary, then tune it", "primary"
        )
        words = html(
            "",
            "<h4>Tune the rearranged model</h4><div class='tl-note'>Tunes on the text of the alignment, in a separate "
            "process. If there is no rearranged model yet, it is made first.</div>",
        )
        self.status = html()
        folds = Folds({"Settings": ("steps, learning rates and batch size", [self.settings])})
        super().__init__([words, bar(self.start_button, self.status), folds])

    def start(self) -> None:
        """Check the settings, and start the run in a thread."""
        settings = self._given | self.settings.changed  # learning rates that stay unset depend on the batch size
        AdaptSettings.from_dict(settings)
        self.status.value = status_html("Starting …", "tl-note")

        def work() -> None:
            try:
                self._on_tune(settings)
            finally:
                self.status.value = ""

        self.soon(work, self.start_button)
