"""The run that computes a layout of the maps.

It is found again by its vectors and parameters, so that no layout is computed twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokalign_lab.files import cache_folder
from tokalign_lab.projection import cache_path, is_known
from tokalign_lab.runs.control import runs_root, start
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import AlreadyRunning, RunFolder
from tokalign_lab.runs.folding import RunView
from tokalign_lab.runs.words import duration
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.job import RunBox
from ..common.part import shown
from ..common.state import SPACES, LabState


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
