"""Colours of the maps: a code for each point, a palette for the codes, and a legend in words.

Every colouring becomes one byte per point and a palette, and points without a value have a separate colour in both
themes. Categories use Okabe and Ito's palette, which is distinct with colour-vision deficiency; quantities use Viridis
without the end that is too close to the background. Each class is counted, so that the legend is a table too. No
widgets here.
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
from tokalign_lab.vocabulary import Vocabulary

from ..common.state import SPACES
from ..lexicon.view import LexiconView

MEASURED = 20_000  # tokens whose neighbour overlap is measured, the most frequent: all would take minutes
WORDS = {
    "origin": "Origin", "script": "Script", "score": "Score", "margin": "Margin",
    "hubness": "Hubness (tokens that chose the source)", "frequency": "Frequency in the text",
    "neighbours": f"Neighbour overlap ({MEASURED:,} most frequent target tokens)",
}  # fmt: skip
NOTHING = "no target token uses it"
NO_NUMBER = "no value"
CODES = 255  # of a quantity; 0 is a point without a value
BANDS = 5  # classes that a quantity is counted in
_LOGARITHMIC = ("hubness", "frequency")
_CHUNK = 2000  # of them between two checks whether the result is still wanted


@dataclass(frozen=True)
class Shades:
    """Colours of both maps' points.

    Attributes
    ----------
    codes : for each space, uint8 (n,), place of each point's colour in the palette
    palette : CSS colours
    classes : (name, colour) of each class, in the order of `counts`
    counts : for each space, how many points are in each class
    """

    codes: dict[str, np.ndarray]
    palette: list[str]
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
        self._origins = {space: table["origin"].to_numpy(object) for space, table in tables.items()}
        self._scripts: dict[str, dict[int, str]] = {space: {} for space in SPACES}
        highest = max(view.source_of.max(initial=-1), vectors["source"].ids.max(initial=-1))
        size = max(len(view.lexicon.reverse), int(highest) + 1)
        chosen = view.source_of[view.source_of >= 0]
        self.chosen_by = np.bincount(chosen, minlength=size)
        self.best_target = _best_targets(view, size)
        self._counts = {"source": _source_counts(view, vectors["source"], size), "target": view.count.astype(float)}

    def shades(self, by: str, theme: str = "light") -> Shades:
        """Colour all tokens that have a vector; both maps have one palette."""
        ids = {space: some.ids for space, some in self._vectors.items()}
        if by in ("origin", "script"):
            return _categories(by, {space: self._names(by, space, some) for space, some in ids.items()})
        return _quantities(by, {space: self.values(by, space, some) for space, some in ids.items()}, theme)

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

    def unmeasured(self, by: str) -> list[np.ndarray]:
        """Target tokens whose value has to be computed first, in parts that take seconds."""
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

    def _names(self, by: str, space: str, ids: np.ndarray) -> np.ndarray:
        if by == "script":
            return np.array([self.script(space, i) for i in ids.tolist()], dtype=object)
        names = self._origins[space].take(ids, mode="clip")
        names[(ids >= len(self._origins[space])) | (names == "hole")] = NOTHING
        return names


def _best_targets(view: LexiconView, size: int) -> np.ndarray:
    """Return for each source the best-scored target among those that chose it, int64 (size,); -1 for none."""
    best = np.full(size, -1, dtype=np.int64)
    chosen = np.flatnonzero(view.source_of >= 0)
    order = np.lexsort((-chosen, np.nan_to_num(view.score[chosen], nan=-np.inf)))
    ranked = chosen[order]
    best[view.source_of[ranked]] = ranked  # the best is written last and stays
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
    code = {name: place for place, name in enumerate(order)}
    coded = np.array([code.get(name, len(order) - 1) for name in found], dtype=np.uint8)[numbers]
    codes = dict(zip(names, np.split(coded, [len(next(iter(names.values())))]), strict=True))
    counts = {space: np.bincount(some, minlength=len(order)).tolist() for space, some in codes.items()}
    return Shades(codes, colours, list(zip(order, colours, strict=True)), counts)


def _quantities(by: str, values: Mapping[str, np.ndarray], theme: str) -> Shades:
    logarithmic = by in _LOGARITHMIC
    with np.errstate(divide="ignore"):  # of a token that nothing chose, or that the text lacks: it has no value
        scaled = {space: np.log10(some) if logarithmic else some for space, some in values.items()}
    known = np.concatenate([some[np.isfinite(some)] for some in scaled.values()])
    low, high = _span(by, known)
    place = {space: (some - low) / (high - low) for space, some in scaled.items()}
    codes = {
        space: np.where(np.isfinite(some), 1 + np.nan_to_num(some).clip(0, 1) * (CODES - 1), 0).round().astype(np.uint8)
        for space, some in place.items()
    }
    first, last = (0.12, 1.0) if theme == "dark" else (0.0, 0.92)
    palette = [NO_VALUE, *sample_colorscale("Viridis", np.linspace(first, last, CODES).tolist())]
    middles = [1 + round((CODES - 1) * (band + 0.5) / BANDS) for band in range(BANDS)]
    names = [*_band_names(by, low, high, logarithmic), NO_NUMBER]
    counts = {space: _banded(some) for space, some in codes.items()}
    return Shades(codes, palette, list(zip(names, [*(palette[i] for i in middles), NO_VALUE], strict=True)), counts)


def _span(by: str, known: np.ndarray) -> tuple[float, float]:
    """Return the ends of the colour scale: those of a share, else such that one odd value does not take it all."""
    if by in ("score", "neighbours"):
        return 0.0, 1.0
    if by in _LOGARITHMIC:
        return 0.0, max(1.0, float(np.ceil(known.max(initial=0.0))))
    return 0.0, max(0.01, float(np.quantile(known, 0.95))) if len(known) else 1.0


def _source_counts(view: LexiconView, vectors: TokenVectors, size: int) -> np.ndarray:
    """Occurrences of each source token in the text, float (size,); nan where neither lexicon nor vectors have them."""
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
    """Count the codes of each band from the lowest, and those without a value last."""
    bands = np.minimum((codes[codes > 0].astype(int) - 1) * BANDS // (CODES - 1), BANDS - 1)
    return [*np.bincount(bands, minlength=BANDS).tolist(), int((codes == 0).sum())]
