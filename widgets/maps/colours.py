"""Colours of the maps: a code for each point, a scale for the codes, and a legend in words.

Every colouring becomes small whole numbers with a scale of colours: 20,000 points cost 80 kB where 20,000 names of
colours cost 200 kB, and a point without a value has a colour of its own in both themes. Categories use Okabe and Ito's
palette, which people tell apart who see colours differently; quantities use Viridis without the end that the page's
ground would swallow. Each class is counted, so that the legend is a table too. No widgets here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from plotly.colors import sample_colorscale

from tokalign_lab.alignment.search.neighbourhoods import NEIGHBOURS, Neighbourhoods
from tokalign_lab.plots.maps import NO_VALUE, ORIGIN_COLOURS
from tokalign_lab.plots.theme import PALETTE
from tokalign_lab.spelling import script_of
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

from ..common.state import SPACES
from ..lexicon.view import LexiconView

WORDS = {
    "origin": "Origin", "script": "Script", "score": "Score", "margin": "Margin",
    "hubness": "Hubness (tokens that chose the source)", "frequency": "Frequency in the text",
    "neighbours": "Neighbour overlap",
}  # fmt: skip
NOTHING = "nothing inherits from it"
NO_NUMBER = "no value"
CODES = 255  # of a quantity; 0 is a point without a value
BANDS = 5  # classes that a quantity is counted in
_LOGARITHMIC = ("hubness", "frequency")
_CHUNK = 2000  # tokens whose overlap is measured between two looks at whether anyone still asks


@dataclass(frozen=True)
class Shades:
    """Colours of both maps' points.

    Attributes
    ----------
    codes : for each space, int (n,), place of each point on the scale
    scale : plotly colour scale from the lowest code to the highest
    span : the lowest and the highest code
    bar : the colour bar's title and ticks; None where a legend tells the colours
    classes : (name, colour) of each class, in the order of `counts`
    counts : for each space, how many points are in each class
    """

    codes: dict[str, np.ndarray]
    scale: list[tuple[float, str]]
    span: tuple[float, float]
    bar: dict[str, Any] | None
    classes: list[tuple[str, str]]
    counts: dict[str, list[int]]


class Colouring:
    """Values that points are coloured by.

    Parameters
    ----------
    view : the lexicon
    vectors : token vectors of both spaces
    vocabularies : for bytes; without one, scripts are read off the tokenizer's own strings
    """

    def __init__(
        self, view: LexiconView, vectors: Mapping[str, TokenVectors], vocabularies: Mapping[str, Vocabulary | None]
    ) -> None:
        self._view, self._vectors, self._vocabularies = view, vectors, vocabularies
        self.neighbourhoods = Neighbourhoods(vectors["source"], vectors["target"], view.source_of)
        self.has_vectors = all(some.is_stored for some in vectors.values())
        self._overlap = np.full(len(view.source_of), np.nan, dtype=np.float32)
        self._measured = np.zeros(len(view.source_of), dtype=bool)
        tables = {"source": view.lexicon.reverse, "target": view.lexicon.table}
        self._origins = {space: table["origin"].tolist() for space, table in tables.items()}
        self._scripts: dict[str, dict[int, str]] = {space: {} for space in SPACES}
        highest = max(view.source_of.max(initial=-1), vectors["source"].ids.max(initial=-1))
        size = max(len(view.lexicon.reverse), int(highest) + 1)
        chosen = view.source_of[view.source_of >= 0]
        self.chosen_by = np.bincount(chosen, minlength=size)
        self.best_target = _best_targets(view, size)
        self._counts = {"source": _source_counts(view, vectors["source"], size), "target": view.count.astype(float)}

    def shades(self, by: str, drawn: Mapping[str, np.ndarray], theme: str = "light") -> Shades:
        """Colour the drawn tokens of both maps on one scale."""
        if by in ("origin", "script"):
            names = {space: self._names(by, space, ids) for space, ids in drawn.items()}
            return _categories(by, names)
        return _quantities(by, {space: self.values(by, space, ids) for space, ids in drawn.items()}, theme)

    def values(self, by: str, space: str, ids: np.ndarray) -> np.ndarray:
        """Float (n,): the quantity of each token; nan where it has none. On the source side that of its best pair."""
        view = self._view
        if by == "frequency":
            return self._counts[space][ids]
        if by == "hubness":
            sources = ids if space == "source" else view.source_of[ids]
            return np.where(sources >= 0, self.chosen_by[sources], np.nan).astype(np.float64)
        column = {"score": view.score, "margin": view.margin, "neighbours": self._overlap}[by]
        targets = ids if space == "target" else self.best_target[ids]
        return np.where(targets >= 0, column[targets], np.nan).astype(np.float64)

    def unmeasured(self, by: str, drawn: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Target tokens whose value has to be computed first, in parts that take about a second."""
        if by != "neighbours":
            return []
        asked = np.union1d(drawn["target"], self.best_target[drawn["source"]])
        asked = asked[asked >= 0]
        left = asked[~self._measured[asked]]
        return [left[start : start + _CHUNK] for start in range(0, len(left), _CHUNK)]

    def measure(self, target_ids: np.ndarray) -> None:
        """Work out the neighbour overlap of these tokens, and keep it."""
        self._overlap[target_ids] = self.neighbourhoods.overlap(target_ids)
        self._measured[target_ids] = True

    def script(self, space: str, token_id: int) -> str:
        """Script of a token (see `spelling.script_of`); "special" for a control token."""
        known = self._scripts[space]
        if token_id not in known:
            vocabulary = self._vocabularies[space]
            if vocabulary is None:
                known[token_id] = script_of(self._view.labels.of(space, token_id).encode())
            else:
                spelled = vocabulary.token_bytes[token_id]
                known[token_id] = "special" if spelled is None else script_of(spelled)
        return known[token_id]

    def origin(self, space: str, token_id: int) -> str:
        """Return how a target token was matched, or how the best target of a source token was."""
        origins = self._origins[space]
        return origins[token_id] if token_id < len(origins) else "hole"

    def _names(self, by: str, space: str, ids: np.ndarray) -> list[str]:
        if by == "script":
            return [self.script(space, i) for i in ids.tolist()]
        return [NOTHING if name == "hole" else name for name in (self.origin(space, i) for i in ids.tolist())]


