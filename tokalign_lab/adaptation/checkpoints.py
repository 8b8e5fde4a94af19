"""Checkpoints that are whole or not there.

The trainer writes a checkpoint's files one after the other. A checkpoint counts only once it carries a marker that
is written last; older ones are removed only after that. So whenever the process is killed, there is either the old
whole checkpoint or the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.stages import Stage
from tokalign_lab.files import write_json

_MARKER = "complete.json"


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
    """Find the last whole checkpoint under `root`, or None; what is not whole is removed."""
    found: list[Checkpoint] = []
    for stage in stages:
        for path in stage_folder(root, stage.number).glob("checkpoint-*"):
            if (path / _MARKER).is_file():
                found.append(Checkpoint(path, stage.number, int(path.name.removeprefix("checkpoint-"))))
            else:
                shutil.rmtree(path, ignore_errors=True)
    return max(found, key=lambda checkpoint: (checkpoint.stage, checkpoint.step), default=None)


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
        write_json(whole / _MARKER, {"step": state.global_step})
        for path in self._root.glob("stage*/checkpoint-*"):
            if path != whole:
                shutil.rmtree(path, ignore_errors=True)
