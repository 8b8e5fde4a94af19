"""The lab: every panel over one view and one folder of runs, in the order of the work.

    lab = Lab()
    lab.pair_picker()
    alignment = lab.align()
    lab.lexicon_panel()
    lab.maps()
    lab.rearrange()
    lab.tune()

Each step's work is a run: named by its settings, done in its own process, found again when it is asked for again.
That is why every cell can be run again at any time, and why a restarted kernel finds everything where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets as w

from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.errors import InputError
from tokalign_lab.files import hash_of
from tokalign_lab.runs.control import start
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.widgets.background import WATCHER, submit
from tokalign_lab.widgets.job_panel import JobPanel
from tokalign_lab.widgets.lexicon_panel import LexiconPanel
from tokalign_lab.widgets.lexicon_view import Labels, LexiconView
from tokalign_lab.widgets.map_panel import MapPanel
from tokalign_lab.widgets.pair_picker import PairPicker
from tokalign_lab.widgets.panel import Panel
from tokalign_lab.widgets.state import LabState
from tokalign_lab.widgets.training_panel import TrainingPanel
from tokalign_lab.widgets.vocabularies import vocabulary_of

P = TypeVar("P", bound=Panel)

_open_panels: dict[tuple[str, str], Panel] = {}  # one a kind and lab folder, over all cells of this kernel


def fast() -> bool:
    """Whether sizes shall be as small as a check can bear ($TOKALIGN_FAST)."""
    return os.environ.get("TOKALIGN_FAST", "") not in ("", "0")


def runs_folder() -> Path:
    """$TOKALIGN_RUNS, else `runs` beside the `notebooks` folder that a notebook runs in, else `runs` here."""
    given = os.environ.get("TOKALIGN_RUNS")
    if given:
        return Path(given)
    here = Path.cwd()
    return (here.parent if here.name == "notebooks" else here) / "runs"


class Lab:
    """All steps from a pair of tokenizers to a tuned model.

    Parameters
    ----------
    source : the model: catalogue name, folder or hub id; by default the one of the last time here
    target : the tokenizer it shall get
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
        self.alignment: Alignment | None = None
        self._align_run: RunFolder | None = None
        self._rearranged: RunFolder | None = None
        self._view: LexiconView | None = None
        self._text: dict[str, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        """The view as plain values."""
        return self.lab_state.to_dict()

    def pair_picker(self) -> PairPicker:
        """Choose the pair and compare both tokenizers on a text of your own."""
        return self._opened("pair", PairPicker(state=self.lab_state))

    def align(
        self,
        text: str | Sequence[str] = "default",
        recipe: str = "anchored",
        max_bytes: int | None = None,
        seed: int = 0,
    ) -> Alignment:
        """Learn the lexicon from a text tokenised both ways; waits, with a bar, for its job.

        Parameters
        ----------
        text : "default", or paths, folders, `hub:` names
        recipe : a name of `tokalign_lab.alignment.recipes.RECIPES`
        max_bytes : use only so much of the text

        Raises
        ------
        InputError
            When the job cannot do what was asked; its own sentence.
        """
        texts = [text] if isinstance(text, str) else list(text)
        self._text = {"text": texts, "max_bytes": max_bytes, "seed": seed}
        pair = {"source": self.lab_state.source, "target": self.lab_state.target}
        run = self._done("align", {**pair, **self._text, "recipe": recipe})
        self._align_run = run
        self.alignment = Alignment.load(run.path / "alignment")
        self._view = self._rearranged = None
        return self.alignment

    def lexicon_panel(self) -> LexiconPanel:
        """Inspect the lexicon of the last `align`."""
        alignment, view = self._aligned()
        scores = self._align_run.path / "scores.json" if self._align_run else None
        known = json.loads(scores.read_text(encoding="utf-8")) if scores is not None and scores.is_file() else None
        panel = LexiconPanel(alignment.lexicon, scores=known, state=self.lab_state, view=view)
        return self._opened("lexicon", panel)

    def maps(self, drawn: int | None = None) -> MapPanel:
        """See both embedding spaces of the last `align`."""
        alignment, view = self._aligned()
        if alignment.source_vectors is None or alignment.target_vectors is None:
            raise InputError("This recipe makes no vectors to draw; align with 'anchored' or 'tokalign++'.")
        panel = MapPanel(
            alignment.lexicon, alignment.source_vectors, alignment.target_vectors, state=self.lab_state, view=view,
            drawn=drawn or (800 if fast() else 3000), **({"fit_on": 500} if fast() else {}),
        )  # fmt: skip
        return self._opened("maps", panel)

    def rearrange(self) -> JobPanel:
        """Give the source model its new rows by the last lexicon; a job, watched while the next cells run."""
        run = self._start_rearranging()
        panel = JobPanel(run, "Rearranging the model", f"the new model is in {run.path / 'model'}", self.lab_state)
        return self._opened("rearrange", panel)

    def _start_rearranging(self) -> RunFolder:
        self._aligned()
        assert self._align_run is not None
        lexicon = str((self._align_run.path / "alignment" / "lexicon.parquet").resolve())
        settings = {"model": self.lab_state.source, "lexicon": lexicon}
        self._rearranged = self._going("rearrange", settings)
        return self._rearranged

    def tune(self, steps: int = 200, restart: bool = False, **settings: Any) -> TrainingPanel:
        """Tune the rearranged model in two stages, and watch; answers at once.

        The same settings find the same run again, running or done. What was cancelled or failed can be resumed in the
        panel, or begun anew with `restart=True`.

        Parameters
        ----------
        steps : optimiser steps of both stages together
        restart : begin anew when the run has ended
        settings : fields of `tokalign_lab.adaptation.settings.AdaptSettings`
        """
        before = self._rearranged or self._start_rearranging()
        every = {"evaluate_every": max(1, steps // 8), "save_every": max(1, steps // 8)}
        chosen = {
            "model": str((before.path / "model").resolve()), **self._text, "steps": steps,
            **every, **settings,
        }  # fmt: skip
        chosen = {name: value for name, value in chosen.items() if value is not None}
        run = self._run_of("adapt", chosen)
        if not _exists(run):
            RunFolder.create(run.path, "adapt", chosen)
        elif restart and run.state in ENDED:
            (run.path / "events.jsonl").unlink(missing_ok=True)
            run.update(state="queued", ended=None, error=None)
        if run.state == "queued":
            _start_after(run, before)
        panel = TrainingPanel(run, self._floor(chosen), self.lab_state)
        return self._opened("tune", panel)

    def close(self) -> None:
        """Close all panels of this lab."""
        for key in [key for key in _open_panels if key[1] == self._place]:
            _open_panels.pop(key).close()

    @property
    def _place(self) -> str:
        return str(self.runs.resolve())

    def _opened(self, kind: str, panel: P) -> P:
        """Close the panel that a former run of this cell made, so that no two of a kind go on."""
        former = _open_panels.pop((kind, self._place), None)
        if former is not None:
            former.close()
        _open_panels[kind, self._place] = panel
        return panel

    def _aligned(self) -> tuple[Alignment, LexiconView]:
        if self.alignment is None:
            raise InputError("There is no alignment yet; run lab.align() first.")
        if self._view is None:
            lexicon = self.alignment.lexicon
            names = (lexicon.provenance[side]["name"] for side in ("source", "target"))
            self._view = LexiconView(lexicon, Labels(lexicon, *(vocabulary_of(name) for name in names)))
        return self.alignment, self._view

    def _run_of(self, kind: str, settings: dict[str, Any]) -> RunFolder:
        """Return the run of these settings, whether it exists or not: same settings, same folder."""
        key = hash_of([json.dumps(settings, sort_keys=True).encode()])[:10]
        return RunFolder(self.runs / f"{kind}-{key}")

    def _going(self, kind: str, settings: dict[str, Any]) -> RunFolder:
        """Return the run of these settings, started where it is neither running nor finished."""
        settings = {name: value for name, value in settings.items() if value is not None}
        run = self._run_of(kind, settings)
        if not _exists(run):
            return start(kind, settings, run.path)
        if run.state not in ("running", "finished"):
            run.start()
        return run

    def _done(self, kind: str, settings: dict[str, Any]) -> RunFolder:
        """Wait until a run of these settings has finished, starting it where need be."""
        run = self._going(kind, settings)
        if run.state != "finished":
            _wait(run, kind)
        if run.state != "finished":
            raise InputError(run.info()["error"] or f"The run {run.name} was {run.state}; run the cell again.")
        return run

    def _floor(self, chosen: dict[str, Any]) -> RunFolder:
        """Return the run that measures the source model with its own tokenizer on the same held-out text."""
        same = ("text", "max_bytes", "seed", "held_out_share", "evaluate_bytes", "device")
        settings = {
            "model": self.lab_state.source,
            **{k: chosen[k] for k in same if chosen.get(k) is not None},
        }
        return self._going("measure", settings)


def _exists(run: RunFolder) -> bool:
    return (run.path / "run.json").is_file()


def _start_after(run: RunFolder, before: RunFolder) -> None:
    """Start a queued run as soon as the one it needs has finished."""

    def look() -> bool:
        state = before.state
        if state not in ENDED:
            return run.state == "queued"  # a person may cancel it before it began
        if run.state == "queued":
            if state == "finished":
                submit(run.start)
            else:
                why = before.info()["error"] or state
                run.update(state="failed", error=f"The run it needs, {before.name}, did not finish: {why}")
        return False

    if look():
        WATCHER.watch(f"start:{run.path.resolve()}", look)


def _wait(run: RunFolder, kind: str) -> None:
    """Wait for a run with a progress bar; an interrupt of the cell leaves the run going."""
    from IPython.display import display

    bar = w.FloatProgress(min=0.0, max=1.0, description=kind, layout=w.Layout(width="60%"))
    words = w.Label(value="starting in its own process …")
    box = w.HBox([bar, words])
    box.add_class("tl-wait")
    display(box)

    def progress(share: float, message: str) -> None:
        bar.value, words.value = share, message

    run.wait(progress)
    box.close()