def _best_targets(view: LexiconView, size: int) -> np.ndarray:
    """Of the targets that chose each source the one of the highest score, int64 (size,); -1 for none."""
    best = np.full(size, -1, dtype=np.int64)
    chosen = np.flatnonzero(view.source_of >= 0)
    order = np.lexsort((-chosen, np.nan_to_num(view.score[chosen], nan=-np.inf)))
    ranked = chosen[order]
    best[view.source_of[ranked]] = ranked  # the best is written last and stays
    return best


def _categories(by: str, names: Mapping[str, list[str]]) -> Shades:
    counted = Counter(name for some in names.values() for name in some)
    if by == "origin":
        order = [name for name in (*ORIGIN_COLOURS, NOTHING) if counted[name]]
        colours = [ORIGIN_COLOURS.get(name, NO_VALUE) for name in order]
    else:
        order = [name for name, _ in counted.most_common(len(PALETTE))]
        colours = list(PALETTE[: len(order)])
        if len(counted) > len(order):
            order, colours = [*order, "other scripts"], [*colours, NO_VALUE]
    code = {name: place for place, name in enumerate(order)}
    codes = {space: np.array([code.get(n, len(order) - 1) for n in some], int) for space, some in names.items()}
    n = max(len(order), 1)
    scale = [(edge / n, colour) for i, colour in enumerate(colours) for edge in (i, i + 1)] or [(0, NO_VALUE)] * 2
    counts = {space: np.bincount(some, minlength=n).tolist() for space, some in codes.items()}
    return Shades(codes, scale, (-0.5, n - 0.5), None, list(zip(order, colours, strict=True)), counts)


