"""Both embedding spaces side by side, linked by the lexicon.

Drawing a box on one map selects its tokens, highlights their partners on the other map, and draws lines between them.
PCA is shown immediately. UMAP runs in a separate process; its result is cached for the next time. Tables below the maps
list the selected pairs, the neighbours in both spaces and the number of tokens of each colour.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.errors import InputError
from tokalign_lab.projection import FIT_ON, METHODS, Projection, project, share_a_space
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

from ..common.numbers import meanings
from ..common.panel import Panel, mark_html
from ..common.part import Folds, bar, html
from ..common.state import SPACES, LabState
from ..lexicon.view import Labels, LexiconView, opened, vocabularies_of
from .colours import WORDS, Colouring
from .figure import WHOLE, Ids, MapFigure, View
from .layout_job import LayoutJob
from .notes import MapNotes, NeighbourTables, PairTable
from .view import MapView, marked_tokens, pairs_of, with_partners
from .words import MapWords

SETTLED_S = 0.3  # results of a search are marked when the query has not changed for this long
HOW_TO = (
    "<div class='tl-note'>Draw a box on either map: its tokens and their partners on the other map are highlighted, "
    "with lines between. Click a point for one token; double-click to clear. The buttons next to a map choose a lasso "
    "instead of the box, or pan and zoom by dragging and by the wheel.</div>"
)
VERDICTS = {
    True: "Both maps share one layout: a token and its partner should have the same position.",
    False: "Each map has its own layout: compare neighbourhoods, not positions.",
}


class MapPanel(Panel):
    """Two linked maps.

    Parameters
    ----------
    lexicon : defines the partners of tokens
    source_vectors, target_vectors : the vectors to draw
    source, target : vocabularies, for readable labels, bytes and scripts
    fit_on : number of tokens that UMAP is fitted on
    view : a `LexiconView` made by another panel, to use again; its vocabularies replace `source` and `target`
    method : "pca" or "umap"
    shared : whether both maps share one layout; by default, if their vectors are in one space
    worst : whether to mark the pairs with the lowest score
    views : for "source" and "target", the part of the map that is in view, as in `state`
    """

    VIEW_OPTIONS = ("method", "shared", "worst", "views")  # stored with the lab's view

    def __init__(
        self,
        lexicon: Lexicon,
        source_vectors: TokenVectors,
        target_vectors: TokenVectors,
        source: Vocabulary | None = None,
        target: Vocabulary | None = None,
        state: LabState | None = None,
        fit_on: int = FIT_ON,
        view: LexiconView | None = None,
        method: str = "pca",
        shared: bool | None = None,
        worst: bool = False,
        views: Mapping[str, View] | None = None,
    ) -> None:
        super().__init__("Embedding maps", "tl-maps", state)
        self.view = view or LexiconView(lexicon, Labels(lexicon, source, target))
        self._vectors = [source_vectors, target_vectors]
        self._fit_on = fit_on
        self._selecting = threading.Lock()  # held while a selection is drawn, so that two are never mixed
        self._map = MapView(self.view, source_vectors, target_vectors)
        self._colouring = Colouring(self.view, self._map.vectors)
        self._words = MapWords(self.view, self._colouring)
        self._job = LayoutJob(self._vectors, fit_on, self.lab_state, self._on_laid_out)
        one_space = share_a_space(source_vectors, target_vectors)
        self._shared = one_space if shared is None else shared
        self._make_controls(one_space or self._shared, worst)
        self._marked = self._to_mark()
        self._wanted = views
        self._method = method if method == "pca" or self._job.cached(method, self._shared) else "pca"
        self._build(lexicon.provenance)
        self._watch(lambda _change: self._show_selection(), "selection")
        self._watch(lambda _change: self._remark(), "pins", "query")
        self._watch(lambda _change: self._show_colours(), "colour_by", "theme")
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
        **options: Any,
    ) -> MapPanel:
        """Open the maps of an align run; `options` are other arguments of the panel, such as `fit_on` or `method`.

        Raises `InputError` as `LexiconPanel.of_run` does, and if the recipe makes no vectors.
        """
        run, alignment = opened(run, alignment)
        vectors, lexicon = (alignment.source_vectors, alignment.target_vectors), alignment.lexicon
        if vectors[0] is None or vectors[1] is None:
            raise InputError("This recipe makes no vectors to draw; align with 'anchored' or 'tokalign++'.")
        panel = cls(lexicon, vectors[0], vectors[1], *vocabularies_of(lexicon), state=state, view=view, **options)
        panel.align_run = run
        return panel

    def _make_controls(self, one_space: bool, worst: bool) -> None:
        """Make the controls; `one_space`: one layout for both maps is possible."""
        state = self.lab_state
        self._colour = self.menu(
            "Colour by", lambda by: setattr(state, "colour_by", by),
            options=[(name, key) for key, name in WORDS.items()], value=state.colour_by,
            tooltip="Meaning of the points' colours",
        )  # fmt: skip
        self._layouts = self.menu(
            "Layout", lambda _shared: self.lay_out(self._method), value=self._shared,
            options=[*([("One layout for both", True)] if one_space else []), ("Each map by itself", False)],
            tooltip="One layout: partners should have the same position; each by itself: compare neighbourhoods",
        )  # fmt: skip
        self._search = self.entry(
            "Search", self._on_search, value=state.query.text, continuous_update=False,
            placeholder="a token, then Enter", tooltip="Mark tokens with this text",
        )  # fmt: skip
        self._worst = self.control(
            w.ToggleButton, "Mark the worst", lambda _worst: self._on_worst(), value=worst,
            tooltip="Mark the 50 pairs with the lowest score", layout={"width": "auto"},
        )  # fmt: skip
        self._methods = {
            name: self.button(f"Arrange by {name.upper()}", partial(self.lay_out, name), METHODS[name])
            for name in ("pca", "umap")
        }
        whole = self.button("Whole maps", self._show_all, "Show all of both maps again")
        self._controls = bar(self._colour, self._search, self._worst, whole)
        self._controls.add_class("tl-map-controls")

    def _build(self, provenance: dict[str, Any]) -> None:
        state = self.lab_state
        source, target = project(self._vectors, self._method, self._shared, self._fit_on)
        self._map.place(source, target, self._shared)
        titles = (f"Source: {provenance['source']['name']}", f"Target: {provenance['target']['name']}")
        self._drawing = MapFigure(
            self._map, self._words, self._colouring, titles, self._taken_views(), self._shared, state
        )
        self._drawing.mark(self._marked)
        ids = with_partners(self.view, state.selection)
        self._drawing.highlight(ids)
        self._drawing.join(pairs_of(self.view, ids["target"]))
        self.figure = self._drawing.widget
        self._notes = notes = MapNotes(self._map, self._words)
        self.table = PairTable(self.view)
        self.neighbours = NeighbourTables(self.view, self._colouring, lambda s, i: state.select(s, [i], by="maps"))
        clear = self.button("Clear selection", state.clear_selection, "Remove all highlights")
        about = html("", HOW_TO + meanings(("points", "pairs", "hub", "selected")))
        folds = Folds(
            {
                "Layout": ("how the maps are arranged", [bar(self._layouts, *self._methods.values())]),
                "Details": ("usage of the maps, tokens by colour, meaning of the numbers", [about, notes.classes]),
            }
        )
        self._fill(
            [
                self._head, self._controls, folds, self._job, self.figure, notes.legend, notes.status, notes.card,
                bar(notes.chosen, clear), self.table, self.neighbours,
            ],
            folds.row,
        )  # fmt: skip
        self._describe()
        self.mark(mark_html(provenance.get("recorded", "")))
        self._drawing.listen(self._on_pick, notes.show_token, self._on_views, self.guarded)

    @property
    def selection(self) -> pd.DataFrame:
        """Lexicon rows of the tokens selected on either map."""
        rows = with_partners(self.view, self.lab_state.selection)["target"]
        return self.view.lexicon.table.iloc[rows[rows < len(self.view.score)]]

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the layout of the maps, the part of them in view, and whether the worst pairs are marked."""
        return super().state | self._own_state()

    def _own_state(self) -> dict[str, Any]:
        views = self._drawing.layer.views
        whole = all(tuple(view) == WHOLE for view in views.values())
        options = (self._method, self._shared, self._worst.value, None if whole else views)
        return dict(zip(self.VIEW_OPTIONS, options, strict=True))

    def _call(self) -> list[str]:
        named = [f"{space}={space}" for space, held in self.view.labels.vocabularies.items() if held is not None]
        settings = {"fit_on": self._fit_on, **self._own_state()}
        given = ["lexicon", "source_vectors", "target_vectors", *named] if self.align_run is None else []
        return [*given, *(f"{name}={value!r}" for name, value in settings.items())]

    def lay_out(self, method: str) -> None:
        """Arrange both maps by "pca" or "umap"; UMAP is computed in a separate process unless it is in the cache."""
        shared = self._layouts.value
        self._show_status(f"Arranging by {method.upper()} …")

        def work(_wanted: object) -> list[Projection] | None:
            if method != "pca" and not self._job.cached(method, shared):
                self._job.begin(method, shared)
                self._show_status()
                return None
            return project(self._vectors, method, shared, self._fit_on)

        def show(found: list[Projection] | None) -> None:
            if found is not None:
                self._job.forget()
                self._place(found, method, shared)

        self.newest(work, show, self._show_status, about="layout")

    def _on_laid_out(self, method: str, shared: bool) -> None:
        self._layouts.value = shared
        self.lay_out(method)

    def _place(self, found: list[Projection], method: str, shared: bool) -> None:
        self._method, self._shared = method, shared
        self._map.place(found[0], found[1], shared)
        self._drawing.move()
        self._drawing.show_views(self._taken_views(), shared)
        self._store_view("maps", self._own_state())
        self.clear_error()
        self.refresh()

    def _taken_views(self) -> Mapping[str, View]:
        """Return the initial views the first time, and later all of both maps."""
        wanted, self._wanted = self._wanted, None
        return wanted or dict.fromkeys(SPACES, WHOLE)

    def refresh(self) -> None:
        """Draw colours, signs and the selection again."""
        self._show_colours()
        self._show_marks()
        self._show_selection()

    def _measure(self, is_current: Callable[[], bool]) -> None:
        """Compute the missing values of the colouring in chunks, then recolour the points."""
        parts = self._colouring.unmeasured(self.lab_state.colour_by)
        for done, ids in enumerate(parts):
            if not is_current():
                return
            self._show_status(f"Comparing the neighbours of tokens, {done / len(parts):.0%} done …", busy=False)
            self._colouring.measure(ids)
        if parts and is_current():
            self._drawing.recolour()
            self._describe()

    def _remark(self) -> None:
        self._follow_state()

        def work(is_current: Callable[[], bool]) -> None:
            time.sleep(SETTLED_S)
            if is_current():
                self._show_marks()

        self.newest(work, about="marks")

    def _show_marks(self) -> None:
        self._marked = self._to_mark()
        self._drawing.mark(self._marked)
        self._describe()

    def _to_mark(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tokens to mark; an invalid regular expression is shown as an error and finds none."""
        self.clear_error()
        try:
            return marked_tokens(self.view, self.lab_state, self._worst.value)
        except InputError as error:
            self.show_error(error)
            return marked_tokens(self.view, LabState(pins=self.lab_state.pins), self._worst.value)

    def _on_worst(self) -> None:
        self._store_view("maps", self._own_state())
        self._remark()

    def _follow_state(self) -> None:
        """Update the controls from the state."""
        with self.quiet():
            self._colour.value = self.lab_state.colour_by
            self._search.value = self.lab_state.query.text

    def _on_search(self, text: str) -> None:
        if text != self.lab_state.query.text:
            self.lab_state.query = replace(self.lab_state.query, text=text)

    def _show_colours(self) -> None:
        self._follow_state()

        def work(is_current: Callable[[], bool]) -> None:
            self._drawing.recolour()
            self._describe()
            self._measure(is_current)

        self.newest(work, about="colours")

    def _on_pick(self, space: str, ids: list[int]) -> None:
        if ids:
            self.lab_state.select(space, ids, by="maps")
        else:
            self.lab_state.clear_selection()

    def _show_all(self) -> None:
        self._drawing.show_views(dict.fromkeys(SPACES, WHOLE), self._shared)

    def _on_views(self) -> None:
        self._store_view("maps", self._own_state())

        def work(is_current: Callable[[], bool]) -> None:
            with self._selecting:
                if is_current():
                    self._join(with_partners(self.view, self.lab_state.selection))

        self.newest(work, about="lines")

    def _show_selection(self) -> None:
        """Highlight the selection and fill the tables in a thread: a box may contain every token."""

        def work(is_current: Callable[[], bool]) -> None:
            with self._selecting:  # a newer selection waits here, and then replaces this one
                if not is_current():
                    return
                chosen = self.lab_state.selection
                ids = with_partners(self.view, chosen)
                self._drawing.highlight(ids)
                self._join(ids)
                self.table.fill(ids["target"])
                self._write_head()
                if chosen:
                    self._notes.show_token(chosen.space, chosen.ids[0])
            if is_current():
                self.neighbours.fill(chosen)

        self.newest(work, about="selection")

    def _join(self, ids: Ids) -> None:
        """Draw lines between the selected pairs that are in view, and show their number."""
        pairs = pairs_of(self.view, ids["target"])
        self._notes.selected(ids, self._drawing.highlighted, len(pairs), self._drawing.join(pairs))

    def _describe(self) -> None:
        """Update the legend, the table of tokens by colour and the status line."""
        self._notes.describe(self._drawing.shades, self.lab_state.colour_by, self._marked)
        self._show_status()

    def _show_status(self, doing: str = "", busy: bool = True) -> None:
        """Show the current work; `busy`: it computes a layout, so that no other can be asked for."""
        self._notes.show_status(self._method, doing)
        here = self._shared == self._layouts.value
        for name, control in self._methods.items():
            control.disabled = (bool(doing) and busy) or (here and name == self._method)
        self._write_head()

    def _write_head(self) -> None:
        most = int(np.bincount(self.view.source_of[self.view.source_of >= 0]).max(initial=0))
        ids = with_partners(self.view, self.lab_state.selection)
        numbers = {
            "points": sum(map(len, self._map.vectors.values())),
            "pairs": self.view.origin_counts.get("aligned", 0),
            "hub": most,
            "selected": sum(map(len, ids.values())),
        }
        self.headline("Embedding maps", VERDICTS[self._shared], [(key, f"{n:,}") for key, n in numbers.items()])
