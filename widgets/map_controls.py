"""The controls of the maps; they change the shared state or call the panel, and follow the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as w

from tokalign_lab.projection import METHODS
from tokalign_lab.widgets.map_colours import WORDS
from tokalign_lab.widgets.panel import bar, button
from tokalign_lab.widgets.state import LabState


class MapControls:
    """Two bars of controls.

    Parameters
    ----------
    state : the shared view
    guarded : wraps callbacks so that what they raise is shown in the panel
    lay_out : called with a method's name
    on_layout, on_worst : called when the layout or the toggle for the worst tokens has changed
    one_space : whether one layout can hold both maps
    shared, worst : what they show at first
    """

    def __init__(
        self,
        state: LabState,
        guarded: Callable[..., Any],
        lay_out: Callable[[str], None],
        on_layout: Callable[[], None],
        on_worst: Callable[[], None],
        one_space: bool,
        shared: bool,
        worst: bool,
    ) -> None:
        self._state = state
        self.colour = w.Dropdown(
            options=[(name, key) for key, name in WORDS.items()], value=state.colour_by, description="Colour by"
        )
        self.colour.add_class("tl-colour-by")
        self.layout = w.Dropdown(
            options=[*([("One layout for both", True)] if one_space else []), ("Each map by itself", False)],
            value=shared, description="Layout",
        )  # fmt: skip
        self.layout.add_class("tl-map-layout")
        self.search = w.Text(
            value=state.query.text, description="Search", placeholder="a token, then Enter", continuous_update=False
        )
        self.search.add_class("tl-map-search")
        self.worst = w.ToggleButton(value=worst, description="Mark the worst", tooltip="The pairs of the lowest score")
        self.worst.layout.width = "auto"
        self.worst.add_class("tl-map-worst")
        self.methods = {
            name: button(f"Arrange by {name.upper()}", lambda name=name: lay_out(name), f"tl-{name}", METHODS[name])
            for name in ("pca", "umap")
        }
        clear = button("Clear selection", state.clear_selection, "tl-clear")
        self.colour.observe(guarded(lambda change: setattr(state, "colour_by", change["new"])), names="value")
        self.layout.observe(guarded(lambda _change: on_layout()), names="value")
        self.search.observe(guarded(self._on_search), names="value")
        self.worst.observe(guarded(lambda _change: on_worst()), names="value")
        self.bars = (bar(self.colour, self.layout, *self.methods.values()), bar(self.search, self.worst, clear))

    def _on_search(self, change: dict[str, Any]) -> None:
        if change["new"] != self._state.query.text:
            self._state.query = replace(self._state.query, text=change["new"])

    def follow(self) -> None:
        """Show what the state says."""
        self.colour.value = self._state.colour_by
        self.search.value = self._state.query.text

    def arranged(self, method: str, shared: bool, busy: bool) -> None:
        """Switch off the button of what is shown already, and all while a layout is being fetched."""
        for name, control in self.methods.items():
            control.disabled = busy or (name == method and shared == self.layout.value)
