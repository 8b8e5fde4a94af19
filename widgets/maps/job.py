"""The job that arranges the maps: started once, found again by its content, told in one line, cancelled in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets as w

from tokalign_lab.errors import InputError
from tokalign_lab.files import cache_folder
from tokalign_lab.projection import cache_path, is_known
from tokalign_lab.runs.control import runs_root, start
from tokalign_lab.runs.events import Event
from tokalign_lab.runs.folder import AlreadyRunning, RunFolder
from tokalign_lab.runs.following import RunProgress
from tokalign_lab.runs.words import duration
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.part import Bar, html, said, shown
from ..common.state import SPACES

GRACE_S = 0.5  # a layout has nothing to lose: asked, then terminated, then killed, half a second each


class LayoutJob(Bar):
    """One line with progress, time left and Cancel; hidden while no job runs.

    Parameters
    ----------
    vectors : what is laid out, of the source and of the target
    fit_on : tokens that UMAP is fitted on
    on_done : called when a layout is ready, in no callback's thread
    on_end : called when one has ended without a layout
    """

    def __init__(
        self,
        vectors: Sequence[TokenVectors],
        fit_on: int,
        on_done: Callable[[str, bool], None],
        on_end: Callable[[], None],
    ) -> None:
        self._vectors, self._fit_on = vectors, fit_on
        self._on_done, self._on_end = on_done, on_end
        self._run: RunFolder | None = None
        self._line = html()
        self._bar = w.FloatProgress(min=0.0, max=1.0, layout=w.Layout(width="220px"))
        self._bar.add_class("tl-map-progress")
        self.cancel_button = self.button("Cancel", lambda: self.soon(self.cancel), "tl-map-cancel", "Stop this job")
        super().__init__([self._bar, self.cancel_button, self._line])
        self.add_class("tl-map-job")
        shown(self, False)

    def cached(self, method: str, shared: bool) -> bool:
        """Whether the layout is there already; `InputError` where it can never be."""
        return is_known(self._vectors, method, shared, self._fit_on)

    def _path(self, method: str, shared: bool) -> Path:
        return cache_path(self._vectors, method, shared, self._fit_on, 0)

    def begin(self, method: str, shared: bool) -> None:
        """Start the job that makes a layout, or find it running, and follow it."""
        path = self._path(method, shared)
        run = _run_of(method, path)
        if not (run.path / "run.json").is_file():
            run = start("project", self._settings(method, shared, path.name), run.path)
        elif run.state != "running":
            (run.path / "events.jsonl").unlink(missing_ok=True)  # else the time left is told from the former start
            with suppress(AlreadyRunning):
                run.start()
        self._watch(run, method, shared)

    def find(self, method: str, shared: bool) -> None:
        """Follow the job that makes a layout where a former kernel has left one running."""
        run = _run_of(method, self._path(method, shared))
        if (run.path / "run.json").is_file() and run.state == "running":
            self._watch(run, method, shared)

    def _settings(self, method: str, shared: bool, key: str) -> dict[str, Any]:
        """Save the vectors where the job's process finds them; its settings."""
        folder = cache_folder() / "projections" / f"vectors-{key[:16]}"
        paths = [folder / f"{space}.npz" for space in SPACES]
        for path, vectors in zip(paths, self._vectors, strict=True):
            vectors.save(path)
        files = [str(path) for path in paths]
        return {"vectors": files, "method": method, "shared": shared, "fit_on": self._fit_on, "seed": 0}

    def _watch(self, run: RunFolder, method: str, shared: bool) -> None:
        """Tell how a run stands until it has ended."""
        self.stop()
        self._run, progress = run, RunProgress(run)
        self.follow(_name(run), lambda: self._told(progress, method, shared))

    def _told(self, progress: RunProgress, method: str, shared: bool) -> bool:
        """Show how the run stands; returns whether it goes on."""
        try:
            ended = progress.look()
        except InputError:
            self._end()
            raise
        if not ended:
            self._bar.value = progress.share
            words = job_words(progress.told, time.time())
            self._line.value = said(f"Arranging by {method.upper()}, in a process of its own: {words}")
            shown(self, True)
            return True
        self._end()
        info = progress.info
        if info["state"] == "finished":
            self.soon(lambda: self._on_done(method, shared))
            return False
        self._on_end()
        if info["state"] != "cancelled":
            name = f"the {method.upper()} job {progress.run.name} {info['state']}"
            raise RuntimeError(f"{name}: {info['error']}")
        return False

    def cancel(self) -> None:
        """Stop the job, within two seconds; what it had so far is not kept."""
        run = self._run
        if run is not None:
            self._line.value = said("Stopping …")
            run.cancel(grace=GRACE_S)

    def stop(self) -> None:
        """Follow it no longer; the job goes on."""
        if self._run is not None:
            self.unfollow(_name(self._run))
        self._end()

    def _end(self) -> None:
        self._run = None
        shown(self, False)


def _name(run: RunFolder) -> str:
    return f"maps:{run.path.resolve()}"


def _run_of(method: str, path: Path) -> RunFolder:
    """Return the run of a layout, whether it exists or not: same vectors and parameters, same folder."""
    return RunFolder(runs_root() / f"project-{method}-{path.stem[:10]}")


def job_words(told: list[Event], now: float) -> str:
    """Say what the job does and about how long it will take, from its progress events."""
    if not told:
        return "starting"
    share, gone = float(told[-1]["share"]), now - told[0]["time"]
    left = f", about {duration(gone / share * (1 - share))} left" if share > 0 else ", usually half a minute a map"
    return f"{told[-1].get('message', '')}{left}"
