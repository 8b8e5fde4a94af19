"""Both embedding spaces side by side, in one figure, linked by the lexicon.

A box on one map selects its tokens, highlights their partners on the other and draws lines between. PCA is there at
once; UMAP is a job in a process of its own, kept by content, so that the second time it is there at once too. What the
figure cannot tell everyone, tables below it do: the pairs, the neighbours in both spaces, the tokens of each colour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.errors import InputError
from tokalign_lab.projection import FIT_ON, Projection, project, share_a_space
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

from ..common.numbers import meanings
from ..common.panel import Panel, mark_html
from ..common.part import Folds, html
from ..common.state import SPACES, LabState
from ..lexicon.view import Labels, LexiconView, opened, vocabularies_of
from .colours import Colouring
from .controls import LayoutJob, MapControls, MapPointer
from .figure import MapFigure, moved
from .notes import MapNotes, NeighbourTables, PairTable
from .view import WHOLE, MapView, Window, marked_tokens, pairs_of, with_partners
from .words import MapWords

SETTLED_S = 0.3  # a map that has not moved for so long is drawn again
HOW_TO = (
    "<div class='tl-note'>Draw a box or a lasso on either map: its tokens and their partners on the other map are "
    "highlighted, with lines between. Click a point for one token; double-click an empty place to clear, or, with zoom "
    "or pan chosen, to see the whole map again.</div>"
)
VERDICTS = {
    True: "Both maps are one space: a token and its partner should be at the same place.",
    False: "Each map has a layout of its own: compare neighbourhoods, not places.",
}


class MapPanel(Panel):
    """Two linked maps.

    Parameters
    ----------
    lexicon : links the maps
    source_vectors, target_vectors : what is laid out
    source, target : vocabularies, for readable labels, bytes and scripts
    drawn : points a map, at most 20,000
    fit_on : tokens that UMAP is fitted on
    view : a `LexiconView` that another panel has made already
    method : "pca" or "umap"
    shared : one layout for both maps; by default where their vectors are in one space
    worst : whether the pairs of the lowest score are marked
    windows : for "source" and "target" what part of the map is in view, as in `state`
    """

    def __init__(
        self,
        lexicon: Lexicon,
        source_vectors: TokenVectors,
        target_vectors: TokenVectors,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        state: LabState | None = None,
        drawn: int = 3000,
        fit_on: int = FIT_ON,
        view: LexiconView | None = None,
        method: str = "pca",
        shared: bool | None = None,
        worst: bool = False,
        windows: dict[str, Any] | None = None,
    ) -> None:
        super().__init__("Embedding maps", "tl-maps", state)
        self.view = view or LexiconView(lexicon, Labels(lexicon, source, target))
        self._vectors = [source_vectors, target_vectors]
        self._vocabularies = {"source": source, "target": target}
        self._fit_on, self._worst = fit_on, worst
        self._map = MapView(self.view, source_vectors, target_vectors, drawn)
        self._colouring = Colouring(self.view, self._map.vectors, self._vocabularies)
        self._words = MapWords(self.view, self._map.vectors, self._vocabularies, self._colouring)
        self._job = LayoutJob(self._vectors, fit_on, self.lab_state, self._on_laid_out)
        self._marked = self._to_mark()
        one_space = share_a_space(source_vectors, target_vectors)
        self._shared = one_space if shared is None else shared
        self._wanted = {space: tuple(windows[space]) for space in SPACES} if windows else None
        self._method = method if method == "pca" or self._job.cached(method, self._shared) else "pca"
        self._build(lexicon.provenance, one_space)
        self._watch(lambda _change: self._show_selection(), "selection")
        self._watch(lambda _change: self._remark(), "pins", "query")
        self._watch(self._on_colours, "colour_by")
        self._watch(self._on_new_theme, "theme")
        self._show_selection()
        self.newest(self._measure, about="colours")
        if method != self._method:
            self.lay_out(method)
        else:
            self.soon(lambda: self._job.find("umap", self._shared))

    @classmethod
    def of_run(
        cls,
        run: RunFolder | Path | str,
        state: LabState | None = None,
        view: LexiconView | None = None,
        alignment: Alignment | None = None,
        **look: Any,
    ) -> MapPanel:
        """See both embedding spaces of an align run; `look` has other arguments of the panel, from `drawn` on.

        Raises `InputError` as `LexiconPanel.of_run` does, and when the recipe makes no vectors.
        """
        run, alignment = opened(run, alignment)
        vectors, lexicon = (alignment.source_vectors, alignment.target_vectors), alignment.lexicon
        if vectors[0] is None or vectors[1] is None:
            raise InputError("This recipe makes no vectors to draw; align with 'anchored' or 'tokalign++'.")
        panel = cls(lexicon, vectors[0], vectors[1], *vocabularies_of(lexicon), state=state, view=view, **look)
        panel.align_run = run
        return panel

    def _build(self, provenance: dict[str, Any], one_space: bool) -> None:
        state = self.lab_state
        source, target = project(self._vectors, self._method, self._shared, self._fit_on)
        self._map.place(source, target, self._shared)
        windows = self._taken_windows()
        self._map.sample(windows, self._always())
        titles = (f"Source: {provenance['source']['name']}", f"Target: {provenance['target']['name']}")
        self._drawing = MapFigure(
            self._map, self._words, self._colouring, titles, windows, self._shared, state.colour_by, state.theme
        )
        self._drawing.mark(self._marked)
        ids = with_partners(self.view, state.selection)
        self._drawing.light(ids)
        self._drawing.join(pairs_of(self.view, ids["target"]))
        self.figure = self._drawing.to_widget()
        self._controls = MapControls(
            state, self.lay_out, lambda: self.lay_out(self._method), self._on_worst,
            one_space or self._shared, self._shared, self._worst,
        )  # fmt: skip
        self._notes = notes = MapNotes(self._map, self._words)
        self.table = PairTable(self.view)
        self.neighbours = NeighbourTables(self.view, self._colouring, lambda s, i: state.select(s, [i], by="maps"))
        about = html("", HOW_TO + meanings(("drawn", "pairs", "hub", "selected")))
        folds = Folds(
            {
                "Layout": ("how the maps are arranged", [self._controls.layout_bar]),
                "Details": ("how to use the maps, tokens by colour, what the numbers mean", [about, notes.classes]),
            }
        )
        self._fill(
            [
                self._head, self._controls, folds, self._job, self.figure, notes.legend, notes.status, notes.card,
                notes.chosen, self.table, self.neighbours,
            ],
            folds,
        )  # fmt: skip
        self._describe()
        self.mark(mark_html(provenance.get("recorded", "")))
        pointer = MapPointer(self._map, self._drawing, notes.show_token, partial(state.select, by="maps"))
        pointer.listen(self.figure, self.guarded, state.clear_selection, self._on_axes)

    @property
    def selection(self) -> pd.DataFrame:
        """Lexicon rows of the tokens selected on either map."""
        rows = with_partners(self.view, self.lab_state.selection)["target"]
        return self.view.lexicon.table.iloc[rows[rows < len(self.view.score)]]

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the layout of the maps, the visible window, and the marked tokens."""
        return super().state | self._own_state()

    def _own_state(self) -> dict[str, Any]:
        windows = {space: list(window) for space, window in self._drawing.windows.items()}
        own = {"method": self._method, "shared": self._shared, "worst": self._worst}
        return own | {"windows": None if all(tuple(window) == WHOLE for window in windows.values()) else windows}

    def _call(self) -> list[str]:
        named = [f"{space}={space}" for space, vocabulary in self._vocabularies.items() if vocabulary is not None]
        settings = {"drawn": self._map.at_most, "fit_on": self._fit_on, **self._own_state()}
        given = ["lexicon", "source_vectors", "target_vectors", *named] if self.align_run is None else []
        return [*given, *(f"{name}={value!r}" for name, value in settings.items())]

    def lay_out(self, method: str) -> None:
        """Arrange both maps by "pca" or "umap"; one that is not in the cache is computed in a process of its own."""
        shared = self._controls.layouts.value
        self._say(f"Arranging by {method.upper()} …")

        def work(_wanted: object) -> list[Projection] | None:
            if method != "pca" and not self._job.cached(method, shared):
                self._job.begin(method, shared)
                self._say()
                return None
            return project(self._vectors, method, shared, self._fit_on)

        def show(found: list[Projection] | None) -> None:
            if found is not None:
                self._job.forget()
                self._place(found, method, shared)

        self.newest(work, show, self._say, about="layout")

    def _on_laid_out(self, method: str, shared: bool) -> None:
        if not self.closed:
            self._controls.layouts.value = shared
            self.lay_out(method)

    def _place(self, found: list[Projection], method: str, shared: bool) -> None:
        self._method, self._shared = method, shared
        self._map.place(found[0], found[1], shared)
        self._drawing.look(self._taken_windows(), shared)
        self._keep_look("maps", self._own_state())
        self.clear_error()
        self.refresh()

    def _taken_windows(self) -> dict[str, Window]:
        """Windows that the panel was asked to open with, once that layout is there; else all of both maps."""
        wanted, self._wanted = self._wanted, None
        return wanted or dict.fromkeys(SPACES, WHOLE)

    def refresh(self) -> None:
        """Sample and draw everything again."""
        self._redraw(0.0)

    def _redraw(self, wait_s: float) -> None:
        """Draw the visible window again, outside of the callback; earlier requests are dropped."""

        def work(is_current: Callable[[], bool]) -> None:
            time.sleep(wait_s)
            if not is_current():
                return
            self._map.sample(self._drawing.windows, self._always())
            self._drawing.draw()
            self._drawing.mark(self._marked)
            self._show_selection()
            self._describe()
            self._measure(is_current)

        self.newest(work, about="points")

    def _measure(self, is_current: Callable[[], bool]) -> None:
        """Work out what the colouring still needs, part by part, and colour again when it is there."""
        by = self._drawing.colour_by
        parts = self._colouring.unmeasured(by, self._map.drawn)
        for done, ids in enumerate(parts):
            if not is_current():
                return
            self._say(f"Comparing the neighbours of the drawn tokens, {done / len(parts):.0%} done …", busy=False)
            self._colouring.measure(ids)
        if parts and is_current():
            self._drawing.recolour()
            self._describe()

    def _always(self) -> dict[str, np.ndarray]:
        return {space: np.concatenate([ids[space] for ids in self._marked.values()]) for space in SPACES}

    def _remark(self) -> None:
        self._controls.follow_state()

        def work(is_current: Callable[[], bool]) -> None:
            time.sleep(SETTLED_S)
            if is_current():
                self._mark()

        self.newest(work, about="points")

    def _mark(self) -> None:
        before, self._marked = self._marked, self._to_mark()
        if any(not np.array_equal(before[k][s], ids[s]) for k, ids in self._marked.items() for s in SPACES):
            self.refresh()

    def _to_mark(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the marked tokens; an invalid expression is shown as an error and marks nothing."""
        self.clear_error()
        try:
            return marked_tokens(self.view, self.lab_state, self._worst)
        except InputError as error:
            self.show_error(error)
            return marked_tokens(self.view, LabState(pins=self.lab_state.pins), self._worst)

    def _on_worst(self) -> None:
        self._worst = self._controls.worst.value
        self._keep_look("maps", self._own_state())
        self._remark()

    def _on_colours(self, change: Any) -> None:
        self._controls.follow_state()
        self._drawing.colour_by = change["new"]

        def work(is_current: Callable[[], bool]) -> None:
            self._drawing.recolour()
            self._describe()
            self._measure(is_current)

        self.newest(work, about="colours")

    def _on_new_theme(self, _change: Any) -> None:
        def work(_is_current: Callable[[], bool]) -> None:
            self._drawing.set_theme(self.lab_state.theme)
            self._describe()

        self.newest(work, about="theme")

    def _on_axes(self, told: dict[str, Any]) -> None:
        windows = moved(self._drawing.windows, told, self._shared)
        if windows != self._drawing.windows:
            self._drawing.windows = windows
            self._keep_look("maps", self._own_state())
            targets = with_partners(self.view, self.lab_state.selection)["target"]
            self._drawing.join(pairs_of(self.view, targets))
            self._redraw(SETTLED_S)

    def _show_selection(self) -> None:
        """Highlight the selection and fill the tables; up to 20,000 tokens, so not in the callback."""

        def work(is_current: Callable[[], bool]) -> None:
            chosen = self.lab_state.selection
            ids = with_partners(self.view, chosen)
            self._drawing.light(ids)
            pairs = pairs_of(self.view, ids["target"])
            drawn = self._drawing.join(pairs)
            self.table.fill(ids["target"].tolist())
            self._notes.selected(ids, self._drawing.lit, len(pairs), drawn)
            self._write_head()
            if chosen:
                self._notes.show_token(chosen.space, chosen.ids[0])
            if is_current():
                self.neighbours.fill(chosen)

        self.newest(work, about="selection")

    def _describe(self) -> None:
        """Write the legend, its table and the status line."""
        self._notes.describe(self._drawing.shades, self._drawing.colour_by, self._marked)
        self._say()

    def _say(self, doing: str = "", busy: bool = True) -> None:
        self._notes.say(self._method, doing)
        self._controls.arranged(self._method, self._shared, bool(doing) and busy)
        self._write_head()

    def _write_head(self) -> None:
        most = int(np.bincount(self.view.source_of[self.view.source_of >= 0]).max(initial=0))
        ids = with_partners(self.view, self.lab_state.selection)
        numbers = {
            "drawn": sum(map(len, self._map.drawn.values())),
            "pairs": self.view.origin_counts.get("aligned", 0),
            "hub": most,
            "selected": sum(map(len, ids.values())),
        }
        self.headline("Embedding maps", VERDICTS[self._shared], [(key, f"{n:,}") for key, n in numbers.items()])
