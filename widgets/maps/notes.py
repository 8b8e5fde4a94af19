"""Tables and texts around the maps: selected pairs, neighbours of the primary token, legend, tokens by colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from html import escape

import ipywidgets as w
import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.alignment.search.neighbourhoods import around_pair
from tokalign_lab.projection import METHODS
from tokalign_lab.runs.words import fixed

from ..common.part import Box, html, shown, status_html, token
from ..common.state import SPACES, Selection
from ..common.table import Column, RowTable
from ..lexicon.view import LexiconView
from .colours import WORDS, Colouring, Shades
from .figure import MOST_LINES, SIGNS, Ids
from .view import MapView
from .words import MapWords

TABLE_ROWS = 12
PAIR_COLUMNS = (
    Column("target", "Target token", "␣ is a space, ↵ a line end", kind="token"),
    Column("source", "Best source token", "The source token with the largest weight in this row", kind="token"),
    Column("score", "Score", "Similarity of the two tokens: 1 for a copy; higher is better", numeric=True),
    Column("origin", "Origin", "How the row was made; hover over a word", kind="origin", titles=ORIGINS),
)
NEIGHBOUR_COLUMNS = (
    Column("token", "Token", "A token near the one in the heading", kind="token"),
    Column("cosine", "Cosine", "Similarity to the token in the heading, at most 1", numeric=True),
    Column("partner", "Its partner", "Its counterpart in the lexicon", kind="token"),
    Column("match", "Partner is also a neighbour", "Whether its partner is in the other table"),
)


class PairTable(RowTable):
    """A table of the first `TABLE_ROWS` selected pairs."""

    def __init__(self, view: LexiconView) -> None:
        super().__init__(PAIR_COLUMNS, "tl-selection-table", caption="Selected pairs")
        self._view = view

    def fill(self, target_ids: np.ndarray) -> None:
        """Show these target tokens with their best source tokens."""
        view = self._view
        rows = target_ids[target_ids < len(view.score)]
        first = rows[:TABLE_ROWS].tolist()
        cells = [
            [
                view.labels.of("target", i), view.labels.of("source", int(view.source_of[i])),
                fixed(view.score[i]), str(view.origin.iat[i]),
            ]
            for i in first
        ]  # fmt: skip
        with self.hold_sync():
            self.caption = f"Selected pairs: {len(first)} of {len(rows):,}"
            self.show(first, cells)
        shown(self, len(rows) > 0)


class NeighbourTables(Box):
    """Nearest neighbours of the primary token and of its partner, each in its own space, side by side.

    Parameters
    ----------
    view : the lexicon
    colouring : provides the neighbourhoods
    on_choose : called with space and token id when the user clicks a row
    """

    def __init__(self, view: LexiconView, colouring: Colouring, on_choose: Callable[[str, int], None]) -> None:
        self._view, self._colouring = view, colouring
        self.tables = {
            space: RowTable(NEIGHBOUR_COLUMNS, on_row=self.guarded(partial(on_choose, space))) for space in SPACES
        }
        self._heading = html()
        sides = w.HBox([self.tables[space] for space in SPACES])
        sides.add_class("tl-map-neighbours-sides")
        super().__init__([self._heading, sides])
        shown(self, False)

    def primary(self, selection: Selection) -> dict[str, int]:
        """Return the primary token and its partner, by space; -1: it has no partner; {}: nothing is selected."""
        if not selection:
            return {}
        first = selection.ids[0]
        if selection.space == "target":
            source = int(self._view.source_of[first]) if first < len(self._view.source_of) else -1
            return {"source": source, "target": first}
        best = self._colouring.best_target
        return {"source": first, "target": int(best[first]) if first < len(best) else -1}

    def fill(self, selection: Selection) -> None:
        """Show the neighbours of the primary token; takes up to a second, so call it in a thread."""
        primary = self.primary(selection)
        if not primary:
            shown(self, False)
            return
        view = self._view
        found = around_pair(self._colouring.neighbourhoods.spaces, primary, view.source_of)
        partners = {"source": self._colouring.best_target, "target": view.source_of}
        has_neighbours = any(found.values())
        why = "no vector" if self._colouring.has_vectors else "the vectors are not stored with this run"
        for space, table in self.tables.items():
            other = "target" if space == "source" else "source"
            cells = [
                [
                    view.labels.of(space, one.id),
                    f"{one.cosine:.3f}",
                    view.labels.of(other, int(partners[space][one.id])),
                    "–" if not found[other] else "yes" if one.matched else "no",
                ]
                for one in found[space]
            ]
            name = view.labels.of(space, primary[space])
            words = f"no {space} token" if not name else name if found[space] else f"{name} ({why})"
            with table.hold_sync():
                table.caption = f"{space.title()} space, nearest to {words}"
                table.chosen = -1
                table.show([one.id for one in found[space]], cells)
            shown(table, has_neighbours)
        n, of = sum(one.matched for one in found["target"]), len(found["target"])
        names = " and ".join(token(view.labels.of(s, i)) for s, i in primary.items() if i >= 0)
        share = f"{n} of {of} neighbours in the target space have their partner in the other table." if of else ""
        if not has_neighbours:
            share = f"No neighbours ({why})."
        self._heading.value = f"<h4>Nearest neighbours of {names}</h4><div class='tl-note'>{share}</div>"
        shown(self, True)


def class_table(shades: Shades, words: str) -> str:
    """Return the number of tokens of each colour as an HTML table; `words` names the colouring."""
    counted = zip(shades.classes, shades.counts["source"], shades.counts["target"], strict=True)
    rows = "".join(
        f"<tr><td>{_dot(colour)}{escape(name)}</td>{_numbers(a, b)}</tr>" for (name, colour), a, b in counted
    )
    head = f'<th>{escape(words)}</th><th class="tl-number">source</th><th class="tl-number">target</th>'
    foot = f"<td>all</td>{_numbers(*(sum(counts) for counts in shades.counts.values()))}"
    return (
        '<details class="tl-map-classes"><summary>Tokens by colour, as a table</summary>'
        f'<table class="tl-ranking"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        f"<tfoot><tr>{foot}</tr></tfoot></table></details>"
    )


def legend(shades: Shades, signs: dict[str, tuple[str, int]]) -> str:
    """Return the legend of colours and signs as HTML; `signs` holds each sign and its number of tokens, by name."""
    some = np.sum(list(shades.counts.values()), axis=0)
    named = [one for one, n in zip(shades.classes, some, strict=True) if n]
    dots = "".join(f"<span>{_dot(colour)}{escape(name)}</span>" for name, colour in named)
    marks = "".join(f"<span><b>{sign}</b> {name} ({n:,})</span>" for name, (sign, n) in signs.items() if n)
    return f'<div class="tl-legend tl-map-legend">{dots}{marks}</div>'


def _numbers(*counts: int) -> str:
    return "".join(f'<td class="tl-number">{n:,}</td>' for n in counts)


def _dot(colour: str) -> str:
    return f'<i class="tl-dot" style="background:{colour}"></i>'


class MapNotes:
    """The texts around the figure: legend, table of colours, status, selection and the card of one token."""

    def __init__(self, points: MapView, words: MapWords) -> None:
        self._points, self._words = points, words
        self.legend, self.classes, self.card = html(), html(), html()
        self.status, self.chosen = html("tl-status"), html("tl-chosen")
        self.card.value = '<div class="tl-note tl-map-card">Hover over a token to see its details here.</div>'

    def describe(self, shades: Shades, colour_by: str, marked: Mapping[str, Ids]) -> None:
        """Update the legend and the table of tokens by colour."""
        signs = {
            kind: (sign, sum(len(self._points.points_of(space, marked[kind][space])) for space in SPACES))
            for kind, sign in SIGNS.items()
        }
        self.legend.value = legend(shades, signs)
        self.classes.value = class_table(shades, WORDS[colour_by])

    def show_status(self, method: str, doing: str = "") -> None:
        """Show the current work; if there is none, the method and the number of tokens drawn."""
        counted = " and ".join(f"{len(some):,} {space}" for space, some in self._points.vectors.items())
        words = f"{method.upper()}: {METHODS[method]}. Every token with a vector is drawn: {counted} tokens."
        self.status.value = status_html(doing or words, "tl-note")

    def selected(self, ids: Ids, highlighted: Ids, pairs: int, joined: int) -> None:
        """Show how many tokens are selected and highlighted; `joined` of `pairs` pairs have a line."""
        counted = [f"{len(ids[s]):,} {s} token{'s' * (len(ids[s]) != 1)}" for s in SPACES]
        seen, chosen = (sum(map(len, some.values())) for some in (highlighted, ids))
        without = f", of which {seen:,} have a vector and are highlighted" if seen < chosen else ""
        words = f"Selected with their partners: {counted[0]} and {counted[1]}{without}."
        if pairs > 1:
            why = f" (at most {MOST_LINES})" if joined == MOST_LINES < pairs else ""
            words += f" Lines join {joined:,} of {pairs:,} pairs, where both tokens are in view{why}."
            words += " All pairs are in <code>.selection</code>."
        if not chosen:
            words = "Nothing is selected."
        self.chosen.value = f'<div role="status" aria-live="polite">{words}</div>'

    def show_token(self, space: str, token_id: int) -> None:
        """Show all known facts about one token."""
        self.card.value = self._words.card(space, token_id)
