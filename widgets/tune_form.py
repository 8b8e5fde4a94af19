"""Start to tune the model that an alignment leads to: rearrange it first, where that is not done yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.widgets.background import submit
from tokalign_lab.widgets.panel import bar, button
from tokalign_lab.widgets.settings_fields import SettingsFields


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
