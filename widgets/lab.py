"""The lab: all panels, with one shared view and one folder of runs.

As tabs, where you start each step by a button:

    Lab()

or step by step, one panel per cell, in the order of the work:

    lab = Lab()
    lab.pair_picker()
    alignment = lab.align()
    lab.lexicon_panel()
    lab.maps()
    lab.rearrange()
    lab.tune()

Each step is a run in a separate process. A step with the same settings finds its earlier run, so every cell can be
rerun at any time, and a restarted kernel finds all earlier results.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets as w

from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.device import fast
from tokalign_lab.errors import InputError
from tokalign_lab.report import write_run_report
from tokalign_lab.runs.chain import STEPS, Chain
from tokalign_lab.runs.control import runs_root
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_chains

from .common.background import later
from .common.job import JobPanel
from .common.panel import Panel
from .common.state import LabState
from .compare.panel import ComparePanel
from .lab_panels import LabPanels
from .lexicon.diagnosis import DiagnosisPanel
from .lexicon.panel import LexiconPanel
from .maps.panel import MapPanel
from .pair.picker import PairPicker
from .runs.panel import RunsPanel
from .training.panel import TrainingPanel

TUNING_STEPS = 100  # a few minutes on two cores
WARM_UP_S = 3.0  # delay after a panel opens, so that its own background work runs first
P = TypeVar("P", bound=Panel)

_open_panels: dict[tuple[str, str], Panel] = {}  # one per kind and lab folder, over all cells of this kernel


def runs_folder() -> Path:
    """Return the folder of the runs.

    This is $TOKALIGN_RUNS if it is set. For a notebook in `notebooks` or in one of its subfolders it is `runs` next to
    `notebooks`. Otherwise it is `runs` in the working directory.
    """
    if os.environ.get("TOKALIGN_RUNS"):
        return runs_root()
    here = Path.cwd()
    inside = next((place for place in (here, here.parent) if place.name == "notebooks"), None)
    return (here if inside is None else inside.parent) / "runs"


class Lab:
    """All steps from a pair of tokenizers to a tuned model.

    Parameters
    ----------
    source : the model: catalogue name, folder or hub id; by default the one last chosen with this folder of runs
    target : its new tokenizer, with the same default
    runs : folder for runs and for the view (`lab.json`)
    """

    def __init__(self, source: str | None = None, target: str | None = None, runs: Path | str | None = None) -> None:
        self.runs = runs_folder() if runs is None else runs_root(runs)
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
        """Initial values of the form for tuning, and the settings of the quick start: a run of a few minutes."""
        if not fast():
            return {"steps": TUNING_STEPS, "evaluate_bytes": 10_000}
        small = {"sequence_length": 32, "batch_size": 1, "evaluate_bytes": 300, "sample_tokens": 4}
        return {"steps": 1000, "patience": 0, **small}  # no measurement ends the run

    @property
    def alignment(self) -> Alignment | None:
        """The last alignment, if it has finished."""
        return self.panels.aligned()[0] if self.work.finished("align") else None

    def tabs(self) -> Panel:
        """Return all panels as tabs; a cell whose last line is the lab shows this."""
        from .lab_tabs import LabTabs

        return self._opened("lab", LabTabs(self))

    def look_at_recorded(self, chain: dict[str, RunFolder] | None = None) -> None:
        """Show a recorded run instead of your own runs, which do not change; nothing is computed.

        Raises `InputError` if the package contains no recorded run.

        Parameters
        ----------
        chain : the runs to show, one of `runs.gallery.recorded_chains()`; the first of them by default
        """
        chain = chain or next(iter(recorded_chains()), None)
        if chain is None:
            raise InputError("This installation has no recorded runs.")
        if not self.work.shows_recorded:
            self.lab_state.own_work = self.lab_state.work
        self.lab_state.reset_view({step: chain[step].name for step in STEPS}, tab="recovery")

    def look_at_own(self) -> None:
        """Show your own runs again."""
        self.lab_state.reset_view(self.lab_state.own_work, tab="pair")

    def pair_picker(self) -> PairPicker:
        """Choose the pair and compare both tokenizers on your own text."""
        return self._opened("pair", self.panels.pair())

    def align(
        self,
        text: str | Path | Sequence[str | Path] = "default",
        recipe: str = "anchored",
        max_bytes: int | None = None,
        seed: int = 0,
    ) -> Alignment:
        """Learn the lexicon from a text tokenised by both tokenizers; shows a progress bar until the run has finished.

        Raises `InputError` with the error message of the run if it does not finish.

        Parameters
        ----------
        text : "default", or paths, folders, `hub:` names
        recipe : a name of `tokalign_lab.alignment.recipes.RECIPES`
        max_bytes : use at most this much of the text
        """
        texts = [str(one) for one in ([text] if isinstance(text, str | Path) else text)]
        run = self.work.align(text=texts, recipe=recipe, max_bytes=max_bytes, seed=seed)
        _wait(run, "align")
        return self.panels.aligned()[0]

    def lexicon_panel(self) -> LexiconPanel:
        """Inspect the lexicon of the last `align`."""
        return self._opened("lexicon", self.panels.lexicon())

    def maps(self) -> MapPanel:
        """Show both embedding spaces of the last `align`."""
        return self._opened("maps", self.panels.maps())

    def rearrange(self, calibrate: bool = True, special_tokens: str | None = None) -> JobPanel:
        """Compute new embedding rows for the source model from the last lexicon, in a run; returns immediately.

        `calibrate`: also shift the logits to match the token frequencies in the text of the alignment and in the source
        model's predictions. This takes about a minute and recovers much without training. If the model cannot be
        calibrated, it is made without calibration.

        `special_tokens`: "keep" adds the source's control tokens, the default for chat models; "target" leaves them
        out, so that a model with the target tokenizer can be the teacher of `tune`.
        """
        return self._opened("rearrange", self.panels.rearranging(self.work.rearrange(calibrate, special_tokens)))

    def tune(self, steps: int = TUNING_STEPS, restart: bool = False, **settings: Any) -> TrainingPanel:
        """Tune the rearranged model in a run, and monitor it; returns immediately.

        The same settings find the same run, whether it is running or finished. A cancelled or failed run can be resumed
        in the panel, or restarted with `restart=True`.

        Parameters
        ----------
        steps : optimiser steps
        restart : start from step 0 if the run has ended
        settings : fields of `tokalign_lab.adaptation.settings.AdaptSettings`
        """
        return self._opened("tune", self.panels.training(self.work.tune(steps, restart, **settings)))

    def diagnosis(self) -> DiagnosisPanel:
        """Check the lexicon of the last `align` for problems, and show what to do about them."""
        return self._opened("diagnosis", self.panels.diagnosis())

    def compare(self, other: Path | str | RunFolder | None = None) -> ComparePanel:
        """Compare the last `align` with another run; by default with the newest other run for the same pair."""
        return self._opened("compare", self.panels.compare(other))

    def runs_panel(self) -> RunsPanel:
        """List all runs in the folder of this lab."""
        return self._opened("runs", self.panels.runs())

    def report(self, path: Path | str | None = None) -> Path:
        """Write one HTML file about the last `align` and the tuning run after it; returns its path.

        The default is the folder of the `align` run; for a recorded run, it is the folder of the runs.
        """
        run, tuned = self.panels.align_run(), self.work.find("adapt")
        tuning_runs = [tuned] if tuned is not None else []
        reference = self.work.reference(tuned) if tuned is not None else None
        default = self.runs / f"{run.name}-report.html" if run.recorded else run.path / "report.html"
        return write_run_report(Path(path or default), run, tuning_runs, reference)

    def close(self) -> None:
        """Close all panels of this lab."""
        for key in [key for key in _open_panels if key[1] == self._folder]:
            _open_panels.pop(key).close()

    @property
    def _folder(self) -> str:
        return str(self.runs.resolve())

    def _opened(self, kind: str, panel: P) -> P:
        """Close the panel from an earlier run of this cell, so that only one panel of each kind is open."""
        former = _open_panels.pop((kind, self._folder), None)
        if former is not None:
            former.close()
        _open_panels[kind, self._folder] = panel
        later(_warm_up, WARM_UP_S)
        return panel


def _warm_up() -> None:
    """Import the modules that the first figures need, which takes three seconds."""
    for module in ("plotly.graph_objs._figurewidget", "jscatter"):
        importlib.import_module(module)


def _wait(run: RunFolder, kind: str) -> None:
    """Wait for a run to finish, with a progress bar; interrupting the cell does not stop the run.

    Raises `InputError` with the error message of the run if it does not finish.
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
