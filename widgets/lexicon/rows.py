"""The rows of the lexicon that the query finds: controls of the query, a histogram, and a table with pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w
import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.errors import InputError
from tokalign_lab.runs.words import fixed

from ..common.part import Box, PressHtml, bar
from ..common.state import EVERYTHING, LabState, Query, Range
from ..common.table import Column, Pages, RowTable
from .view import RANGES, SORTS, WORST_MEANS, LexiconView

# Presets: common questions, each a complete query.
PRESETS = {
    "All rows": Query(),
    "Most frequent with a small margin (below 0.05)": Query(origin="aligned", margin=(None, 0.05)),
    "Found by vectors": Query(origin="aligned", sort="margin"),
    "Frequent, built from pieces only": Query(origin="pieces", frequency=(1, None)),
    "Long words (12 bytes or more) found by vectors": Query(origin="aligned", length=(12, None), sort="worst"),
    "Parts of characters": Query(script="bytes"),
    "Edited by hand": Query(origin="edited", sort="id"),
}
_NO_PRESET = "Choose one …"
_RANGE_WORDS = {
    "length": ("Bytes", "bytes of the target token"),
    "frequency": ("Times in text", "occurrences of the target token in the text"),
    "score": ("Score", "score of the best candidate"),
    "margin": ("Margin", "score of the best candidate minus that of the second"),
}


class LexiconFilters(Box):
    """Controls for `state.query`: the most common ones in the bar `quick`, the others in this box.

    Parameters
    ----------
    view : provides the origins and scripts to choose from
    state : holds the query
    """

    def __init__(self, view: LexiconView, state: LabState) -> None:
        self._view, self._state = view, state
        self._fields: dict[str, Any] = {}  # the control of each field of the query
        self.search = self._field(
            "text", self.entry, "Search", placeholder="the, 東京, <0x0A> …",
            tooltip="Part of a target or source token, as displayed or as in the tokenizer",
        )  # fmt: skip
        presets = [(_NO_PRESET, ""), *((name, name) for name in PRESETS)]
        self.preset = self.menu("Show", self._on_preset, options=presets, tooltip="Predefined filters and orders")
        self.sort = self._field(
            "sort", self.menu, "Order", options=[(words, key) for key, words in SORTS.items()],
            tooltip=f"Order of the rows; worst first: {WORST_MEANS}",
        )  # fmt: skip
        self.regex = self._field(
            "regex", self.check, "Regular expression",
            tooltip="Treat the search as a regular expression, such as ^␣[A-Z]+$",
        )  # fmt: skip
        self.selected = self._field(
            "selected", self.check, "Only selected tokens",
            tooltip="Only tokens selected here, on the maps or by a finding of the diagnosis",
        )  # fmt: skip
        self.origin = self._field("origin", self.menu, "Origin", tooltip="How the row was made; see Details")
        self.script = self._field(
            "script", self.menu, "Script", options=[("All scripts", "")], tooltip="Unicode script of the target token"
        )
        self.ranges = {name: self._range(name) for name in RANGES}
        self.clear = self.button("Clear filters", self.clear_filters, "Show all rows; keeps the order")
        self.offer_origins()
        self.quick = bar(self.search, self.preset, self.sort)
        self.quick.add_class("tl-quick")
        ranges = [w.HBox(ends) for ends in self.ranges.values()]
        for pair in ranges:
            pair.add_class("tl-range")
        super().__init__([bar(self.origin, self.script, self.regex, self.selected, self.clear), bar(*ranges)])

    def _field(self, name: str, make: Callable[..., Any], label: str, **more: Any) -> Any:
        """Make a control for one field of the query; another order starts unreversed."""

        def changed(value: Any) -> None:
            query = self._state.query
            new: dict[str, Any] = {"reverse": query.reverse and name != "sort", name: value}
            self._state.query = replace(query, **new)

        self._fields[name] = make(label, changed, **more)
        return self._fields[name]

    def _range(self, name: str) -> tuple[w.Text, w.Text]:
        label, meaning = _RANGE_WORDS[name]
        ends = []
        for words, least in ((f"{label} from", "At least"), ("to", "At most")):
            made = self.entry(
                words,
                lambda _text: self._on_range(name),
                placeholder="any",
                continuous_update=False,
                tooltip=f"{least} this: {meaning}",
            )
            made.add_class("tl-range-end")
            ends.append(made)
        return ends[0], ends[1]

    def offer_origins(self) -> None:
        """Update the list of origins."""
        counts = [(f"{name} ({n:,})", name) for name, n in self._view.origin_counts.items()]
        self.offer(self.origin, [("All origins", ""), *counts], "")
        self.show()

    def offer_scripts(self) -> None:
        """Update the list of scripts; slow the first time, because it finds the script of each token."""
        counts = [(f"{name} ({n:,})", name) for name, n in self._view.script_counts.items()]
        self.offer(self.script, [("All scripts", ""), *counts], "")
        self.show()

    def show(self) -> None:
        """Update the controls from the query."""
        query = self._state.query
        with self.quiet():
            for name, control in self._fields.items():
                value = getattr(query, name)
                if name in ("origin", "script") and value not in [key for _, key in control.options]:
                    control.options = [*control.options, (value, value)]  # even if no row has it
                control.value = value
            for name, (low, high) in self.ranges.items():
                low.value, high.value = (_written(end) for end in getattr(query, name))
            self.preset.value = next(
                (
                    name
                    for name, wanted in PRESETS.items()  # in any order, which the menu next to this one names
                    if replace(query, sort=wanted.sort, reverse=wanted.reverse) == wanted
                ),
                "",
            )

    def clear_filters(self) -> None:
        """Remove all filters, but keep the order."""
        query = self._state.query
        self._state.query = Query(sort=query.sort, reverse=query.reverse)

    def _on_range(self, name: str) -> None:
        low, high = (_number(name, control.value) for control in self.ranges[name])
        self._state.query = self._state.query.limited(name, (low, high))

    def _on_preset(self, preset: str) -> None:
        if preset:
            self._state.query = PRESETS[preset]


def _number(name: str, written: str) -> float | None:
    if not written.strip():
        return None
    try:
        return float(written.replace(",", ""))
    except ValueError:
        raise InputError(f"'{written}' is not a number; {_RANGE_WORDS[name][0]} takes a number, or nothing.") from None


def _written(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


N_BARS = 20
NAMES = {"score": "Score", "margin": "Margin", "frequency": "Times in text", "length": "Bytes"}
_COUNTED = ("frequency", "length")  # integers over several orders of magnitude


class Histogram(PressHtml):
    """A histogram of the filtered rows; a click on a bar filters by its range.

    A second plotly figure would take 5 MB and a second in the browser.

    Parameters
    ----------
    on_bar : called with the range of the clicked bar, or `EVERYTHING` if the bar was on

    Attributes
    ----------
    bars : list of {"label": str, "n": int, "on": bool}
    caption : text below the bars
    """

    def __init__(self, on_bar: Callable[[Range], None]) -> None:
        super().__init__(lambda pressed: self.press(int(pressed)))
        self._on_bar = on_bar
        self._ranges: Sequence[Range] = []
        self.bars: list[dict[str, Any]] = []
        self.caption = ""

    def press(self, index: int) -> None:
        """Simulate a click on this bar."""
        if 0 <= index < len(self._ranges):
            self._on_bar(EVERYTHING if self.bars[index]["on"] else self._ranges[index])

    def show(self, measure: str, everything: np.ndarray, kept: np.ndarray, chosen: Range) -> None:
        """Draw a histogram of `everything[kept]` over the range of `everything`; bars inside `chosen` are on.

        `kept` are the rows that pass all filters except the range of `measure`, so that the other bars stay clickable.
        """
        ranges = ranges_of(measure, everything)
        values = everything[kept & np.isfinite(everything)]
        lows = np.array([low for low, _ in ranges])
        bins = np.searchsorted(lows, values, side="right") - 1
        counts = np.bincount(bins[bins >= 0], minlength=len(ranges)) if ranges else np.zeros(0, np.int64)
        self._ranges = ranges
        unknown = int(kept.sum()) - len(values)
        self.bars = [
            {"label": _bar_label(measure, *ends), "n": int(n), "on": chosen != EVERYTHING and _inside(ends, chosen)}
            for ends, n in zip(ranges, counts, strict=True)
        ]
        self.caption = f"{len(values):,} tokens, square-root scale" + (f"; {unknown:,} unknown" * (unknown > 0))
        self.html = _bars_html(NAMES[measure], self.bars, self.caption)


def _bars_html(name: str, bars: Sequence[dict[str, Any]], caption: str) -> str:
    """Return bars as buttons, for the keyboard and screen readers, and a table of the same counts, as HTML."""
    most = max([1, *(one["n"] for one in bars)])
    buttons, lines = "", ""
    for index, one in enumerate(bars):
        words = f"{one['label']}: {one['n']:,} tokens"
        buttons += (
            f'<button type="button" class="tl-hist-bar" tabindex="-1" data-press="{index}" title="{words}" '
            f'aria-label="{words}" aria-pressed="{str(one["on"]).lower()}">'
            f'<span class="tl-hist-fill" style="height:{(one["n"] / most) ** 0.5:.0%}"></span></button>'
        )
        on = "on" if one["on"] else ""
        lines += f'<tr><td>{one["label"]}</td><td class="tl-number">{one["n"]:,}</td><td>{on}</td></tr>'
    first, last = (bars[0]["label"], bars[-1]["label"]) if bars else ("", "")
    return (
        f'<div class="tl-hist"><div class="tl-hist-bars" role="group" aria-label="{name}: click a bar to filter">'
        f'{buttons}</div><div class="tl-hist-ends"><span>{first}</span><span>{caption}</span><span>{last}</span></div>'
        '<details class="tl-note"><summary>Show as a table</summary><table class="tl-table tl-hist-table"><thead><tr>'
        f'<th>{name}</th><th class="tl-number">Tokens</th><th>Filter</th></tr></thead><tbody>{lines}</tbody></table>'
        "</details></div>"
    )


def ranges_of(measure: str, values: np.ndarray) -> list[tuple[float, float]]:
    """Divide the range of the values into bars; return the lowest and the highest value of each, both included."""
    known = values[np.isfinite(values)]
    if measure in _COUNTED:
        known = known[known >= 0]
    if not len(known):
        return []
    low, high = float(known.min()), float(known.max())
    if measure in _COUNTED:
        decades = [0, 1, 2, 3, 5, 8, *(step * 10**k for k in range(1, 12) for step in (1, 2, 5))]
        steps = [edge for edge in decades if edge <= high]
        steps = steps[max(0, int(np.searchsorted(steps, low, side="right")) - 1) :]
        return [(float(a), float(b - 1)) for a, b in zip(steps, [*steps[1:], int(high) + 1], strict=True)]
    edges = np.round(np.linspace(low, high, N_BARS + 1), 4)
    edges[0], edges[-1] = np.floor(low * 1e4) / 1e4, np.ceil(high * 1e4) / 1e4
    edges = np.unique(edges)
    if len(edges) == 1:
        return [(float(edges[0]), float(edges[0]))]
    # A value on an edge belongs to the bar that begins there, so the bar before it ends 1e-6 lower.
    ends = [*(edges[1:-1] - 1e-6), edges[-1]]
    return [(float(a), float(b)) for a, b in zip(edges[:-1], ends, strict=True)]


def _inside(ends: tuple[float, float], chosen: Range) -> bool:
    low, high = chosen
    return (low is None or ends[0] >= low - 1e-9) and (high is None or ends[1] <= high + 1e-9)


def _bar_label(measure: str, low: float, high: float) -> str:
    if measure in _COUNTED:
        return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    return f"{low:.3f} to {high:.3f}"


PAGE = 15
COLUMNS = (
    Column("id", "Id", "Id in the target vocabulary", numeric=True, sortable=True),
    Column("target", "Target token", "␣ is a space, ↵ a line end, <E4 BD> a part of a character", kind="token"),
    Column("source", "Best source token", "The source token with the largest weight in this row", kind="token"),
    Column(
        "best", "Score", "Similarity of the two tokens: 1 for a copy, – if there is none; higher is better", True, True
    ),
    Column("margin", "Margin", "Score minus the score of the second candidate; below 0.05: uncertain", True, True),
    Column("origin", "Origin", "How the row was made; hover over a word", kind="origin", titles=ORIGINS),
    Column(
        "frequency",
        "Times in text",
        "Occurrences of the target token in the text; errors in frequent tokens matter most",
        True,
        True,
    ),
)
_FALLING = ("best", "frequency")  # orders that start with the largest value


class LexiconTable(Pages):
    """A table of the filtered rows, in pages; its items are target ids.

    Parameters
    ----------
    view : the lexicon
    on_row : called with the target id of a clicked row
    on_heading : called with the sort order of a clicked heading
    more : buttons after those that change the page
    """

    def __init__(
        self,
        view: LexiconView,
        on_row: Callable[[int], None],
        on_heading: Callable[[str], None],
        more: Sequence[w.Widget] = (),
    ) -> None:
        self._view, self._query = view, Query()
        table = RowTable(COLUMNS, "tl-lexicon-table", self.guarded(on_row))
        table.on_heading = self.guarded(on_heading)
        super().__init__(table, PAGE, self._draw_rows, _where, after=more, ends=True)
        self.items = np.zeros(0, dtype=np.int64)

    def show_rows(self, rows: np.ndarray, query: Query, page: int) -> None:
        """Show this page of a query's result: target ids, int64 (n,)."""
        self._query = query
        self.show(rows, page)

    def _draw_rows(self, ids: Sequence[int]) -> None:
        query = self._query
        self.table.show(ids, [self._cells(int(i)) for i in ids])
        meant = f" ({WORST_MEANS})" if query.sort == "worst" else ""
        self.table.caption = f"Lexicon rows, {SORTS[query.sort].lower()}{meant}{', reversed' * query.reverse}"
        self.table.sort = [query.sort, "down" if (query.sort in _FALLING) != query.reverse else "up"]

    def _cells(self, i: int) -> list[str]:
        view = self._view
        return [
            str(i),
            view.labels.of("target", i),
            view.labels.of("source", int(view.source_of[i])),
            fixed(view.score[i]),
            fixed(view.margin[i]),
            str(view.origin.iat[i]),
            f"{view.count[i]:,}",
        ]


def _where(first: int, last: int, n: int) -> str:
    if not n:
        return "No results; remove a filter or shorten the search."
    return f"Rows {first:,} to {last:,} of {n:,} found"
