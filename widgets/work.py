"""The runs of one lab, each of which needs the one before: align, rearrange, tune, and the floor beside it.

A run is named by its settings, so what was asked for before is found again, running or done. Which runs the lab looks
at is a part of the view (`LabState.work`): a restarted kernel goes on with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.gallery import recorded_chains, recorded_run
from tokalign_lab.widgets.background import WATCHER, submit
from tokalign_lab.widgets.floor import floor_run
from tokalign_lab.widgets.recorded import NO_MODEL
from tokalign_lab.widgets.run_of import exists, run_going, run_of
from tokalign_lab.widgets.state import LabState, Selection

STEPS = ("align", "rearrange", "adapt")
_OF_THE_TEXT = ("text", "max_bytes", "seed")


class Work:
    """Find or start the runs of a lab.

    Parameters
    ----------
    root : folder of the runs
    state : says which pair is chosen, and keeps which runs are looked at
    """

    def __init__(self, root: Path, state: LabState) -> None:
        self.root = root
        self._state = state

    def find(self, step: str) -> RunFolder | None:
        """Return the run of this step that the lab looks at, None where there is none (any more)."""
        name = self._state.work.get(step)
        if name is None:
            return None
        run = RunFolder(self.root / name)
        return run if exists(run) else recorded_run(name)

    @property
    def looks_at_recorded(self) -> bool:
        """Whether what the lab looks at is a recorded run."""
        run = self.find("align")
        return run is not None and run.recorded

    def look_at_recorded(self, chain: dict[str, RunFolder] | None = None) -> None:
        """Look at a recorded chain; which of the user's own runs were looked at is kept.

        Raises
        ------
        InputError
            When the package has none.
        """
        chains = [chain] if chain is not None else recorded_chains()
        if not chains:
            raise InputError("This installation has no recorded runs.")
        state = self._state
        with state.hold_trait_notifications():
            if not self.looks_at_recorded:
                state.own_work = state.work
            state.selection, state.looks, state.tab = Selection(), {}, "training"
            state.work = {step: chains[0][step].name for step in STEPS}

    def look_at_own(self) -> None:
        """Look again at what was looked at before a recorded run."""
        state = self._state
        with state.hold_trait_notifications():
            state.selection, state.looks, state.tab = Selection(), {}, "pair"
            state.work = state.own_work

    def finished(self, step: str) -> RunFolder | None:
        """Return the run of this step if it has finished."""
        run = self.find(step)
        return run if run is not None and run.state == "finished" else None

    def align(self, **settings: Any) -> RunFolder:
        """Align the chosen pair; `settings` are those of an "align" run beside the pair."""
        pair = {"source": self._state.source, "target": self._state.target}
        return self._look_at("align", run_going("align", _given({**pair, **settings}), self.root))

    def align_also(self, recipe: str) -> RunFolder:
        """Align the same pair on the same text by another recipe, beside what the lab looks at."""
        settings = self._aligned().info()["settings"]
        named = {name: settings[name] for name in ("source", "target", *_OF_THE_TEXT) if name in settings}
        method = RECIPES[recipe]
        reads = {"model": method.needs_model and settings["source"], "donor": method.needs_donor and settings["target"]}
        return run_going("align", {**named, "recipe": recipe, **{k: v for k, v in reads.items() if v}}, self.root)

    def rearrange(self) -> RunFolder:
        """Give the source model its new rows, as soon as the alignment has finished.

        Raises
        ------
        InputError
            When nothing has been aligned, or what was aligned is a recorded run.
        """
        before = self._aligned()
        if before.recorded:
            raise InputError(NO_MODEL)
        lexicon = before.path / "alignment" / "lexicon.parquet"
        settings = {"model": before.info()["settings"]["source"], "lexicon": str(lexicon.resolve())}
        return self._look_at("rearrange", self._after(before, "rearrange", settings))

    def tune(self, steps: int, restart: bool = False, **settings: Any) -> RunFolder:
        """Tune the rearranged model on the text that was aligned; begins when rearranging has finished."""
        before = self.find("rearrange") or self.rearrange()
        if before.recorded:
            raise InputError(NO_MODEL)
        every = max(1, steps // 8)
        chosen = {
            "model": str((before.path / "model").resolve()), **self._text(), "steps": steps,
            "evaluate_every": every, "save_every": every, **settings,
        }  # fmt: skip
        return self._look_at("adapt", self._after(before, "adapt", chosen, restart))

    def go_on(self) -> None:
        """Start what was waiting for another run when the kernel that waited for it ended."""
        for step, needed in (("rearrange", "align"), ("adapt", "rearrange")):
            run, before = self.find(step), self.find(needed)
            if run is not None and before is not None and run.state == "queued":
                _start_after(run, before)

    def floor(self, tuned: RunFolder) -> RunFolder | None:
        """Return the run that measures the source model with its own tokenizer on what `tuned` holds out.

        Beside a recorded run it was recorded, or there is none.
        """
        if tuned.recorded:
            return floor_run(tuned)
        chosen = tuned.info()["settings"]
        same = (*_OF_THE_TEXT, "held_out_share", "evaluate_bytes", "device")
        source = self._aligned().info()["settings"]["source"]
        return run_going("measure", _given({"model": source, **{name: chosen.get(name) for name in same}}), self.root)

    def _aligned(self) -> RunFolder:
        run = self.find("align")
        if run is None:
            raise InputError("There is no alignment yet; align a pair first.")
        return run

    def _text(self) -> dict[str, Any]:
        settings = self._aligned().info()["settings"]
        return {name: settings.get(name) for name in _OF_THE_TEXT}

    def _look_at(self, step: str, run: RunFolder) -> RunFolder:
        """Keep this run as the lab's; what was made from another one of its step is not looked at any more."""
        if self._state.work.get(step) != run.name:
            if step == "align":
                self._state.looks = {}  # a part of one map is no part of another's
            earlier = STEPS[: STEPS.index(step)]
            self._state.work = {name: self._state.work[name] for name in earlier if name in self._state.work} | {
                step: run.name
            }
        return run

    def _after(self, before: RunFolder, kind: str, settings: dict[str, Any], restart: bool = False) -> RunFolder:
        """Return the run of these settings; it starts when `before` has finished."""
        settings = _given(settings)
        run = run_of(kind, settings, self.root)
        if not exists(run):
            RunFolder.create(run.path, kind, settings)
        elif restart and run.state in ENDED:
            (run.path / "events.jsonl").unlink(missing_ok=True)
            run.update(state="queued", ended=None, error=None)
        if run.state == "queued":
            _start_after(run, before)
        return run


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are not None: not given and None name the same run."""
    return {name: value for name, value in settings.items() if value is not None}


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
