"""Both embedding spaces side by side, in one figure, linked by the lexicon.

A box drawn on one map selects its tokens and lights their partners on the other. PCA is there at once; UMAP is a job in
a process of its own, kept by content, so that the second time it is there at once too.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.files import cache_folder
from tokalign_lab.projection import FIT_ON, METHODS, Projection, cache_path, project, share_a_space
from tokalign_lab.runs.control import runs_root, start
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets.background import WATCHER, Latest, submit
from tokalign_lab.widgets.figures import HIGHLIGHT, NO_VALUE, ORIGIN_COLOURS, coordinates, maps_figure, marker
from tokalign_lab.widgets.lexicon_view import Labels, LexiconView
from tokalign_lab.widgets.map_view import MOST_NAMED, MapView
from tokalign_lab.widgets.panel import Panel, bar, button
from tokalign_lab.widgets.row_table import Column, RowTable
from tokalign_lab.widgets.state import SPACES, LabState
from tokalign_lab.widgets.theme import CONFIG, template

TABLE_ROWS = 12
COLUMNS = (
    Column("target", "Target token", kind="token"),
    Column("source", "Best source token", kind="token"),
    Column("score", "Score", numeric=True),
    Column("origin", "Origin", kind="origin"),
)


class MapPanel(Panel):
    """Two linked maps.

    Parameters
    ----------
    lexicon : links the maps
    source_vectors, target_vectors : what is laid out
    source, target : vocabularies, for readable labels
    drawn : points a map, at most 20,000
    fit_on : tokens that UMAP is fitted on
    view : a `LexiconView` that another panel has made already
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
    ) -> None:
        super().__init__("Embedding maps", "tl-maps", state)
        self.view = view or LexiconView(lexicon, Labels(lexicon, source, target))
        self._vectors = [source_vectors, target_vectors]
        self._fit_on = fit_on
        self._map = MapView(self.view, source_vectors, target_vectors, drawn)
        self._one_space = share_a_space(source_vectors, target_vectors)
        self._method, self._shared = "pca", self._one_space
        self._latest = Latest()
        self._map.place(*project(self._vectors, "pca", self._shared), shared=self._shared)
        self._build(lexicon.provenance)
        self._watch(self._on_selection, "selection", "pins")
        self._watch(self._on_colours, "colour_by")
        self._watch(self._on_new_theme, "theme")
        self._show_table(self._selected())
        self._say()

    def _build(self, provenance: dict[str, Any]) -> None:
        state = self.lab_state
        titles = (f"Source: {provenance['source']['name']}", f"Target: {provenance['target']['name']}")
        points = [self._map.points(space, state.colour_by) for space in SPACES]
        drawn = maps_figure(points[0], points[1], titles, state.colour_by, state.theme)
        self._light(drawn, self._selected())  # before the widget is made: the browser then draws it in one go
        self._link_axes(drawn)
        self.figure = go.FigureWidget(drawn)
        self.figure._config = self.figure._config | CONFIG
        for space, cloud in zip(SPACES, self.figure.data[:2], strict=True):
            cloud.on_selection(self.guarded(lambda _trace, points, _box, space=space: self._drawn_box(space, points)))
            cloud.on_click(self.guarded(lambda _trace, points, _event, space=space: self._drawn_box(space, points)))
            cloud.on_deselect(self.guarded(lambda _trace, _points: state.clear_selection()))
        words = [("Origin", "origin"), ("Score", "score"), ("Frequency in the text", "frequency")]
        self._colour = w.Dropdown(options=words, value=state.colour_by, description="Colour by")
        self._colour.add_class("tl-colour-by")
        self._layout = w.Dropdown(
            options=[*([("One layout for both", True)] if self._one_space else []), ("Each map by itself", False)],
            value=self._shared, description="Layout",
        )  # fmt: skip
        self._colour.observe(self.guarded(lambda change: setattr(state, "colour_by", change["new"])), names="value")
        self._layout.observe(self.guarded(lambda _change: self.lay_out(self._method)), names="value")
        self._methods = {
            "pca": button("Arrange by PCA", lambda: self.lay_out("pca"), "tl-pca", METHODS["pca"]),
            "umap": button("Arrange by UMAP", lambda: self.lay_out("umap"), "tl-umap", METHODS["umap"]),
        }
        clear = button("Clear selection", state.clear_selection, "tl-clear")
        self._status, self._legend, self._chosen = w.HTML(), w.HTML(), w.HTML()
        self._status.add_class("tl-status")
        self._chosen.add_class("tl-chosen")
        self.table = RowTable(COLUMNS, caption="Selected pairs")
        self.table.add_class("tl-selection-table")
        heading = w.HTML(
            "<h3>Embedding maps</h3><div class='tl-note'>Draw a box on either map: its tokens and their partners on "
            "the other map light up. Click a point for one token; double-click an empty place to clear.</div>"
        )
        controls = bar(self._colour, self._layout, *self._methods.values(), clear)
        self._fill([heading, controls, self._status, self.figure, self._legend, self._chosen, self.table])
        self._draw_legend()

    @property
    def selection(self) -> pd.DataFrame:
        """Lexicon rows of what is selected on either map."""
        chosen = self.lab_state.selection
        ids = np.asarray(chosen.ids, dtype=np.int64)
        rows = ids if chosen.space == "target" else self.view.partners("source", ids)
        return self.view.lexicon.table.iloc[rows[(rows >= 0) & (rows < len(self.view.score))]]

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, and how the maps are laid out."""
        return super().state | {"method": self._method, "shared": self._shared}

    def lay_out(self, method: str) -> None:
        """Arrange both maps by "pca" or "umap"; what is not in the cache is worked out in a process of its own."""
        shared = self._layout.value
        self._say(f"Arranging by {method.upper()} …")

        def work(is_current: Any) -> None:
            try:
                path = cache_path(self._vectors, method, shared, self._fit_on, 0)
                if method == "pca" or path.is_file():
                    found = project(self._vectors, method, shared, self._fit_on)
                    if is_current() and not self.closed:
                        self._place(found, method, shared)
                else:
                    self._start_job(method, shared, path)
            except Exception as error:
                self.show_error(error)

        self._latest.submit(work)

    def _start_job(self, method: str, shared: bool, path: Path) -> None:
        """Start, or find running, the job that makes this layout, and follow it."""
        folder = runs_root() / f"project-{method}-{path.stem[:10]}"
        run = RunFolder(folder)
        if not (folder / "run.json").is_file():
            files = self._saved_vectors(path.stem)
            settings = {
                "vectors": files,
                "method": method,
                "shared": shared,
                "fit_on": self._fit_on,
                "seed": 0,
            }
            run = start("project", settings, folder)
        elif run.state != "running":
            run.start(resume=True)

        def look() -> bool:
            if self.closed:
                return False
            info = run.reconcile()
            if info["state"] not in ENDED:
                self._say(f"Arranging by {method.upper()} in the background, about half a minute a map …")
                return True
            if info["state"] == "finished":
                submit(self.guarded(lambda: self.lay_out(method)))
            else:
                self._say()
                self.show_error(RuntimeError(f"the {method.upper()} job {run.name} {info['state']}: {info['error']}"))
            return False

        WATCHER.watch(f"maps:{folder}", look)

    def _saved_vectors(self, key: str) -> list[str]:
        folder = cache_folder() / "projections" / f"vectors-{key[:16]}"
        paths = [folder / f"{space}.npz" for space in SPACES]
        for path, vectors in zip(paths, self._vectors, strict=True):
            if not path.is_file():
                vectors.save(path)
        return [str(path) for path in paths]

    def _place(self, found: list[Projection], method: str, shared: bool) -> None:
        self._method, self._shared = method, shared
        self._map.place(found[0], found[1], shared)
        self.clear_error()
        self.refresh()

    def refresh(self) -> None:
        """Draw clouds, selection and colours again."""
        clouds = [self._map.points(space, self.lab_state.colour_by) for space in SPACES]
        with self.figure.batch_update():
            for place, (trace, points) in enumerate(zip(self.figure.data[:2], clouds, strict=True)):
                trace.update(coordinates(points))
                trace.marker = marker(points, self.lab_state.colour_by, place == 1)
            self._link_axes(self.figure)
        self._forget_box()
        self._show_selection()
        self._draw_legend()
        self._say()

    def _drawn_box(self, space: str, points: Any) -> None:
        if points.point_inds:
            self.lab_state.select(space, self._map.drawn[space][list(points.point_inds)].tolist())

    def _on_selection(self, _change: Any) -> None:
        self._show_selection()

    def _on_colours(self, change: Any) -> None:
        self._colour.value = change["new"]
        self.refresh()

    def _on_new_theme(self, change: Any) -> None:
        with self.figure.batch_update():
            self.figure.layout.template = template(change["new"])
            for trace in self.figure.data[2:]:
                trace.marker.color = HIGHLIGHT[change["new"]]

    def _forget_box(self) -> None:
        if self.figure.layout.selections:
            self.figure.layout.selections = ()

    def _selected(self) -> dict[str, np.ndarray]:
        """Return the selected tokens and their partners, by side."""
        chosen = self.lab_state.selection
        ids = {space: np.zeros(0, dtype=np.int64) for space in SPACES}
        if chosen:
            other = "source" if chosen.space == "target" else "target"
            ids[chosen.space] = np.asarray(chosen.ids, dtype=np.int64)
            ids[other] = self.view.partners(chosen.space, ids[chosen.space])
        return ids

    def _light(self, figure: go.Figure, ids: dict[str, np.ndarray]) -> None:
        """Draw selected and pinned tokens on top, and dim the clouds under them."""
        dimmed = any(len(some) for some in ids.values())
        for place, space in enumerate(SPACES):
            pinned = [i for where, i in self.lab_state.pins if where == space]
            points = self._map.highlighted(space, np.union1d(ids[space], pinned).astype(np.int64))
            figure.data[2 + place].update(coordinates(points), text=list(points.colour), customdata=list(points.hover))
            figure.data[2 + place].marker.size = 9 if len(points.ids) <= MOST_NAMED else 6
            # a box makes plotly use the other two, so that all three have to say the same
            seen = {"marker": {"opacity": 0.2 if dimmed else 0.75}}
            figure.data[place].update(seen | {"selected": seen, "unselected": seen})

    def _link_axes(self, figure: go.Figure) -> None:
        """Give both maps one frame where they have one layout, so that a place means the same on both."""
        figure.layout.xaxis2.matches = "x" if self._shared else None
        figure.layout.yaxis2.matches = "y" if self._shared else None

    def _show_selection(self) -> None:
        """Light what is selected and fill the table beside it."""
        ids = self._selected()
        with self.figure.batch_update():
            self._light(self.figure, ids)
        if not self.lab_state.selection:
            self._forget_box()
        self._show_table(ids)

    def _show_table(self, ids: dict[str, np.ndarray]) -> None:
        view = self.view
        rows = [i for i in ids["target"].tolist() if i < len(view.score)]
        cells = [
            [
                view.labels.of("target", i), view.labels.of("source", int(view.source_of[i])) or "–",
                f"{view.score[i]:.3f}" if np.isfinite(view.score[i]) else "–", str(view.origin.iat[i]),
            ]
            for i in rows[:TABLE_ROWS]
        ]  # fmt: skip
        self.table.show(rows[:TABLE_ROWS], cells)
        self.table.layout.display = "" if rows else "none"
        counted = [f"{len(ids[s]):,} {s} token{'s' * (len(ids[s]) != 1)}" for s in SPACES]
        lit = sum(int(np.isin(ids[s], self._map.vectors[s].ids).sum()) for s in SPACES)
        dark = "" if lit == sum(map(len, ids.values())) else f", of which {lit:,} have a vector and are lit"
        more = (
            f" The first {TABLE_ROWS} pairs are below, all in <code>.selection</code>."
            if len(rows) > TABLE_ROWS
            else ""
        )
        told = f"Selected with their partners: {counted[0]} and {counted[1]}{dark}.{more}"
        words = told if len(ids["source"]) or len(ids["target"]) else "Nothing is selected."
        self._chosen.value = f'<div role="status" aria-live="polite">{words}</div>'

    def _draw_legend(self) -> None:
        if self.lab_state.colour_by != "origin":
            grey = f'<span><i class="tl-dot" style="background:{NO_VALUE}"></i>no score</span>'
            self._legend.value = f'<div class="tl-legend">{grey if self.lab_state.colour_by == "score" else ""}</div>'
            return
        present = [name for name in ORIGIN_COLOURS if self.view.origin_counts.get(name) and name != "hole"]
        dots = "".join(
            f'<span><i class="tl-dot" style="background:{ORIGIN_COLOURS[name]}"></i>{name}</span>' for name in present
        )
        none = f'<span><i class="tl-dot" style="background:{NO_VALUE}"></i>nothing inherits from it</span>'
        self._legend.value = f'<div class="tl-legend">{dots}{none}</div>'

    def _say(self, doing: str = "") -> None:
        drawn = [f"{len(self._map.drawn[s]):,} of {len(self._map.vectors[s]):,} {s} tokens" for s in SPACES]
        words = f"{self._method.upper()}: {METHODS[self._method]}. Showing {' and '.join(drawn)} (sampled, seed 0)."
        self._status.value = f'<div class="tl-note" role="status" aria-live="polite">{escape(doing or words)}</div>'
        for method, control in self._methods.items():
            control.disabled = bool(doing) or (method == self._method and self._shared == self._layout.value)
