"""Build the panels of a lab from its runs and its shared view. The last alignment is loaded once."""

from __future__ import annotations

import threading
from html import escape
from pathlib import Path
from typing import Any

from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.device import fast
from tokalign_lab.errors import InputError
from tokalign_lab.runs.chain import Chain
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_runs
from tokalign_lab.runs.results import lost_result, model_record_of

from .common.job import JobPanel
from .common.numbers import Number
from .common.state import LabState
from .compare.panel import ComparePanel
from .lexicon.diagnosis import DiagnosisPanel
from .lexicon.panel import LexiconPanel
from .lexicon.view import Labels, LexiconView, vocabularies_of
from .maps.panel import MapPanel
from .pair.picker import PairPicker
from .runs.panel import RunsPanel
from .training.panel import TrainingPanel


class LabPanels:
    """Builds the panels of one lab."""

    def __init__(self, work: Chain, lab_state: LabState) -> None:
        self.work, self.lab_state = work, lab_state
        self._loaded: tuple[str, Alignment, LexiconView] | None = None
        self._loading = threading.Lock()

    def align_run(self) -> RunFolder:
        """Return the "align" run that the lab shows. Raises `InputError` if none has finished."""
        run = self.work.finished("align")
        if run is None:
            raise InputError("There is no alignment yet; run lab.align(), or click Run alignment on the tab Pair.")
        return run

    def aligned(self) -> tuple[Alignment, LexiconView]:
        """Return the alignment of `align_run`, loaded once. Raises `InputError` if none has finished."""
        run = self.align_run()
        with self._loading:  # tabs are built in threads, so two may call this at once
            if self._loaded is None or self._loaded[0] != run.name:
                lexicon = (alignment := Alignment.load(run.path / "alignment")).lexicon
                view = LexiconView(lexicon, Labels(lexicon, *vocabularies_of(lexicon)))
                self._loaded = run.name, alignment, view
            return self._loaded[1:]

    def lexicon(self) -> LexiconPanel:
        """Make the inspector of the last alignment."""
        alignment, view = self.aligned()
        return LexiconPanel.of_run(self.align_run(), self.lab_state, view, alignment)

    def maps(self) -> MapPanel:
        """Make the maps of the last alignment. Raises `InputError` if its recipe makes no vectors."""
        alignment, view = self.aligned()
        stored = self.lab_state.looks.get("maps", {})
        options = {name: stored[name] for name in MapPanel.VIEW_OPTIONS if name in stored}
        if fast():
            options["fit_on"] = 500
        return MapPanel.of_run(self.align_run(), self.lab_state, view, alignment, **options)

    def diagnosis(self) -> DiagnosisPanel:
        """Make the diagnosis of the last alignment."""
        return DiagnosisPanel.of_run(self.align_run(), self.lab_state, self.aligned()[0])

    def compare(self, other: Path | str | RunFolder | None = None) -> ComparePanel:
        """Make the comparison of the last alignment with another run."""
        run = self.align_run()
        if other is None:
            listed = [*list_runs(self.work.root), *(recorded_runs() if run.recorded else [])]
            others = [one for one in listed if _same_pair(one, run)]
            other = others[0] if others else run
        return ComparePanel(run, other, state=self.lab_state, runs=self.work.root, on_align=self.work.align_also)

    def runs(self) -> RunsPanel:
        """Make the list of runs."""
        return RunsPanel(self.work.root, self.lab_state)

    def rearranging(self, run: RunFolder) -> JobPanel:
        """Make the progress panel of a "rearrange" run."""
        result = f"the new model is in {run.path / 'model'}"
        if run.recorded:
            result = "the new model is not included"
        elif lost_result(run):
            result = "the new model was deleted"
        return JobPanel(run, "Rearranging the model", result, self.lab_state, made=model_verdict)

    def training(self, run: RunFolder) -> TrainingPanel:
        """Make the monitor of an "adapt" run, with the source model as a reference."""
        options = self.lab_state.looks.get("training", {})
        self.work.reference(run)  # measures the reference if it is missing; the panel finds the run
        return TrainingPanel(run, state=self.lab_state, **options)

    def pair(self) -> PairPicker:
        """Build the pair picker, whose Run button starts the alignment."""
        return PairPicker(state=self.lab_state, on_run=self._run, folders=[self.work.root])

    def _run(self, settings: dict[str, Any]) -> None:
        """Start the alignment with the settings of the pair picker and, if they ask for it, a "rearrange" run."""
        asked = {name: value for name, value in settings.items() if name not in ("source", "target", "rearrange")}
        self.work.align(**asked)
        if settings.get("rearrange"):
            self.work.rearrange()


def model_verdict(run: RunFolder) -> tuple[str, list[Number]] | None:
    """Return the verdict on a rearrange run's model, as HTML, and its key numbers; None if there is no model."""
    model = model_record_of(run)
    if model is None:
        return None
    before, after = model.vocabulary
    numbers = [("vocabulary", f"{before:,} → {after:,}"), ("disk", f"{model.size / 1e9:.2f} GB")]
    words = "The model has the new vocabulary. Its new rows are estimates: tune it on the tab Recovery."
    if model.nats is not None:
        numbers.insert(1, ("calibrated", f"{model.nats[0]:.2f} → {model.nats[1]:.2f}"))
    if model.lost:
        words += f" <b>Not kept:</b> {escape(' '.join(model.lost))}"
    return words, [*numbers, ("lost", str(len(model.lost)))]


def _same_pair(other: RunFolder, run: RunFolder) -> bool:
    """Whether `other` is another finished alignment of the same pair."""
    one, two = other.info(), run.info()
    pair = [(info["settings"].get("source"), info["settings"].get("target")) for info in (one, two)]
    return one["kind"] == "align" and one["state"] == "finished" and other.name != run.name and pair[0] == pair[1]
