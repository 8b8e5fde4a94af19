"""Checkpoints that are either complete or absent.

The trainer writes the files of a checkpoint one by one. The size and checksum of each file are written last
(`files.seal`). A checkpoint is valid only if they are present and match; older checkpoints are removed only after that.
So after a kill at any time, either the old or the new checkpoint is complete. A damaged checkpoint is not used.

The checkpoints of a finished run are removed in one step: their folder is renamed, then deleted. So a tuned model
without a folder of checkpoints is a finished run, even if the process was killed in between. A marker file shows that a
run made the folder; a folder without that file, or with foreign files, is refused and never removed.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.stages import Stage
from tokalign_lab.files import check_replaceable, damage, holds_only, seal

_MARK = ".tokalign-checkpoints"
_NAMES = rf"stage\d+|best|{re.escape(_MARK)}"
_REMOVED = ".checkpoints-removed"
_log = logging.getLogger("tokalign_lab")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: after `step` steps of a stage."""

    path: Path
    stage: Stage
    step: int

    @property
    def steps_done(self) -> int:
        """Steps of the run up to this checkpoint."""
        return self.stage.first_step + self.step


def stage_folder(root: Path, stage: int) -> Path:
    """Return the folder for the checkpoints of a stage."""
    return root / f"stage{stage}"


def latest_checkpoint(root: Path, stages: Sequence[Stage]) -> Checkpoint | None:
    """Return the last complete checkpoint under `root`, or None; remove incomplete ones and log that."""
    found: list[Checkpoint] = []
    for stage in stages:
        for path in stage_folder(root, stage.number).glob("checkpoint-*"):
            reason = damage(path, whole=True)
            if reason is None:
                found.append(Checkpoint(path, stage, int(path.name.removeprefix("checkpoint-"))))
            else:
                _log.warning("%s is not whole (%s), so it is not used", path, reason)
                shutil.rmtree(path, ignore_errors=True)
    return max(found, key=lambda checkpoint: checkpoint.steps_done, default=None)


def check_folder(root: Path) -> None:
    """Raise InputError if `root` has a file that is not from a tuning run."""
    check_replaceable(root, _is_ours)


def begin(root: Path, resume: bool) -> None:
    """Make and mark the folder of checkpoints; unless `resume`, remove the checkpoints of an earlier run."""
    if not resume:
        remove_all(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARK).touch()


def remove_all(root: Path) -> None:
    """Remove the checkpoints of a finished run, also those that a killed removal left behind.

    If the folder has foreign files, all files are kept, and a line in the log reports this.
    """
    removed = root.with_name(_REMOVED)
    shutil.rmtree(removed, ignore_errors=True)
    if root.exists():
        if any(root.iterdir()) and not _is_ours(root):
            _log.warning("%s holds files that are not from this run, so it is not removed", root)
            return
        os.replace(root, removed)
        shutil.rmtree(removed, ignore_errors=True)


def _is_ours(root: Path) -> bool:
    """Whether a tuning run made `root` and nothing was added."""
    return holds_only(root, _MARK, _NAMES)


class KeepOneWhole(TrainerCallback):  # type: ignore[misc]  # mypy does not read transformers
    """Marks each checkpoint when it is complete, then removes the earlier ones, also those of earlier stages."""

    def __init__(self, root: Path, processes: Processes) -> None:
        self._root = root
        self._processes = processes

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that the trainer has just written, and remove earlier ones."""
        self._processes.wait()  # each process writes a part
        if not self._processes.is_first:
            return
        whole = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        seal(whole)
        for path in self._root.glob("stage*/checkpoint-*"):
            if path != whole:
                shutil.rmtree(path, ignore_errors=True)
