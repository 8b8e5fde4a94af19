"""Colours of the maps: a palette, an index into it for each point, and the classes of the legend.

The colour of a point is one byte. Points without a value have a separate colour. Categories use the palette of Okabe
and Ito, which suits colour-vision deficiency; quantities use Viridis without the end that is too close to the
background. The points of each class are counted for the table below the maps. This module contains no widgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from plotly.colors import sample_colorscale

from tokalign_lab.alignment.search.neighbourhoods import Neighbourhoods
from tokalign_lab.plots.maps import NO_VALUE, ORIGIN_COLOURS
from tokalign_lab.plots.theme import PALETTE
from tokalign_lab.spelling import script_of
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.state import SPACES
from ..lexicon.view import LexiconView

MEASURED = 20_000  # most frequent tokens whose neighbour overlap is computed; all tokens would take minutes
WORDS = {
    "origin": "Origin", "script": "Script", "score": "Score", "margin": "Margin",
    "hubness": "Hubness (tokens that chose the source)", "frequency": "Frequency in the text",
    "neighbours": f"Neighbour overlap ({MEASURED:,} most frequent target tokens)",
}  # fmt: skip
NOTHING = "no target token uses it"
NO_NUMBER = "no value"
CODES = 255  # codes of a quantity, from 1; 0 is the code of a point without a value
BANDS = 5  # classes of a quantity in the legend
_LOGARITHMIC = ("hubness", "frequency")
_CHUNK = 2000  # tokens measured between two checks whether the result is still wanted


@dataclass(frozen=True)
class Shades:
    """Colours of both maps' points.

    Attributes
    ----------
    codes : for each space, uint8 (n,), index of each point's colour in the palette
    palette : CSS colours
    classes : (name, colour) of each class, in the order of `counts`
    counts : for each space, how many points are in each class
    """

    codes: dict[str, np.ndarray]
    palette: list[str]
    classes: list[tuple[str, str]]
    counts: dict[str, list[int]]


class Colouring:
    """Computes the values that points are coloured by.

    Parameters
    ----------
    view : the lexicon
    vectors : token vectors of both spaces
    """

    def __init__(self, view: LexiconView, vectors: Mapping[str, TokenVectors]) -> None:
        self._view, self._vectors = view, vectors
        self.neighbourhoods = Neighbourhoods(vectors["source"], vectors["target"], view.source_of)
        self.has_vectors = all(some.is_stored for some in vectors.values())
        self._overlap = np.full(len(view.source_of), np.nan, dtype=np.float32)
        self._measured = np.zeros(len(view.source_of), dtype=bool)
        tables = {"source": view.lexicon.reverse, "target": view.lexicon.table}
        self._origins = {space: table["origin"].to_numpy(object) for space, table in tables.items()}
        self._scripts: dict[str, dict[int, str]] = {space: {} for space in SPACES}
        highest = max(view.source_of.max(initial=-1), vectors["source"].ids.max(initial=-1))
        size = max(len(view.lexicon.reverse), int(highest) + 1)
        chosen = view.source_of[view.source_of >= 0]
        self.chosen_by = np.bincount(chosen, minlength=size)
        self.best_target = _best_targets(view, size)
        self._counts = {"source": _source_counts(view, vectors["source"], size), "target": view.count.astype(float)}

    def shades(self, by: str, theme: str = "light") -> Shades:
        """Colour all tokens that have a vector; both maps share one palette."""
        ids = {space: some.ids for space, some in self._vectors.items()}
        if by in ("origin", "script"):
            return _categories(by, {space: self._names(by, space, some) for space, some in ids.items()})
        return _quantities(by, {space: self.values(by, space, some) for space, some in ids.items()}, theme)

    def values(self, by: str, space: str, ids: np.ndarray) -> np.ndarray:
        """Return the quantity of each token, float (n,), or nan; a source token has that of its best pair."""
        view = self._view
        if by == "frequency":
            return self._counts[space][ids]
        if by == "hubness":
            sources = ids if space == "source" else view.source_of[ids]
            return np.where(sources >= 0, self.chosen_by[sources], np.nan).astype(np.float64)
        column = {"score": view.score, "margin": view.margin, "neighbours": self._overlap}[by]
        targets = ids if space == "target" else self.best_target[ids]
        return np.where(targets >= 0, column[targets], np.nan).astype(np.float64)

    def unmeasured(self, by: str) -> list[np.ndarray]:
        """Return the target tokens whose value has to be computed first, in chunks that take seconds each."""
        if by != "neighbours":
            return []
        often = np.argsort(-self._view.count, kind="stable")[:MEASURED]
        left = often[~self._measured[often]]
        return [left[start : start + _CHUNK] for start in range(0, len(left), _CHUNK)]

    def measure(self, target_ids: np.ndarray) -> None:
        """Compute the neighbour overlap of these tokens, and store it."""
        self._overlap[target_ids] = self.neighbourhoods.overlap(target_ids)
        self._measured[target_ids] = True

    def script(self, space: str, token_id: int) -> str:
        """Return the script of a token (see `spelling.script_of`); "special" for a control token."""
        known = self._scripts[space]
        if token_id not in known:
            vocabulary = self._view.labels.vocabularies[space]
            if vocabulary is None:
                known[token_id] = script_of(self._view.labels.of(space, token_id).encode())
            else:
                spelled = vocabulary.token_bytes[token_id]
                known[token_id] = "special" if spelled is None else script_of(spelled)
        return known[token_id]

    def origin(self, space: str, token_id: int) -> str:
        """Return the origin of a target token, or of the best target of a source token."""
        origins = self._origins[space]
        return origins[token_id] if token_id < len(origins) else "hole"

    def _names(self, by: str, space: str, ids: np.ndarray) -> np.ndarray:
        if by == "script":
            return np.array([self.script(space, i) for i in ids.tolist()], dtype=object)
        names = self._origins[space].take(ids, mode="clip")
        names[(ids >= len(self._origins[space])) | (names == "hole")] = NOTHING
        return names


def _best_targets(view: LexiconView, size: int) -> np.ndarray:
    """Return for each source token the target with the best score among those that use it, int64 (size,); -1: none."""
    best = np.full(size, -1, dtype=np.int64)
    chosen = np.flatnonzero(view.source_of >= 0)
    order = np.lexsort((-chosen, np.nan_to_num(view.score[chosen], nan=-np.inf)))
    ranked = chosen[order]
    best[view.source_of[ranked]] = ranked  # written in ascending order of score, so the best remains
    return best


def _categories(by: str, names: Mapping[str, np.ndarray]) -> Shades:
    numbers, found = pd.factorize(np.concatenate(list(names.values())))
    if by == "origin":
        order = [name for name in (*ORIGIN_COLOURS, NOTHING) if name in found]
        colours = [ORIGIN_COLOURS.get(name, NO_VALUE) for name in order]
    else:
        order = found[np.argsort(-np.bincount(numbers), kind="stable")[: len(PALETTE)]].tolist()
        colours = list(PALETTE[: len(order)])
        if len(found) > len(order):
            order, colours = [*order, "other scripts"], [*colours, NO_VALUE]
    code = {name: index for index, name in enumerate(order)}
    coded = np.array([code.get(name, len(order) - 1) for name in found], dtype=np.uint8)[numbers]
    codes = dict(zip(names, np.split(coded, [len(next(iter(names.values())))]), strict=True))
    counts = {space: np.bincount(some, minlength=len(order)).tolist() for space, some in codes.items()}
    return Shades(codes, colours, list(zip(order, colours, strict=True)), counts)


def _quantities(by: str, values: Mapping[str, np.ndarray], theme: str) -> Shades:
    logarithmic = by in _LOGARITHMIC
    with np.errstate(divide="ignore"):  # log of 0, for a token that no target uses or that is not in the text: no value
        scaled = {space: np.log10(some) if logarithmic else some for space, some in values.items()}
    known = np.concatenate([some[np.isfinite(some)] for some in scaled.values()])
    low, high = _span(by, known)
    shares = {space: (some - low) / (high - low) for space, some in scaled.items()}
    codes = {
        space: np.where(np.isfinite(some), 1 + np.nan_to_num(some).clip(0, 1) * (CODES - 1), 0).round().astype(np.uint8)
        for space, some in shares.items()
    }
    first, last = (0.12, 1.0) if theme == "dark" else (0.0, 0.92)
    palette = [NO_VALUE, *sample_colorscale("Viridis", np.linspace(first, last, CODES).tolist())]
    middles = [1 + round((CODES - 1) * (band + 0.5) / BANDS) for band in range(BANDS)]
    names = [*_band_names(by, low, high, logarithmic), NO_NUMBER]
    counts = {space: _banded(some) for space, some in codes.items()}
    return Shades(codes, palette, list(zip(names, [*(palette[i] for i in middles), NO_VALUE], strict=True)), counts)


def _span(by: str, known: np.ndarray) -> tuple[float, float]:
    """Return both ends of the colour scale.

    Scores and overlaps have a scale from 0 to 1. Logarithmic scales end at a power of ten, the others at the 95 %
    quantile, so that outliers do not stretch the scale.
    """
    if by in ("score", "neighbours"):
        return 0.0, 1.0
    if by in _LOGARITHMIC:
        return 0.0, max(1.0, float(np.ceil(known.max(initial=0.0))))
    return 0.0, max(0.01, float(np.quantile(known, 0.95))) if len(known) else 1.0


def _source_counts(view: LexiconView, vectors: TokenVectors, size: int) -> np.ndarray:
    """Return the occurrences of each source token in the text, float (size,).

    It is nan for a token that neither the lexicon nor the vectors count.
    """
    counts = np.full(size, np.nan)
    chosen = view.source_of >= 0
    counts[view.source_of[chosen]] = view.lexicon.table["source_count"].to_numpy()[chosen]
    counts[vectors.ids] = vectors.counts
    return counts


def _band_names(by: str, low: float, high: float, logarithmic: bool) -> list[str]:
    edges = np.linspace(low, high, BANDS + 1)
    shown = [f"{10**e:,.0f}" if logarithmic else f"{e:.2g}" for e in edges.tolist()]
    names = [f"{a} to {b}" for a, b in pairwise(shown)]
    return [*names[:-1], f"{shown[-2]} and more"] if by != "neighbours" else names


def _banded(codes: np.ndarray) -> list[int]:
    """Return the number of points in each band, lowest first, and of those without a value."""
    bands = np.minimum((codes[codes > 0].astype(int) - 1) * BANDS // (CODES - 1), BANDS - 1)
    return [*np.bincount(bands, minlength=BANDS).tolist(), int((codes == 0).sum())]
