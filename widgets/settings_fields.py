"""A field for each setting of a tuning run that matters most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as w

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.widgets.panel import bar

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
