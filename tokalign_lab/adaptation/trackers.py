"""Experiment trackers next to the events: TensorBoard, Weights & Biases, Trackio.

They show the trainer's logs and the bits per byte. They only receive values: the record of a run is `events.jsonl`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback

from tokalign_lab.adaptation.settings import TRACKERS
from tokalign_lab.errors import InputError


def check_trackers(names: Sequence[str]) -> None:
    """Check before a run begins that its trackers are installed. Raises `InputError` if one is not."""
    for name in names:
        if not any(importlib.util.find_spec(package) for package in TRACKERS[name]):
            raise InputError(
                f"report_to names {name}, but the package '{name}' is not installed; run: pip install {name}."
            )


def trackers(names: Sequence[str], folder: Path) -> list[TrainerCallback]:
    """Return the trainer's callback for each tracker; `check_trackers` has checked that it is installed.

    Parameters
    ----------
    names : of `settings.TRACKERS`
    folder : the folder for TensorBoard's files, unless $TENSORBOARD_LOGGING_DIR names another. The trainer's default is
        inside the folder of checkpoints, which is removed when a run ends.
    """
    from transformers.integrations import TensorBoardCallback
    from transformers.integrations.integration_utils import get_reporting_integration_callbacks

    made = [callback() for callback in get_reporting_integration_callbacks(list(names))]
    for callback in made:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)
    return made
