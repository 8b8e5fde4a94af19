"""The inspector's filters: controls that write the shared query and repaint from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ipywidgets as w

from tokalign_lab.errors import InputError

from ..common.panel import bar, button
from ..common.state import LabState, Query
from .view import RANGES, SORTS, LexiconView

# What people come to look for, each as a whole query.
PRESETS = {
    "Everything, most frequent first": Query(),
    "Worst first": Query(sort="worst"),
    "Most frequent doubtful (margin below 0.05)": Query(origin="aligned", margin=(None, 0.05)),
    "Found by vectors, least sure first": Query(origin="aligned", sort="margin"),
    "Frequent, but only pieces": Query(origin="pieces", frequency=(1, None)),
    "Long words (12 bytes or more) found by vectors": Query(origin="aligned", length=(12, None), sort="worst"),
    "Parts of characters": Query(script="bytes"),
    "Edited by hand": Query(origin="edited", sort="id"),
}
_NO_PRESET = "Choose one …"
_RANGE_WORDS = {
    "length": ("Bytes", "bytes of the target token"),
    "frequency": ("Times in text", "times the text uses the target token"),
    "score": ("Score", "score of the best candidate"),
    "margin": ("Margin", "margin of the best candidate over the second"),
}


class LexiconFilters(w.VBox):
    """Controls over `state.query`.

    Parameters
    ----------
    view : offers the origins and scripts that there are
    state : whose query is shown and set
    guarded : wraps callbacks so that their errors are shown
    """

    def __init__(
        self, view: LexiconView, state: LabState, guarded: Callable[[Callable[..., None]], Callable[..., None]]
    ) -> None:
        self._view, self._state, self._repainting = view, state, False
        self.search = w.Text(placeholder="Find a token: the, 東京, <0x0A> …", description="Search")
        self.search.add_class("tl-search")
        self.regex = _check("Regular expression", "tl-regex")
        self.selected = _check("Only what is selected", "tl-selected-only")
        self.preset = w.Dropdown(options=[(_NO_PRESET, ""), *((name, name) for name in PRESETS)], description="Preset")
        self.preset.add_class("tl-preset")
        self.origin = w.Dropdown(description="Origin")
        self.origin.add_class("tl-origin-filter")
        self.script = w.Dropdown(description="Script", options=[("All scripts", "")])
        self.script.add_class("tl-script-filter")
        self.sort = w.Dropdown(options=[(words, key) for key, words in SORTS.items()], description="Order")
        self.sort.add_class("tl-order")
        self.ranges = {name: _range(name) for name in RANGES}
        self.clear = button("Clear filters", self.clear_filters, "tl-clear-filters")
        self.offer_origins()
        first = (self.search, self.regex, self.preset, self.sort)
        ranges = [_pair(name, *ends) for name, ends in self.ranges.items()]
        second = (self.origin, self.script, *ranges, self.selected, self.clear)
        super().__init__([bar(*first), bar(*second)])
        for control in (self.search, self.regex, self.selected, self.origin, self.script, self.sort):
            control.observe(guarded(self._on_control), names="value")
        for name, ends in self.ranges.items():
            for control in ends:
                control.observe(guarded(lambda _change, name=name: self._on_range(name)), names="value")
        self.preset.observe(guarded(self._on_preset), names="value")

    def offer_origins(self) -> None:
        """Offer the origins that the lexicon has now."""
        counts = [(f"{name} ({n:,})", name) for name, n in self._view.origin_counts.items()]
        self._offer(self.origin, [("All origins", ""), *counts])

    def offer_scripts(self) -> None:
        """Offer the scripts of the target vocabulary; they take a moment to be known."""
        counts = [(f"{name} ({n:,})", name) for name, n in self._view.script_counts.items()]
        self._offer(self.script, [("All scripts", ""), *counts])

    def _offer(self, control: w.Dropdown, options: list[tuple[str, str]]) -> None:
        self._repainting = True
        try:
            control.options = options
        finally:
            self._repainting = False
        self.show()

    def show(self) -> None:
        """Repaint from the query."""
        query = self._state.query
        self._repainting = True
        try:
            self.search.value, self.regex.value, self.selected.value = query.text, query.regex, query.selected
            self.sort.value = query.sort
            for control, value in ((self.origin, query.origin), (self.script, query.script)):
                known = [key for _, key in control.options]
                if value not in known:  # what is asked for is shown, even where no row has it
                    control.options = [*control.options, (value, value)]
                control.value = value
            for name, (low, high) in self.ranges.items():
                low.value, high.value = (_written(end) for end in getattr(query, name))
            self.preset.value = next((name for name, wanted in PRESETS.items() if wanted == query), "")
        finally:
            self._repainting = False

    def clear_filters(self) -> None:
        """Take every filter away; the order stays."""
        query = self._state.query
        self._state.query = Query(sort=query.sort, reverse=query.reverse)

    def _on_control(self, _change: object) -> None:
        if self._repainting:
            return
        query, sort = self._state.query, self.sort.value
        self._state.query = replace(
            query,
            text=self.search.value,
            regex=self.regex.value,
            selected=self.selected.value,
            origin=self.origin.value,
            script=self.script.value,
            sort=sort,
            reverse=query.reverse and sort == query.sort,
        )

    def _on_range(self, name: str) -> None:
        if not self._repainting:
            low, high = (_number(name, control.value) for control in self.ranges[name])
            self._state.query = replace(self._state.query, **{name: (low, high)})

    def _on_preset(self, _change: object) -> None:
        if not self._repainting and self.preset.value:
            self._state.query = PRESETS[self.preset.value]


def _check(words: str, hook: str) -> w.Checkbox:
    made = w.Checkbox(description=words, indent=False)
    made.layout.width = "auto"
    made.add_class(hook)
    return made


def _range(name: str) -> tuple[w.Text, w.Text]:
    ends = []
    for end, label, words in (("low", f"{_RANGE_WORDS[name][0]} from", "at least"), ("high", "to", "at most")):
        made = w.Text(description=label, placeholder="any", continuous_update=False)
        made.tooltip = f"{words} this: {_RANGE_WORDS[name][1]}"
        made.add_class("tl-range-end")
        made.add_class(f"tl-{name}-{end}")
        ends.append(made)
    return ends[0], ends[1]


def _pair(name: str, low: w.Text, high: w.Text) -> w.HBox:
    made = w.HBox([low, high])
    made.add_class("tl-range")
    made.add_class(f"tl-range-{name}")
    return made


def _number(name: str, written: str) -> float | None:
    if not written.strip():
        return None
    try:
        return float(written.replace(",", ""))
    except ValueError:
        raise InputError(f"'{written}' is no number; {_RANGE_WORDS[name][0]} takes one, or nothing.") from None


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
