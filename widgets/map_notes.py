"""What the maps say in words: status, legend and its table, what is selected, and the card of one token."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import ipywidgets as w
import numpy as np

from tokalign_lab.projection import METHODS
from tokalign_lab.widgets.map_colours import WORDS, Shades
from tokalign_lab.widgets.map_layers import MARKS, MOST_LINES
from tokalign_lab.widgets.map_tables import class_table, legend
from tokalign_lab.widgets.map_view import MapView
from tokalign_lab.widgets.map_words import MapWords
from tokalign_lab.widgets.state import SPACES

Ids = Mapping[str, np.ndarray]


class MapNotes:
    """Words around the figure.

    Parameters
    ----------
    points : what is drawn
    words : texts about single tokens
    """

    def __init__(self, points: MapView, words: MapWords) -> None:
        self._points, self._words = points, words
        self.status, self.legend, self.classes, self.chosen, self.card = (w.HTML() for _ in range(5))
        self.status.add_class("tl-status")
        self.chosen.add_class("tl-chosen")
        self.card.value = '<div class="tl-note tl-map-card">Point at a token to read everything about it here.</div>'

    def describe(self, shades: Shades, colour_by: str, marked: Mapping[str, Ids]) -> None:
        """Write what the colours and signs mean, and how many tokens have each."""
        signs = {
            kind: (sign, sum(len(self._points.placed(space, marked[kind][space])) for space in SPACES))
            for kind, (_, sign) in MARKS.items()
        }
        self.legend.value = legend(shades, signs)
        drawn = {space: len(ids) for space, ids in self._points.drawn.items()}
        self.classes.value = class_table(shades, drawn, WORDS[colour_by])

    def say(self, method: str, doing: str = "") -> None:
        """Write what is being done, else what the maps show."""
        told = []
        for space in SPACES:
            inside, all_of = self._points.inside[space], len(self._points.vectors[space])
            drawn = len(self._points.drawn[space])
            of = f"{all_of:,} {space} tokens" + (f", {inside:,} in view" if inside < all_of else "")
            told.append(f"{of}, {drawn:,} drawn" + (", the rest as density" if drawn < inside else ""))
        words = f"{method.upper()}: {METHODS[method]}. {'; '.join(told)} (sampled, seed 0)."
        self.status.value = f'<div class="tl-note" role="status" aria-live="polite">{escape(doing or words)}</div>'

    def selected(self, ids: Ids, lit: Ids, pairs: int, joined: int) -> None:
        """Write what is selected, and how much of it can be seen; `joined` of `pairs` pairs have a line."""
        counted = [f"{len(ids[s]):,} {s} token{'s' * (len(ids[s]) != 1)}" for s in SPACES]
        seen, chosen = (sum(map(len, some.values())) for some in (lit, ids))
        dark = f", of which {seen:,} have a vector and are lit" if seen < chosen else ""
        told = f"Selected with their partners: {counted[0]} and {counted[1]}{dark}."
        if pairs > 1:
            why = f" (at most {MOST_LINES}, those in view)" if joined < pairs else ""
            told += f" Lines join {joined:,} of {pairs:,} pairs{why}."
            told += " All pairs are in <code>.selection</code>."
        words = told if chosen else "Nothing is selected."
        self.chosen.value = f'<div role="status" aria-live="polite">{words}</div>'

    def show_token(self, space: str, token_id: int) -> None:
        """Write everything about one token."""
        self.card.value = self._words.card(space, token_id)
