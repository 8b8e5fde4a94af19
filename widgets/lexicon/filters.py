"""The inspector's filters: controls that write the shared query and repaint from it."""

from __future__ import annotations

from dataclasses import replace

import ipywidgets as w

from tokalign_lab.errors import InputError

from ..common.part import Box, bar
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


class LexiconFilters(Box):
    """Controls over `state.query`.

    Parameters
    ----------
    view : offers the origins and scripts that there are
    state : whose query is shown and set
    """

    def __init__(self, view: LexiconView, state: LabState) -> None:
        self._view, self._state = view, state
        on = self._on_control
        self.search = self.entry("Search", "tl-search", on, placeholder="Find a token: the, 東京, <0x0A> …")
        self.regex = self.check("Regular expression", "tl-regex", on)
        self.selected = self.check("Only what is selected", "tl-selected-only", on)
        presets = [(_NO_PRESET, ""), *((name, name) for name in PRESETS)]
        self.preset = self.menu("Preset", "tl-preset", self._on_preset, options=presets)
        self.origin = self.menu("Origin", "tl-origin-filter", on)
        self.script = self.menu("Script", "tl-script-filter", on, options=[("All scripts", "")])
        self.sort = self.menu("Order", "tl-order", on, options=[(words, key) for key, words in SORTS.items()])
        self.ranges = {name: self._range(name) for name in RANGES}
        self.clear = self.button("Clear filters", self.clear_filters, "tl-clear-filters")
        self.offer_origins()
        ranges = [_pair(name, *ends) for name, ends in self.ranges.items()]
        super().__init__(
            [
                bar(self.search, self.regex, self.preset, self.sort),
                bar(self.origin, self.script, *ranges, self.selected, self.clear),
            ]
        )

    def _range(self, name: str) -> tuple[w.Text, w.Text]:
        label, meaning = _RANGE_WORDS[name]
        ends = []
        for end, words, least in (("low", f"{label} from", "at least"), ("high", "to", "at most")):
            made = self.entry(
                words, "tl-range-end", lambda _text: self._on_range(name), placeholder="any", continuous_update=False
            )
            made.tooltip = f"{least} this: {meaning}"
            made.add_class(f"tl-{name}-{end}")
            ends.append(made)
        return ends[0], ends[1]

    def offer_origins(self) -> None:
        """Offer the origins that the lexicon has now."""
        counts = [(f"{name} ({n:,})", name) for name, n in self._view.origin_counts.items()]
        self.offer(self.origin, [("All origins", ""), *counts], "")
        self.show()

    def offer_scripts(self) -> None:
        """Offer the scripts of the target vocabulary; they take a moment to be known."""
        counts = [(f"{name} ({n:,})", name) for name, n in self._view.script_counts.items()]
        self.offer(self.script, [("All scripts", ""), *counts], "")
        self.show()

    def show(self) -> None:
        """Repaint from the query."""
        query = self._state.query
        with self.quiet():
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

    def clear_filters(self) -> None:
        """Take every filter away; the order stays."""
        query = self._state.query
        self._state.query = Query(sort=query.sort, reverse=query.reverse)

    def _on_control(self, _value: object) -> None:
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
        low, high = (_number(name, control.value) for control in self.ranges[name])
        self._state.query = self._state.query.limited(name, (low, high))

    def _on_preset(self, preset: str) -> None:
        if preset:
            self._state.query = PRESETS[preset]


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