def _quantities(by: str, values: Mapping[str, np.ndarray], theme: str) -> Shades:
    logarithmic = by in _LOGARITHMIC
    with np.errstate(divide="ignore"):  # of a token that nothing chose, or that the text lacks: it has no value
        scaled = {space: np.log10(some) if logarithmic else some for space, some in values.items()}
    known = np.concatenate([some[np.isfinite(some)] for some in scaled.values()])
    low, high = _span(by, known)
    place = {space: (some - low) / (high - low) for space, some in scaled.items()}
    codes = {
        space: np.where(np.isfinite(some), 1 + np.nan_to_num(some).clip(0, 1) * (CODES - 1), 0).round().astype(int)
        for space, some in place.items()
    }
    ends = (0.12, 1.0) if theme == "dark" else (0.0, 0.92)
    shades = sample_colorscale("Viridis", list(np.linspace(*ends, 9)))
    edge = 0.5 / CODES
    scale = [(0.0, NO_VALUE), (edge, NO_VALUE)]
    scale += [(edge + (1 - edge) * i / 8, colour) for i, colour in enumerate(shades)]
    ticks = _ticks(low, high, logarithmic)
    bar = {
        "title": {"text": _bar_title(by)}, "tickvals": [1 + (CODES - 1) * (t - low) / (high - low) for t, _ in ticks],
        "ticktext": [text for _, text in ticks],
    }  # fmt: skip
    colours = sample_colorscale("Viridis", [ends[0] + (ends[1] - ends[0]) * (i + 0.5) / BANDS for i in range(BANDS)])
    names = [*_band_names(by, low, high, logarithmic), NO_NUMBER]
    counts = {space: _banded(some) for space, some in codes.items()}
    classes = list(zip(names, [*colours, NO_VALUE], strict=True))
    return Shades(codes, scale, (0, CODES), bar, classes, counts)


def _span(by: str, known: np.ndarray) -> tuple[float, float]:
    """Return the ends of the colour scale: those of a share, else such that one odd value does not take it all."""
    if by in ("score", "neighbours"):
        return 0.0, 1.0
    if by in _LOGARITHMIC:
        return 0.0, max(1.0, float(np.ceil(known.max(initial=0.0))))
    return 0.0, max(0.01, float(np.quantile(known, 0.95))) if len(known) else 1.0


def _ticks(low: float, high: float, logarithmic: bool) -> list[tuple[float, str]]:
    if logarithmic:
        return [(t, f"{10**t:,.0f}") for t in range(int(low), int(high) + 1)]
    return [(t, f"{t:.2g}") for t in np.linspace(low, high, 6).tolist()]


def _source_counts(view: LexiconView, vectors: TokenVectors, size: int) -> np.ndarray:
    """Occurrences of each source token in the text, float (size,); nan where neither lexicon nor vectors have them."""
    counts = np.full(size, np.nan)
    chosen = view.source_of >= 0
    counts[view.source_of[chosen]] = view.lexicon.table["source_count"].to_numpy()[chosen]
    counts[vectors.ids] = vectors.counts
    return counts


def _bar_title(by: str) -> str:
    return {
        "hubness": "chosen<br>by", "frequency": "times in<br>the text", "neighbours": f"of {NEIGHBOURS}<br>neighbours",
    }.get(by, by)  # fmt: skip


def _band_names(by: str, low: float, high: float, logarithmic: bool) -> list[str]:
    edges = np.linspace(low, high, BANDS + 1)
    shown = [f"{10**e:,.0f}" if logarithmic else f"{e:.2g}" for e in edges.tolist()]
    names = [f"{a} to {b}" for a, b in pairwise(shown)]
    return [*names[:-1], f"{shown[-2]} and more"] if by != "neighbours" else names


def _banded(codes: np.ndarray) -> list[int]:
    """Count the codes of each band from the lowest, and those without a value last."""
    bands = np.minimum((codes[codes > 0] - 1) * BANDS // (CODES - 1), BANDS - 1)
    return [*np.bincount(bands, minlength=BANDS).tolist(), int((codes == 0).sum())]
