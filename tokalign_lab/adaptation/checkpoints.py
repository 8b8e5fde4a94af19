"""Checkpoints that are whole or not there.

The trainer writes a checkpoint's files one after the other. A checkpoint counts only when it carries the size and the
checksum of each of its files (`files.seal`), which are written last, and all of them fit; older ones are removed only
after that. So whenever the process is killed, there is either the old whole checkpoint or the new one. A damaged one is
not used.

The checkpoints of a finished run are removed in one step: their folder gets another name, and is removed under that.
So a tuned model without a folder of checkpoints is a finished run, wherever a kill came between. A file in the folder
marks it as made by a run; a folder without that file, or with foreign files, is refused and never removed.
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
from tokalign_lab.files import CHECKSUMS, check_replaceable, damage, holds_only, seal

_MARK = ".tokalign-checkpoints"
_NAMES = rf"stage\d+|best|{re.escape(_MARK)}"
_REMOVED = ".checkpoints-removed"
_log = logging.getLogger("tokalign_lab")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: after `step` steps of stage number `stage`."""

    path: Path
    stage: int
    step: int


def stage_folder(root: Path, stage: int) -> Path:
    """Where the checkpoints of a stage go."""
    return root / f"stage{stage}"


def latest_checkpoint(root: Path, stages: Sequence[Stage]) -> Checkpoint | None:
    """Return the last complete checkpoint under `root`, or None; remove incomplete ones, with a line in the log."""
    found: list[Checkpoint] = []
    for stage in stages:
        for path in stage_folder(root, stage.number).glob("checkpoint-*"):
            reason = damage(path, whole=True)
            if reason is None:
                found.append(Checkpoint(path, stage.number, int(path.name.removeprefix("checkpoint-"))))
            else:
                _log.warning("%s is not whole (%s), so it is not used", path, reason)
                shutil.rmtree(path, ignore_errors=True)
    return max(found, key=lambda checkpoint: (checkpoint.stage, checkpoint.step), default=None)


def steps_done(checkpoint: Checkpoint | None, stages: Sequence[Stage]) -> int:
    """Return the steps of a run that are in a checkpoint; 0 without one."""
    if checkpoint is None:
        return 0
    return next(stage.first_step for stage in stages if stage.number == checkpoint.stage) + checkpoint.step


def check_folder(root: Path) -> None:
    """Raise InputError if `root` holds anything that is not from a tuning run."""
    check_replaceable(root, _is_ours)


def begin(root: Path, resume: bool) -> None:
    """Make and mark the folder of checkpoints; unless `resume`, remove the checkpoints of an earlier run."""
    if not resume:
        remove_all(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARK).touch()


def is_finished(root: Path, tuned: Path) -> bool:
    """Whether a run has saved its model and removed its checkpoints, or begun to."""
    return tuned.is_dir() and not root.exists()


def remove_all(root: Path) -> None:
    """Remove the checkpoints of a finished run; in a run that `is_finished`, what a kill has left of them.

    If the folder has foreign files, all are kept, with a line in the log.
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
    """Whether a tuning run made `root` and no other file was added. Earlier versions marked only whole checkpoints."""
    if holds_only(root, _MARK, _NAMES):
        return True
    whole = any(root.glob(f"stage*/checkpoint-*/{CHECKSUMS}"))
    return whole and all(re.fullmatch(_NAMES, entry.name) for entry in root.iterdir())


class KeepOneWhole(TrainerCallback):  # type: ignore[misc]  # mypy does not read transformers
    """Marks each checkpoint when it is whole, then removes the ones before it, of earlier stages too."""

    def __init__(self, root: Path, processes: Processes) -> None:
        self._root = root
        self._processes = processes

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark what the trainer has just written, and clean up."""
        self._processes.wait()  # each process writes a part
        if not self._processes.is_first:
            return
        whole = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        seal(whole)
        for path in self._root.glob("stage*/checkpoint-*"):
            if path != whole:
                shutil.rmtree(path, ignore_errors=True)
