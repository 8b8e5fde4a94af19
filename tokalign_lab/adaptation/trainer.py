"""The Hugging Face trainer as a stage needs it: data in the given order, unsharded models, our own schedule.

Each stage is a run of this trainer with its own AdamW (0.9, 0.999) and its own cosine schedule with warm-up.
Trackers (TensorBoard, Weights & Biases, Trackio) show the trainer's logs and the bits per byte. They only receive
values: the record of a run is `events.jsonl`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from tokalign_lab.adaptation.checkpoints import stage_folder
from tokalign_lab.adaptation.data import OrderedBlocks
from tokalign_lab.adaptation.optimizer import FlooredAdamW
from tokalign_lab.adaptation.processes import Processes, is_sharded
from tokalign_lab.adaptation.rows import UsedRows
from tokalign_lab.adaptation.settings import TRACKERS, AdaptSettings
from tokalign_lab.adaptation.stages import Stage, row_modules
from tokalign_lab.errors import InputError


class OrderedTrainer(Trainer):  # type: ignore[misc]  # mypy does not read transformers
    """The trainer of one stage, reading its data in the order they have, and saving a model whole.

    Parameters
    ----------
    model : the model, with the weights that train
    stage, settings, processes : of the run
    root : gets the checkpoints
    data : what the stage reads
    head_rows : int64, rows of the head that the text uses and trains; the others are to move little (`optimizer`)
    used_rows : if the model's input embedding holds some rows only
    callbacks : in the order in which they are called
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stage: Stage,
        settings: AdaptSettings,
        root: Path,
        processes: Processes,
        data: OrderedBlocks,
        head_rows: torch.Tensor,
        used_rows: UsedRows | None,
        callbacks: list[TrainerCallback],
    ) -> None:
        arguments = arguments_of(stage, settings, root, processes.device)
        # the trainer would switch it off permanently, in the saved model too
        cached = getattr(model.config, "use_cache", None)
        super().__init__(model=model, args=arguments, train_dataset=data, callbacks=callbacks)
        if cached is None:  # as in models of images, whose text part has it
            vars(model.config).pop("use_cache", None)
        else:
            model.config.use_cache = cached
        self.remove_callback(PrinterCallback)
        self._used_rows = used_rows
        rows_rate, body_rate = settings.rates(processes.count)
        # of embeddings and head, where it differs from that of the other weights
        self._rows_rate = rows_rate if stage.number == 2 and rows_rate != body_rate else None
        floored = stage.number == 2 and settings.head_floor and not is_sharded() and len(head_rows)
        self._head_rows = head_rows if floored else None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Put embeddings and head in a separate group if they have a separate rate."""
        optimizer = super().create_optimizer(model)
        if self._rows_rate is not None:
            rows = {id(weight) for module in row_modules(self.model) for weight in module.parameters()}
            for group in list(optimizer.param_groups):
                own = [weight for weight in group["params"] if id(weight) in rows]
                if own:
                    group["params"] = [weight for weight in group["params"] if id(weight) not in rows]
                    optimizer.add_param_group({**group, "params": own, "lr": self._rows_rate})
        if self._head_rows is not None:
            head = self.model.get_output_embeddings().weight
            self.optimizer = FlooredAdamW(optimizer.param_groups, head, self._head_rows)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: the model was read from the checkpoint when it was loaded."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with self._used_rows.whole() if self._used_rows else nullcontext():
            super()._save(output_dir, state_dict)


def without_cache(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Keep no keys and values while training: nobody continues the text, and documents could not be kept apart."""
    return args, {**kwargs, "use_cache": False} if "labels" in kwargs else kwargs


def computes_in_bf16(settings: AdaptSettings, device: torch.device) -> bool:
    """Return whether the models compute in bfloat16: by the settings, else where the GPU has it."""
    if settings.bf16 is not None:
        return settings.bf16
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def arguments_of(stage: Stage, settings: AdaptSettings, root: Path, device: torch.device) -> TrainingArguments:
    """Return the trainer's own settings for a stage whose checkpoints go under `root`."""
    return TrainingArguments(
        output_dir=str(stage_folder(root, stage.number)),
        max_steps=stage.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        # the trainer would round up, and spend the first step of a short run at a rate of 0
        warmup_steps=math.floor(stage.steps * settings.warmup_ratio),
        adam_beta1=0.9,
        adam_beta2=0.999,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clip,
        seed=settings.seed + stage.number,
        bf16=computes_in_bf16(settings, device),
        use_cpu=device.type != "cuda",
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        save_strategy="steps",
        save_steps=min(settings.save_every, stage.steps),
        save_total_limit=None,  # `KeepOneWhole` removes old ones, after the new one is whole
        report_to="none",  # `trackers` makes the callbacks
        run_name=root.parent.name,
        project="tokalign-lab",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


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
