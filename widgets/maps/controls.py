"""The controls of the maps, and the run that computes their layout.

Controls change the shared state or call the panel, and they show the shared state. A layout's run is found again by its
vectors and parameters, so that no layout is computed twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w

from tokalign_lab.files import cache_folder
from tokalign_lab.projection import METHODS, cache_path, is_known
from tokalign_lab.runs.control import runs_root, start
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import AlreadyRunning, RunFolder
from tokalign_lab.runs.folding import RunView
from tokalign_lab.runs.words import duration
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.job import RunBox
from ..common.part import Bar, bar, shown
from ..common.state import SPACES, LabState
from .colours import WORDS


class MapControls(Bar):
    """A bar of controls; those of the layout are in `layout_bar`.

    Parameters
    ----------
    state : the shared view
    lay_out : called with the name of a method to arrange both maps by
    on_layout, on_worst : called when the user changes "Layout" or "Mark the worst"
    on_whole : called to show all of both maps
    one_space : whether the vectors of both maps are in one space, so that one layout for both is possible
    shared, worst : initial values of "Layout" and "Mark the worst"
    """

    def __init__(
        self,
        state: LabState,
        lay_out: Callable[[str], None],
        on_layout: Callable[[], None],
        on_worst: Callable[[], None],
        on_whole: Callable[[], None],
        one_space: bool,
        shared: bool,
        worst: bool,
    ) -> None:
        self._state = state
        self.colour = self.menu(
            "Colour by", lambda by: setattr(state, "colour_by", by),
            options=[(name, key) for key, name in WORDS.items()], value=state.colour_by,
            tooltip="Meaning of the points' colours",
        )  # fmt: skip
        self.layouts = self.menu(
            "Layout", lambda _shared: on_layout(), value=shared,
            options=[*([("One layout for both", True)] if one_space else []), ("Each map by itself", False)],
            tooltip="One layout: partners should have the same position; each by itself: compare neighbourhoods",
        )  # fmt: skip
        self.search = self.entry(
            "Search", self._on_search, value=state.query.text, continuous_update=False,
            placeholder="a token, then Enter", tooltip="Mark tokens with this text", layout={"width": "300px"},
        )  # fmt: skip
        self.worst = self.control(
            w.ToggleButton, "Mark the worst", lambda _worst: on_worst(), value=worst,
            tooltip="Mark the 50 pairs with the lowest score",
        )  # fmt: skip
        self.worst.layout.width = "auto"
        self.methods = {
            name: self.button(f"Arrange by {name.upper()}", partial(lay_out, name), METHODS[name])
            for name in ("pca", "umap")
        }
        clear = self.button("Clear selection", state.clear_selection, "Remove all highlights")
        whole = self.button("Whole maps", on_whole, "Show all of both maps again")
        self.layout_bar = bar(self.layouts, *self.methods.values())
        super().__init__([self.colour, self.search, self.worst, clear, whole])

    def _on_search(self, text: str) -> None:
        if text != self._state.query.text:
            self._state.query = replace(self._state.query, text=text)

    def follow_state(self) -> None:
        """Update the controls from the state."""
        with self.quiet():
            self.colour.value = self._state.colour_by
            self.search.value = self._state.query.text

    def arranged(self, method: str, shared: bool, busy: bool) -> None:
        """Disable the button of the current layout, or all layout buttons while a layout is being computed."""
        for name, control in self.methods.items():
            control.disabled = busy or (name == method and shared == self.layouts.value)


class LayoutJob(RunBox):
    """The run that computes a layout: progress, remaining time and Cancel; hidden while none is running.

    Parameters
    ----------
    vectors : source and target vectors
    fit_on : number of tokens that UMAP is fitted on
    state : shared view, for the panel of the run
    on_done : called in a background thread when a layout is ready
    """

    def __init__(
        self, vectors: Sequence[TokenVectors], fit_on: int, state: LabState, on_done: Callable[[str, bool], None]
    ) -> None:
        super().__init__(state)
        self._vectors, self._fit_on, self._on_done = vectors, fit_on, on_done
        self.children = (self.job,)
        self.add_class("tl-map-job")
        self.forget()

    def cached(self, method: str, shared: bool) -> bool:
        """Whether the layout is in the cache. Raises `InputError` if it cannot be computed."""
        return is_known(self._vectors, method, shared, self._fit_on)

    def _path(self, method: str, shared: bool) -> Path:
        return cache_path(self._vectors, method, shared, self._fit_on, 0)

    def begin(self, method: str, shared: bool) -> None:
        """Start the run that computes a layout, or find it if it is running, and follow it."""
        path = self._path(method, shared)
        run = _run_of(method, path)
        if not run.exists:
            run = start("project", self._settings(method, shared, path.name), run.path)
        elif run.state != "running":
            # else the remaining time would be estimated from the previous start
            (run.path / "events.jsonl").unlink(missing_ok=True)
            with suppress(AlreadyRunning):
                run.start()
        self._show(run, method, shared)

    def find(self, method: str, shared: bool) -> None:
        """Follow the run that computes a layout, if an earlier kernel started it and it is still running."""
        run = _run_of(method, self._path(method, shared))
        if run.exists and run.state == "running":
            self._show(run, method, shared)

    def _settings(self, method: str, shared: bool, key: str) -> dict[str, Any]:
        """Save the vectors for the process of the run; return the settings of the run."""
        folder = cache_folder() / "projections" / f"vectors-{key[:16]}"
        paths = [folder / f"{space}.npz" for space in SPACES]
        for path, vectors in zip(paths, self._vectors, strict=True):
            vectors.save(path)
        files = [str(path) for path in paths]
        return {"vectors": files, "method": method, "shared": shared, "fit_on": self._fit_on, "seed": 0}

    def _show(self, run: RunFolder, method: str, shared: bool) -> None:
        """Follow a run until its layout is ready, or it is cancelled."""

        def done(_run: RunFolder) -> None:
            self.forget()
            self.soon(lambda: self._on_done(method, shared))

        def doing(view: RunView) -> str:
            return job_words(view.progress, time.time())

        shown(self, True)
        title = f"Arranging by {method.upper()}, in a separate process"
        self.watch_run(run, title, "", done, self.forget, doing=doing)

    def forget(self) -> None:
        """Remove the run from the page; the run itself continues."""
        self.leave_run()
        shown(self, False)


def _run_of(method: str, path: Path) -> RunFolder:
    """Return the run of a layout, which may not exist yet; its folder depends on the vectors and parameters only."""
    return RunFolder(runs_root() / f"project-{method}-{path.stem[:10]}")


def job_words(events: list[Event], now: float) -> str:
    """Return the current activity and the estimated remaining time, from the run's progress events."""
    if not events:
        return "starting"
    share, gone = float(events[-1]["share"]), now - events[0]["time"]
    left = f", about {duration(gone / share * (1 - share))} left" if share > 0 else ", usually half a minute per map"
    return f"{events[-1].get('message', '')}{left}"
