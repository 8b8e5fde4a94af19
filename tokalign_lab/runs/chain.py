"""The chain of runs from a pair to a tuned model, each based on the previous one: align, rearrange, tune, measure.

A run is named by its settings, so a repeated request finds the former run, whether it is running or done. The caller
(`View`) stores the shown runs, so a restarted kernel continues with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.following import run_of_the_source
from tokalign_lab.runs.gallery import recorded_run
from tokalign_lab.runs.queue import find_or_start, locked, run_of, start_after, start_waiting
from tokalign_lab.runs.results import check_result

STEPS = ("align", "rearrange", "adapt")
NO_MODEL = (
    "This is a recorded run without its model, so nothing can be tuned or exported. To make your "
    "own, choose the pair on the tab Pair and click “Run alignment”."
)
_OF_THE_TEXT = ("text", "max_bytes", "seed")


class View(Protocol):
    """The pair and the runs that are shown, such as the lab's state."""

    @property
    def source(self) -> str:
        """Name of the model."""

    @property
    def target(self) -> str:
        """Name of its new tokenizer."""

    @property
    def work(self) -> Mapping[str, str]:
        """Step, of `STEPS`, to the name of its run."""

    def show_runs(self, work: dict[str, str]) -> None:
        """Show these runs from now on."""


class Chain:
    """Find or start the runs of one pair."""

    def __init__(self, root: Path, view: View) -> None:
        self.root = root
        self._view = view

    def find(self, step: str) -> RunFolder | None:
        """Return the shown run of this step; None if it does not exist (any more)."""
        name = self._view.work.get(step)
        if name is None:
            return None
        run = RunFolder(self.root / name)
        return run if run.exists else recorded_run(name)

    @property
    def shows_recorded(self) -> bool:
        """Whether a recorded run is shown."""
        run = self.find("align")
        return run is not None and run.recorded

    def finished(self, step: str) -> RunFolder | None:
        """Return the run of this step if it has finished."""
        run = self.find(step)
        return run if run is not None and run.state == "finished" else None

    def align(self, **settings: Any) -> RunFolder:
        """Align the chosen pair; `settings` are those of an "align" run, without the pair.

        Raises `InputError` if this was done before, but the lexicon was deleted.
        """
        pair = {"source": self._view.source, "target": self._view.target}
        run = find_or_start("align", _given({**pair, **settings}), self.root)
        check_result(run)
        return self._show("align", run)

    def align_also(self, recipe: str) -> RunFolder:
        """Align the same pair on the same text by another recipe; the lab's alignment stays."""
        settings = self._aligned().info()["settings"]
        named = {name: settings[name] for name in ("source", "target", *_OF_THE_TEXT) if name in settings}
        method = RECIPES[recipe]
        reads = {"model": method.needs_model and settings["source"], "donor": method.needs_donor and settings["target"]}
        return find_or_start("align", {**named, "recipe": recipe, **{k: v for k, v in reads.items() if v}}, self.root)

    def rearrange(self, calibrate: bool = True, special_tokens: str | None = None) -> RunFolder:
        """Rearrange the source model as soon as the alignment has finished, and calibrate it on the aligned text.

        `special_tokens` is the option of the same name of `rearrange`.

        Raises `InputError` if there is no alignment, its lexicon was deleted, or it is a recorded run.
        """
        before = self._aligned()
        if before.recorded:
            raise InputError(NO_MODEL)
        lexicon, model = before.path / "alignment" / "lexicon.parquet", before.info()["settings"]["source"]
        settings = rearrange_settings(model, lexicon, self._text()["text"] if calibrate else ())
        return self._show("rearrange", self._after(before, "rearrange", {**settings, "special_tokens": special_tokens}))

    def tune(self, steps: int, restart: bool = False, **settings: Any) -> RunFolder:
        """Tune the rearranged model on the aligned text; starts when rearranging has finished.

        Raises `InputError` if the rearranged model was deleted, or it is from a recorded run, and for settings that
        tuning does not take.
        """
        from tokalign_lab.runs.kinds import check_kind

        check_kind("adapt", {"model": "", "text": [], **settings, "steps": steps})  # before a model is made
        before = self.find("rearrange") or self.rearrange()
        if before.recorded:
            raise InputError(NO_MODEL)
        chosen = {
            "model": str((before.path / "model").resolve()), **self._text(), "steps": steps,
            "evaluate_every": max(1, steps // 8), **settings,
        }  # fmt: skip
        return self._show("adapt", self._after(before, "adapt", chosen, restart))

    def start_waiting(self) -> None:
        """Start the process that starts queued runs; needed after the machine was restarted."""
        start_waiting(self.root)

    def reference(self, tuned: RunFolder) -> RunFolder | None:
        """Return the run that measures the source model with its own tokenizer on the held-out text of `tuned`.

        For a recorded run, this is a recorded run too, or None.
        """
        if tuned.recorded:
            return run_of_the_source(tuned, "measure")
        chosen = tuned.settings()
        same = (*_OF_THE_TEXT, "held_out_share", "evaluate_bytes", "device")
        source = self._aligned().info()["settings"]["source"]
        settings = {"model": source, **{name: chosen.get(name) for name in same}}
        return find_or_start("measure", _given(settings), self.root)

    def _aligned(self) -> RunFolder:
        run = self.find("align")
        if run is None:
            raise InputError("There is no alignment yet; align a pair first.")
        return run

    def _text(self) -> dict[str, Any]:
        settings = self._aligned().settings()
        return {name: settings.get(name) for name in _OF_THE_TEXT}

    def _show(self, step: str, run: RunFolder) -> RunFolder:
        """Show this run for its step, and hide the runs based on an earlier one."""
        work = self._view.work
        if work.get(step) != run.name:
            earlier = STEPS[: STEPS.index(step)]
            self._view.show_runs({name: work[name] for name in earlier if name in work} | {step: run.name})
        return run

    def _after(self, before: RunFolder, kind: str, settings: dict[str, Any], restart: bool = False) -> RunFolder:
        """Return the run with these settings; it starts when `before` has finished.

        Raises `InputError` for settings that the kind does not take, or if it would start, but what `before` made was
        deleted.
        """
        from tokalign_lab.runs.kinds import check_kind  # imports the engine

        settings = _given(settings)
        check_kind(kind, settings)
        run = run_of(kind, settings, self.root)
        if not run.exists or run.state == "queued" or (restart and run.state in ENDED):
            check_result(before)
        with locked(self.root):
            if not run.exists:
                RunFolder.create(run.path, kind, settings)
        start_after(run, before, again=restart)
        return run


def rearrange_settings(model: str, lexicon: Path, text: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a "rearrange" run that calibrates on the text; without text it does not calibrate."""
    return _given({"model": model, "lexicon": str(lexicon.resolve()), "calibrate": list(text) or None})


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are not None, since a missing setting and None mean the same run."""
    return {name: value for name, value in settings.items() if value is not None}
