"""Texts about the token under the pointer: a short one at the pointer, and a card with all facts below the maps.

This module contains no widgets.
"""

from __future__ import annotations

from html import escape

import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.runs.words import fixed

from ..lexicon.view import LexiconView
from .colours import NOTHING, Colouring

PARTNERS_AT_POINTER = 3
PARTNERS_IN_CARD = 12
NONE = "none"  # shown for an unknown value


class MapWords:
    """Texts about single tokens.

    Parameters
    ----------
    view : the lexicon; without its vocabularies, bytes and the tokenizers' own strings are omitted
    colouring : provides origin, script, margin, hubness and neighbour overlap
    """

    def __init__(self, view: LexiconView, colouring: Colouring) -> None:
        self._view, self._vocabularies, self._colouring = view, view.labels.vocabularies, colouring

    def label(self, space: str, token_id: int) -> str:
        """Return the token's label as HTML."""
        return escape(self._view.labels.of(space, token_id))

    def hover(self, space: str, token_id: int) -> str:
        """Return the text at the pointer, as HTML."""
        named, more = self._partners(space, token_id, PARTNERS_AT_POINTER)
        nothing = "no single source token" if space == "target" else NOTHING
        arrow = "←" if space == "target" else "→"
        origin = self._colouring.origin(space, token_id)
        score, margin, count = (self._figure(by, space, token_id) for by in ("score", "margin", "frequency"))
        facts = [
            f"<b>{self.label(space, token_id)}</b>",
            f"{arrow} {', '.join(named)}{f' and {more:,} more' if more else ''}" if named else nothing,
            f"{origin}, score {score}, margin {margin}",
            f"id {token_id}, times in the text: {count}, {escape(self._colouring.script(space, token_id))}",
            f"bytes {self._bytes(space, token_id)}",
        ]
        if origin == "hole":
            del facts[2]
        return "<br>".join(facts[:-1] if self._vocabularies[space] is None else facts)

    def card(self, space: str, token_id: int) -> str:
        """Return all known facts about one token, as HTML."""
        named, more = self._partners(space, token_id, PARTNERS_IN_CARD)
        origin = self._colouring.origin(space, token_id)
        chips = " ".join(f'<span class="tl-token">{name}</span>' for name in named) or "none"
        facts = {
            "id": f"{token_id:,}",
            "as written": self._raw(space, token_id),
            "bytes": self._bytes(space, token_id),
            "script": escape(self._colouring.script(space, token_id)),
            "times in the text": self._figure("frequency", space, token_id),
            "row built from" if space == "target" else "partner of": chips + (f" and {more:,} more" if more else ""),
            "origin": f"{origin}: {escape(ORIGINS[origin])}" if origin != "hole" else NOTHING,
            "score, margin": f"{self._figure('score', space, token_id)}, {self._figure('margin', space, token_id)}",
            "hubness": f"{self._figure('hubness', space, token_id)} target tokens chose this source",
            "neighbour overlap": self._figure("neighbours", space, token_id),
        }
        if facts["neighbour overlap"] == NONE:
            del facts["neighbour overlap"]  # not computed yet; the colouring by neighbour overlap computes it
        rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value)
        name = f'<span class="tl-token">{self.label(space, token_id)}</span>'
        return f'<div class="tl-map-card"><b>{space.title()} token {name}</b><dl>{rows}</dl></div>'

    def _partners(self, space: str, i: int, most: int) -> tuple[list[str], int]:
        """Return the labels of the first partners as HTML, and how many more there are."""
        other = "source" if space == "target" else "target"
        found = self._view.partners(space, np.array([i])).tolist()
        return [self.label(other, p) for p in found[:most]], max(0, len(found) - most)

    def _figure(self, by: str, space: str, i: int) -> str:
        value = float(self._colouring.values(by, space, np.array([i]))[0])
        return f"{value:,.0f}" if by in ("hubness", "frequency") and np.isfinite(value) else fixed(value, NONE)

    def _raw(self, space: str, i: int) -> str:
        vocabulary = self._vocabularies[space]
        return "" if vocabulary is None else f"<code>{escape(repr(vocabulary.raw_token(i)))}</code>"

    def _bytes(self, space: str, i: int) -> str:
        vocabulary = self._vocabularies[space]
        if vocabulary is None:
            return ""
        spelled = vocabulary.token_bytes[i]
        return "none (control token)" if spelled is None else spelled.hex(" ").upper()
