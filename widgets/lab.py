"""The lab: every panel over one view and one folder of runs.

As tabs, where you start each step yourself:

    Lab()

or step by step, one panel per cell, in the order of the work:

    lab = Lab()
    lab.pair_picker()
    alignment = lab.align()
    lab.lexicon_panel()
    lab.maps()
    lab.rearrange()
    lab.tune()

Each step is a run in a separate process. A run is named by its settings, so the same request finds it again. So every
cell can be run again at any time, and a restarted kernel finds all earlier results.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets as w

from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.errors import InputError
from tokalign_lab.report import write_run_report
from tokalign_lab.runs.chain import STEPS, Chain
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_chains

from .common.background import later
from .common.job import JobPanel
from .common.panel import Panel
from .common.state import LabState
from .compare.panel import ComparePanel
from .lab_panels import LabPanels, fast
from .lexicon.diagnosis import DiagnosisPanel
from .lexicon.panel import LexiconPanel
from .maps.panel import MapPanel
from .pair.picker import PairPicker
from .runs.panel import RunsPanel
from .training.panel import TrainingPanel

WARM_UP_S = 3.0  # wait after a panel opens: its own background work goes first
P = TypeVar("P", bound=Panel)

_open_panels: dict[tuple[str, str], Panel] = {}  # one per kind and lab folder, over all cells of this kernel


def runs_folder() -> Path:
    """$TOKALIGN_RUNS, else `runs` next to the `notebooks` folder that a notebook is in or below, else `runs` here."""
    given = os.environ.get("TOKALIGN_RUNS")
    if given:
        return Path(given)
    here = Path.cwd()
    inside = next((place for place in (here, here.parent) if place.name == "notebooks"), None)
    return (here if inside is None else inside.parent) / "runs"


class Lab:
    """All steps from a pair of tokenizers to a tuned model.

    Parameters
    ----------
    source : the model: catalogue name, folder or hub id; by default the one of the last time here
    target : its new tokenizer
    runs : folder for runs and for the view (`lab.json`)
    """

    def __init__(self, source: str | None = None, target: str | None = None, runs: Path | str | None = None) -> None:
        self.runs = Path(runs) if runs is not None else runs_folder()
        os.environ["TOKALIGN_RUNS"] = str(self.runs.resolve())  # the command line and background jobs look there too
        self.lab_state = LabState(self.runs / "lab.json")
        if source is not None:
            self.lab_state.source = source
        if target is not None:
            self.lab_state.target = target
        self.work = Chain(self.runs, self.lab_state)
        self.panels = LabPanels(self.work, self.lab_state)

    def _ipython_display_(self) -> None:
        """Show everything as tabs, when the lab is the last line of a cell."""
        from IPython.display import display

        display(self.tabs())  # type: ignore[no-untyped-call]

    @property
    def state(self) -> dict[str, Any]:
        """The view as plain values."""
        return self.lab_state.to_dict()

    @property
    def tune_defaults(self) -> dict[str, Any]:
        """Initial values of the form for tuning."""
        return {"steps": 120, "sequence_length": 64, "batch_size": 2} if fast() else {"steps": 200}

    @property
    def alignment(self) -> Alignment | None:
        """The last alignment, if it has finished."""
        return self.panels.aligned()[0] if self.work.finished("align") else None

    def tabs(self) -> Panel:
        """Return everything in one panel with tabs; what a cell shows that ends in the lab itself."""
        from .lab_tabs import LabTabs

        return self._opened("lab", LabTabs(self))

    def look_at_recorded(self, chain: dict[str, RunFolder] | None = None) -> None:
        """Look at a recorded run instead of your own; nothing is computed, and your own runs do not change.

        Raises `InputError` when the package has none.

        Parameters
        ----------
        chain : the runs to look at, one of `runs.gallery.recorded_chains()`; the first of them when not given
        """
        chain = chain or next(iter(recorded_chains()), None)
        if chain is None:
            raise InputError("This installation has no recorded runs.")
        if not self.work.shows_recorded:
            self.lab_state.own_work = self.lab_state.work
        self.lab_state.reset_view({step: chain[step].name for step in STEPS}, tab="recovery")

    def look_at_own(self) -> None:
        """Look at your own runs again."""
        self.lab_state.reset_view(self.lab_state.own_work, tab="pair")

    def pair_picker(self) -> PairPicker:
        """Choose the pair and compare both tokenizers on your own text."""
        return self._opened("pair", self.panels.pair())

    def align(
        self,
        text: str | Sequence[str] = "default",
        recipe: str = "anchored",
        max_bytes: int | None = None,
        seed: int = 0,
    ) -> Alignment:
        """Learn the lexicon from a text tokenised both ways; waits, with a bar, for its job.

        Raises `InputError` when the job cannot do what was asked; its own sentence.

        Parameters
        ----------
        text : "default", or paths, folders, `hub:` names
        recipe : a name of `tokalign_lab.alignment.recipes.RECIPES`
        max_bytes : use only so much of the text
        """
        texts = [text] if isinstance(text, str) else list(text)
        run = self.work.align(text=texts, recipe=recipe, max_bytes=max_bytes, seed=seed)
        _wait(run, "align")
        return self.panels.aligned()[0]

    def lexicon_panel(self) -> LexiconPanel:
        """Inspect the lexicon of the last `align`."""
        return self._opened("lexicon", self.panels.lexicon())

    def maps(self) -> MapPanel:
        """See both embedding spaces of the last `align`."""
        return self._opened("maps", self.panels.maps())

    def rearrange(self, calibrate: bool = True) -> JobPanel:
        """Give the source model its new rows by the last lexicon; a job, watched while the next cells run.

        `calibrate`: also shift its logits to match the token frequencies in the aligned text and in the source model's
        predictions. This takes about a minute and recovers much without training. If the model cannot be calibrated, it
        is made without calibration.
        """
        return self._opened("rearrange", self.panels.rearranging(self.work.rearrange(calibrate)))

    def tune(self, steps: int = 200, restart: bool = False, **settings: Any) -> TrainingPanel:
        """Tune the rearranged model, and watch; returns immediately.

        The same settings find the same run, whether it is running or done. A cancelled or failed run can be resumed in
        the panel, or restarted with `restart=True`.

        Parameters
        ----------
        steps : optimiser steps
        restart : begin again when the run has ended
        settings : fields of `tokalign_lab.adaptation.settings.AdaptSettings`
        """
        return self._opened("tune", self.panels.training(self.work.tune(steps, restart, **settings)))

    def diagnosis(self) -> DiagnosisPanel:
        """Find out why the pair of the last `align` is poor, if it is."""
        return self._opened("diagnosis", self.panels.diagnosis())

    def compare(self, other: Path | str | RunFolder | None = None) -> ComparePanel:
        """Compare the last `align` with another run of the pair; the newest other one when not given."""
        return self._opened("compare", self.panels.compare(other))

    def runs_panel(self) -> RunsPanel:
        """See all runs of this lab's folder."""
        return self._opened("runs", self.panels.runs())

    def report(self, path: Path | str | None = None) -> Path:
        """Write one HTML file about the last `align` and its tuning runs; in its run's folder by default.

        About a recorded run it is written into the folder of runs.
        """
        run, tuned = self.panels.align_run(), self.work.find("adapt")
        followed = [tuned] if tuned is not None else []
        reference = self.work.reference(tuned) if tuned is not None else None
        place = self.runs / f"{run.name}-report.html" if run.recorded else run.path / "report.html"
        return write_run_report(Path(path or place), run, followed, reference)

    def close(self) -> None:
        """Close all panels of this lab."""
        for key in [key for key in _open_panels if key[1] == self._place]:
            _open_panels.pop(key).close()

    @property
    def _place(self) -> str:
        return str(self.runs.resolve())

    def _opened(self, kind: str, panel: P) -> P:
        """Close the panel from an earlier run of this cell, so that only one panel of each kind is open."""
        former = _open_panels.pop((kind, self._place), None)
        if former is not None:
            former.close()
        _open_panels[kind, self._place] = panel
        later(_warm_up, WARM_UP_S)
        return panel


def _warm_up() -> None:
    """Import the modules of the first figures, which takes three seconds."""
    for module in ("plotly.graph_objs._figurewidget", "jscatter"):
        importlib.import_module(module)


def _wait(run: RunFolder, kind: str) -> None:
    """Wait for a run to finish, with a progress bar; an interrupt of the cell leaves the run going.

    Raises `InputError` when it ended otherwise; its own sentence.
    """
    from IPython.display import display

    if run.state != "finished":
        bar = w.FloatProgress(min=0.0, max=1.0, description=kind, layout=w.Layout(width="60%"))
        words = w.Label(value="starting in a separate process …")
        box = w.HBox([bar, words])
        display(box)  # type: ignore[no-untyped-call]

        def progress(share: float, message: str) -> None:
            bar.value, words.value = share, message

        run.wait(progress)
        box.close()
    if run.state != "finished":
        raise InputError(run.info()["error"] or f"The run {run.name} was {run.state}; run the cell again.")
