"""Texts of the maps about a token: short at the pointer, complete below the maps. No widgets here.

Hover texts travel with the points, and 20,000 long ones are more than a message should hold. So a text is built in
lines, the most telling first, and as many lines are sent as fit; the card below the maps, written in the kernel for the
one token under the pointer, always holds everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.runs.words import fixed
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

from ..lexicon.view import LexiconView
from .colours import NOTHING, Colouring

HOVER_BYTES = 300_000  # of all hover texts of one map
PARTNERS_AT_POINTER = 3
PARTNERS_IN_CARD = 12
NONE = "none"  # for a figure that is not known


class MapWords:
    """Texts about single tokens.

    Parameters
    ----------
    view : the lexicon
    vectors : token vectors of both spaces, for counts
    vocabularies : for bytes and the tokenizer's own strings; None leaves these out
    colouring : for script, margin, hubness and overlap
    """

    def __init__(
        self,
        view: LexiconView,
        vectors: Mapping[str, TokenVectors],
        vocabularies: Mapping[str, Vocabulary | None],
        colouring: Colouring,
    ) -> None:
        self._view, self._vectors, self._vocabularies, self._colouring = view, vectors, vocabularies, colouring
        self._labels: dict[tuple[str, int], str] = {}

    def label(self, space: str, token_id: int) -> str:
        """Return the token's name, ready for HTML."""
        key = space, token_id
        if key not in self._labels:
            self._labels[key] = escape(self._view.labels.of(space, token_id))
        return self._labels[key]

    def hovers(self, space: str, ids: np.ndarray, room: int = HOVER_BYTES) -> list[str]:
        """One text a token, of as many lines as fit into `room` bytes; the names always do."""
        texts = [self.label(space, i) for i in ids.tolist()]
        used = sum(map(_size, texts))
        for write in (self._partner_lines, self._score_lines, self._count_lines, self._bytes_lines):
            lines = write(space, ids)
            used += sum(map(_size, lines))
            if used > room:
                break
            texts = [f"{text}<br>{line}" if line else text for text, line in zip(texts, lines, strict=True)]
        return texts

    def _partner_lines(self, space: str, ids: np.ndarray) -> list[str]:
        view = self._view
        if space == "target":
            sources = view.source_of[ids].tolist()
            names = {i: self.label("source", i) for i in set(sources)}
            return [f"← {names[i]}" if i >= 0 else "no single source token" for i in sources]
        order, sources = view.targets_of
        starts, ends = np.searchsorted(sources, ids), np.searchsorted(sources, ids, side="right")
        lines = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            named = ", ".join(
                self.label("target", i) for i in order[start : min(end, start + PARTNERS_AT_POINTER)].tolist()
            )
            more = end - start - PARTNERS_AT_POINTER
            lines.append(f"→ {named}{f' and {more:,} more' if more > 0 else ''}" if named else NOTHING)
        return lines

    def _score_lines(self, space: str, ids: np.ndarray) -> list[str]:
        told = zip(
            (self._colouring.origin(space, i) for i in ids.tolist()),
            self._colouring.values("score", space, ids).tolist(),
            self._colouring.values("margin", space, ids).tolist(),
            strict=True,
        )
        return [f"{o}, score {fixed(s, NONE)}, margin {fixed(m, NONE)}" if o != "hole" else "" for o, s, m in told]

    def _count_lines(self, space: str, ids: np.ndarray) -> list[str]:
        counts = self._colouring.values("frequency", space, ids).tolist()
        told = zip(ids.tolist(), counts, (self._colouring.script(space, i) for i in ids.tolist()), strict=True)
        return [f"id {i}{f', {n:,.0f} times in the text' if np.isfinite(n) else ''}, {script}" for i, n, script in told]

    def _bytes_lines(self, space: str, ids: np.ndarray) -> list[str]:
        spelled = [self._bytes(space, i) for i in ids.tolist()]
        return [f"bytes {some}" if some else "" for some in spelled]

    def card(self, space: str, token_id: int) -> str:
        """Everything that is known of one token, as HTML."""
        named, more = self._partners(space, token_id, PARTNERS_IN_CARD)
        origin = self._colouring.origin(space, token_id)
        chips = " ".join(f'<span class="tl-token">{name}</span>' for name in named) or "none"
        told = {
            "id": f"{token_id:,}",
            "own form": self._raw(space, token_id),
            "bytes": self._bytes(space, token_id),
            "script": escape(self._colouring.script(space, token_id)),
            "times in the text": self._figure("frequency", space, token_id),
            "inherits from" if space == "target" else "chosen by": chips + (f" and {more:,} more" if more else ""),
            "origin": f"{origin}: {escape(ORIGINS[origin])}" if origin != "hole" else NOTHING,
            "score, margin": f"{self._figure('score', space, token_id)}, {self._figure('margin', space, token_id)}",
            "hubness": f"{self._figure('hubness', space, token_id)} target tokens chose this source",
            "neighbour overlap": self._figure("neighbours", space, token_id),
        }
        if told["neighbour overlap"] == NONE:
            del told["neighbour overlap"]  # not measured: only that colouring does
        rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told.items() if value)
        name = f'<span class="tl-token">{self.label(space, token_id)}</span>'
        return f'<div class="tl-map-card"><b>{space.title()} token {name}</b><dl>{rows}</dl></div>'

    def _partners(self, space: str, i: int, most: int) -> tuple[list[str], int]:
        """Names of the first partners, and how many more there are."""
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


def _size(text: str) -> int:
    """Bytes of a text in a message, with what JSON puts around it."""
    return len(text.encode()) + 4
