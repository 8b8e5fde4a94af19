"""Tune a rearranged model back in two stages.

Read top to bottom, this is TokAlign's step 5: prepare the text, measure the model as it came, train embeddings and
head, train everything, save. Each stage is a run of the Hugging Face trainer with its own AdamW (0.9, 0.999) and
its own cosine schedule with warm-up; the data go on where the stage before stopped. The run can be killed at any
moment and resumed from its last checkpoint; on a processor the resumed losses equal the uninterrupted ones.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from tokalign_lab.adaptation.checkpoints import Checkpoint, KeepOneWhole, latest_checkpoint, stage_folder
from tokalign_lab.adaptation.data import OrderedBlocks, PackedBlocks
from tokalign_lab.adaptation.events import Emit, Evaluator, Interrupt, Reporter
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.stages import Stage, plan_stages, set_trainable
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document, excerpts, n_bytes, read_documents, split_documents, text_hash
from tokalign_lab.errors import InputError
from tokalign_lab.model.device import describe_device, pick_device
from tokalign_lab.model.load import load_model
from tokalign_lab.model.save import save_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def adapt(
    model_name: str,
    text: Sequence[str],
    settings: AdaptSettings,
    folder: Path,
    emit: Emit,
    interrupt: Interrupt = lambda: None,
    resume: bool = False,
    max_bytes: int | None = None,
    device: str | None = None,
) -> Path:
    """Tune a model on a text.

    Parameters
    ----------
    model_name
        A model folder with its tokenizer (or catalogue name, or hub id).
    text
        What `read_documents` takes; a part of it is held out and measured.
    settings
        The run's settings.
    folder
        Gets `checkpoints/` while the run works and `model/` at its end.
    emit
        Takes the events (see `adaptation.events`).
    interrupt
        Called at every step boundary; what it raises ends the run, and the last checkpoint stays.
    resume
        Go on from the last whole checkpoint in `folder`; without one, begin.
    max_bytes
        Use only so much of the text.
    device
        "cpu" or "cuda"; the best one when not given.

    Returns
    -------
    Path
        The folder of the tuned model.

    Raises
    ------
    InputError
        For a model or text that cannot be used.
    Diverged
        When the loss is no longer a number.
    """
    from tokalign_lab.catalog import load_vocabulary

    place = pick_device(device)
    root = folder / "checkpoints"
    stages = plan_stages(settings)
    checkpoint = latest_checkpoint(root, stages) if resume else None
    if not resume:
        shutil.rmtree(root, ignore_errors=True)
    emit({"kind": "device", "device": describe_device(place)})

    vocabulary = load_vocabulary(model_name)
    documents = read_documents(text, max_bytes=max_bytes, seed=settings.seed)
    train, held_out = split_documents(documents, settings.held_out_share, settings.seed)
    blocks = PackedBlocks(Corpus.build(train, vocabulary), vocabulary, settings.sequence_length)
    interrupt()

    model = load_model(str(checkpoint.path) if checkpoint else model_name, device=place, dtype=torch.float32)
    _check_fit(model, vocabulary.size, settings.sequence_length)
    measured = excerpts(held_out, settings.evaluate_bytes, seed=settings.seed)
    evaluator = Evaluator(model, vocabulary, measured, settings, emit, interrupt)
    done = _steps_done(checkpoint, stages)
    if resume:
        emit({"kind": "resumed", "step": done})
    if done == 0:
        evaluator(0, stages[0].number)

    for stage in stages:
        if done < stage.first_step + stage.steps:
            here = checkpoint if checkpoint is not None and checkpoint.stage == stage.number else None
            _train_stage(model, stage, settings, blocks, evaluator, root, here, emit, interrupt, place)
    if not evaluator.latest:  # resumed from the very last checkpoint
        evaluator(settings.steps, stages[-1].number)
    model.requires_grad_(True)
    tuned = save_model(model, vocabulary, folder / "model", card=_card(model_name, settings, train, evaluator.latest))
    shutil.rmtree(root, ignore_errors=True)
    return tuned


class _OrderedTrainer(Trainer):  # type: ignore[misc]  # mypy does not read transformers
    """The trainer, reading its data in the order they have: the order was drawn before."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


def _train_stage(
    model: PreTrainedModel,
    stage: Stage,
    settings: AdaptSettings,
    blocks: PackedBlocks,
    evaluator: Evaluator,
    root: Path,
    checkpoint: Checkpoint | None,
    emit: Emit,
    interrupt: Interrupt,
    device: torch.device,
) -> None:
    """Run one stage to its end."""
    set_seed(settings.seed + stage.number)
    trained = set_trainable(model, stage.number)
    emit(
        {
            "kind": "stage",
            "stage": stage.number,
            "step": stage.first_step,
            "steps": stage.steps,
            "trained": len(trained),
        }
    )
    data = OrderedBlocks(
        blocks, stage.first_step * settings.batch_size, stage.steps * settings.batch_size, settings.seed
    )
    reporter = Reporter(stage, settings, emit, interrupt, lambda step: evaluator(step, stage.number))
    trainer = _OrderedTrainer(
        model=model,
        args=_arguments(stage, settings, root, device),
        train_dataset=data,
        callbacks=[reporter, KeepOneWhole(root)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))


def _arguments(stage: Stage, settings: AdaptSettings, root: Path, device: torch.device) -> TrainingArguments:
    cuda = device.type == "cuda"
    return TrainingArguments(
        output_dir=str(stage_folder(root, stage.number)),
        max_steps=stage.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=_warmup(stage, settings),
        adam_beta1=0.9,
        adam_beta2=0.999,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clip,
        seed=settings.seed + stage.number,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not cuda,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is not a number must be seen
        save_strategy="steps",
        save_steps=min(settings.save_every, stage.steps),
        save_total_limit=None,  # `KeepOneWhole` removes old ones, after the new one is whole
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def _warmup(stage: Stage, settings: AdaptSettings) -> int:
    # rounded down: the trainer would round up, and spend the first step of a short run at a rate of 0
    return math.floor(stage.steps * settings.warmup_ratio)


def _steps_done(checkpoint: Checkpoint | None, stages: Sequence[Stage]) -> int:
    if checkpoint is None:
        return 0
    return next(stage.first_step for stage in stages if stage.number == checkpoint.stage) + checkpoint.step


def _check_fit(model: PreTrainedModel, vocabulary_size: int, sequence_length: int) -> None:
    rows = int(model.get_input_embeddings().weight.shape[0])
    if rows < vocabulary_size:
        raise InputError(
            f"The model has {rows} rows, but its tokenizer ids up to {vocabulary_size - 1}; "
            "rearrange it for that tokenizer first."
        )
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and sequence_length > limit:
        raise InputError(f"The sequence_length is {sequence_length}, but the model reads at most {limit} tokens.")


def _card(
    model_name: str,
    settings: AdaptSettings,
    train: Sequence[Document],
    scores: dict[str, Any],
) -> dict[str, Any]:
    """Describe the tuned model, and where the model it was made from came from."""
    before = Path(model_name) / "tokalign.json"
    earlier = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    training = {
        **settings.to_dict(),
        "tokens": settings.steps * settings.batch_size * settings.sequence_length,
        "text_bytes": n_bytes(train),
        "text_hash": text_hash(train),
    }
    origin = {key: earlier[key] for key in ("model", "lexicon", "calibration") if earlier.get(key)}
    return {"model": model_name, **origin, "training": training, "scores": scores}
