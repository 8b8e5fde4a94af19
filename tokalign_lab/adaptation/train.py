"""Tune a rearranged model to recover its quality.

This is TokAlign's step 5: prepare the text, measure the model before tuning, train embeddings and head if the recipe
has such a stage, train everything, and save the kept step (`guard`). Each stage is a run of the Hugging Face trainer
(`trainer`), whose data continue where the previous stage stopped. A run can be killed at any time and resumed from its
last checkpoint; on a CPU, the losses equal those of an uninterrupted run. With `accelerate launch` it uses several
processes, sharded if the configuration requests it (docs/scale.md). With a teacher, both stages also learn from its
predictions (`teaching`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import set_seed

from tokalign_lab.adaptation.card import card_of
from tokalign_lab.adaptation.checkpoints import (
    Checkpoint,
    KeepOneWhole,
    begin,
    check_folder,
    latest_checkpoint,
    remove_all,
)
from tokalign_lab.adaptation.coverage import coverage, in_words, new_tokens
from tokalign_lab.adaptation.data import Mix, OrderedBlocks, check_sequences, mixed
from tokalign_lab.adaptation.divergence import LossWatch
from tokalign_lab.adaptation.events import Emit, Interrupt, Reporter, continue_text
from tokalign_lab.adaptation.guard import Guard, Measured
from tokalign_lab.adaptation.loss import ChunkedLoss
from tokalign_lab.adaptation.probes import Probe, all_probes, answered, ask
from tokalign_lab.adaptation.processes import Processes, is_sharded
from tokalign_lab.adaptation.recovery.branches import reads_branches
from tokalign_lab.adaptation.recovery.objective import Objective
from tokalign_lab.adaptation.recovery.recovery_loss import RecoveryLoss
from tokalign_lab.adaptation.rows import UsedRows, can_use_rows, frozen_rows
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.stages import Stage, plan_stages, set_trainable
from tokalign_lab.adaptation.teacher import check_same_tokenizer
from tokalign_lab.adaptation.teaching import DistilledLoss, Teaching, check_student, prepare_teaching
from tokalign_lab.adaptation.trainer import OrderedTrainer, check_trackers, trackers, without_cache
from tokalign_lab.corpus import Corpus
from tokalign_lab.cross_tokenizer.source import SourceTeacher
from tokalign_lab.device import describe_device, pick_device
from tokalign_lab.documents import Document, excerpts, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.head import Head
from tokalign_lab.files import atomic_folder
from tokalign_lab.model.load import files_of, load_model
from tokalign_lab.model.save import load_source, save_model
from tokalign_lab.model.shards import check_further_heads
from tokalign_lab.vocabulary import Vocabulary

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

    Returns the folder of the tuned model. Raises `InputError` for a model, text or teacher that cannot be used, a model
    with heads that predict further tokens, a tracker that is not installed, or a folder `checkpoints` with foreign
    files. Raises `Diverged` if the loss is not finite, or has risen and does not recover.

    Parameters
    ----------
    model_name : a model folder with its tokenizer (or catalogue name, or hub id)
    text : as for `read_documents`; a part of it is held out and measured
    settings : the run's settings
    folder : gets `checkpoints/` during the run and `model/` at its end; also `tensorboard/` if the settings report to
        it
    emit : receives the events (see `adaptation.events`)
    interrupt : called at every step boundary; an exception ends the run, after a checkpoint of the completed steps
    resume : continue from the last complete checkpoint in `folder`, if there is one
    max_bytes : use at most this many bytes of the text
    device : "cpu" or "cuda"; by default the best one
    """
    from tokalign_lab.catalog import load_vocabulary

    check_trackers(settings.trackers)
    processes = Processes(pick_device(device))
    if not processes.is_first:  # only the first one reports and is interrupted
        emit, interrupt = lambda event: None, lambda: None
    root = folder / "checkpoints"
    stages = plan_stages(settings, processes.count)
    tuned = folder / "model"
    if processes.is_first:
        check_folder(root)
    if resume and tuned.is_dir() and not root.exists():  # killed after its end, while it removed its checkpoints
        if processes.is_first:
            remove_all(root)
        return tuned
    checkpoint = latest_checkpoint(root, stages) if resume else None
    emit({"kind": "device", "device": describe_device(processes.device), "processes": processes.count})

    check_further_heads(files_of(model_name), "take them out of a copy of its files and tune that")
    vocabulary = load_vocabulary(model_name)
    taught_by = load_vocabulary(settings.teacher) if settings.teacher else None
    if taught_by is not None:
        check_same_tokenizer(taught_by, vocabulary)
    if processes.is_first:
        begin(root, resume)
    documents = read_documents(text, max_bytes=max_bytes, seed=settings.seed)
    train, held_out = split_documents(documents, settings.held_out_share, settings.seed)
    with processes.first_goes_first():  # it tokenises, the others find the corpus in the cache
        corpus = Corpus.build(train, vocabulary)
    mix = mixed(corpus, train, vocabulary, settings.sequence_length, settings.seed, settings.mix, settings.temperature)
    interrupt()

    done = checkpoint.steps_done if checkpoint else 0
    guard = Guard(root / "best", settings.patience, done)
    learns = bool(settings.source_losses) and done < settings.steps
    source, reason = _source_of(model_name, learns and settings.needs_source, processes.device)
    probes = answered(*source, all_probes()) if source else all_probes()
    source_vocabulary = source[1] if source else None
    frozen = _frozen(vocabulary, source_vocabulary, reason) if settings.freeze_shared_rows else None
    source = source if learns else None  # not kept in memory for the probes alone
    measured = excerpts(held_out, settings.evaluate_bytes, seed=settings.seed)
    model = _load(str(checkpoint.path) if checkpoint else model_name, processes)
    _check_fit(model, vocabulary, settings)
    teaching = None
    if taught_by is not None and done < settings.steps:
        teaching = prepare_teaching(settings, taught_by, vocabulary, mix, processes, emit, interrupt)
    recovery = _recovery(settings, model, source, vocabulary, reason, emit) if learns else None
    del source
    run = _Run(
        settings, mix, vocabulary, measured, probes, teaching, recovery, frozen, guard, root, processes, emit, interrupt
    )
    if resume:
        emit({"kind": "resumed", "step": done})
    read = np.concatenate([run.data(stage).ids(vocabulary.size) for stage in stages])
    read = read if frozen is None else read[~frozen.numpy()[read]]
    found = coverage(read, vocabulary, held_out, source_vocabulary)
    emit({"kind": "coverage", **found})
    emit({"kind": "progress", "share": 0.0, "message": in_words(found)})
    if done == 0:
        run.measure(model, 0, stages[0])
    for stage in stages:
        if done < stage.first_step + stage.steps and not guard.reason:
            here = checkpoint if checkpoint is not None and checkpoint.stage == stage else None
            model = run.stage(model, stage, stages, here)
    model = run.kept(model, model_name)
    if processes.is_first:
        model.requires_grad_(True)
        save_model(model, vocabulary, tuned, card_of(model_name, settings, train, guard, processes.count))
        remove_all(root)
    processes.wait()
    return tuned


def _load(name: str, processes: Processes) -> PreTrainedModel:
    """Load a model to train; one that will be sharded stays in CPU memory for now."""
    return load_model(name, torch.device("cpu") if is_sharded() else processes.device)


@dataclass(frozen=True)
class _Run:
    """State shared by both stages."""

    settings: AdaptSettings
    mix: Mix
    vocabulary: Vocabulary
    held_out: Sequence[Document]
    probes: Sequence[Probe]
    teaching: Teaching | None
    recovery: tuple[SourceTeacher, Objective] | None
    frozen: torch.Tensor | None
    guard: Guard
    root: Path
    processes: Processes
    emit: Emit
    interrupt: Interrupt

    def measure(self, model: PreTrainedModel, step: int, stage: Stage) -> None:
        """Measure held-out text and probes, continue the prompts, and keep the weights if they are the best so far."""
        interrupt = self.interrupt if self.processes.count == 1 else lambda: None
        here = {"step": step, "stage": stage.number}
        result = bits_per_byte(model, self.vocabulary, self.held_out, progress=lambda share, message: interrupt())
        right = ask(model, self.vocabulary, self.probes)
        share = sum(right) / len(right) if right else math.nan
        self.emit(
            {
                "kind": "evaluation",
                **here,
                "bytes": result.bytes,
                "bits_per_byte": result.bits_per_byte,
                "by_slice": result.by_slice,
                "bytes_by_slice": result.bytes_by_slice,
                "probes": len(self.probes),
                "probes_answered": share if right else None,
                "probes_lost": [probe.prompt for probe, one in zip(self.probes, right, strict=True) if not one],
            }
        )
        for prompt in self.settings.prompts:
            interrupt()
            text = continue_text(model, self.vocabulary, prompt, self.settings.sample_tokens)
            self.emit({"kind": "sample", **here, "prompt": prompt, "text": text})
        best = self.guard.add(Measured(step, result.bits_per_byte, share))
        if best and step and self.settings.patience and not is_sharded() and self.processes.is_first:
            with atomic_folder(self.guard.folder / "model", lambda kept: (kept / "config.json").is_file()) as folder:
                model.save_pretrained(folder)

    def kept(self, model: PreTrainedModel, name: str) -> PreTrainedModel:
        """Return the model of the kept step; `model` is the one of the last step."""
        best, last = self.guard.best, self.guard.measured[-1]
        stopped = self.guard.reason if last.step < self.settings.steps else ""
        if best != last and not is_sharded():  # sharded weights are not saved at each measurement
            model = _load(str(self.guard.folder / "model") if best.step else name, self.processes)
            stopped = stopped or self.guard.verdict
        if stopped:
            self.emit({"kind": "kept", "step": best.step, "last_step": last.step, "reason": stopped})
        return model

    def stage(
        self, model: PreTrainedModel, stage: Stage, stages: Sequence[Stage], checkpoint: Checkpoint | None
    ) -> PreTrainedModel:
        """Run one stage to its end, from its beginning or a checkpoint; returns the model to continue with."""
        settings = self.settings
        set_seed(settings.seed + stage.number)
        trained = set_trainable(model, stage.number)
        reported = {"stage": stage.number, "step": stage.first_step, "steps": stage.steps, "trained": len(trained)}
        self.emit({"kind": "stage", **reported})
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        data, loss = self.data(stage), self.loss(model)
        read = torch.from_numpy(data.ids(self.vocabulary.size))
        with ExitStack() as stack:
            stack.callback(model.register_forward_pre_hook(without_cache, with_kwargs=True).remove)
            if loss is not None:
                stack.enter_context(loss)
            used = None
            if can_use_rows(model, settings.weight_decay) and not is_sharded():
                used = UsedRows(model, read if loss is None else torch.unique(torch.cat([read, loss.further_ids])))
                stack.callback(used.close)
            if self.frozen is not None:
                stack.enter_context(frozen_rows(model, self.frozen, used))
                read = read[~self.frozen[read]]
            self._train(model, stage, checkpoint, data, read, used, dict if loss is None else loss.means)
        if not is_sharded():
            return model
        last = latest_checkpoint(self.root, stages)  # the model in memory is sharded
        assert last is not None  # a stage ends with a checkpoint
        model = _load(str(last.path), self.processes)
        self.processes.wait()  # the first process removes the checkpoints when all is done
        return model

    def loss(self, model: PreTrainedModel) -> ChunkedLoss | None:
        """Return the object that computes the model's loss in training; None if the model itself does."""
        head = Head(model)
        if self.teaching is not None:
            return DistilledLoss(model, head, self.teaching, self.processes)
        if self.recovery is not None:
            source, objective = self.recovery
            return RecoveryLoss(model, head, source, self.vocabulary, objective, self.processes)
        return ChunkedLoss(model, head) if head.in_chunks else None

    def _train(
        self,
        model: PreTrainedModel,
        stage: Stage,
        checkpoint: Checkpoint | None,
        data: OrderedBlocks,
        head_rows: torch.Tensor,
        used: UsedRows | None,
        parts: Callable[[], dict[str, float]],
    ) -> None:
        settings, per_step = self.settings, self.settings.sequences(self.processes.count)
        lengths = np.array([len(spelled or b"") for spelled in self.vocabulary.token_bytes])

        def evaluate(step: int) -> bool:
            with used.whole() if used else nullcontext():
                self.measure(model, step, stage)
            if followers:
                trainer.log({"eval_bits_per_byte": self.guard.measured[-1].bits_per_byte})
            return bool(self.guard.reason) and stage.number == 2

        reporter = Reporter(
            stage,
            settings,
            LossWatch(self.vocabulary.size),
            self.emit,
            self.interrupt,
            evaluate,
            lambda step: data.n_bytes((step - 1) * per_step, per_step, lengths),
            parts,
            self.processes,
        )
        followers = trackers(settings.trackers, self.root.parent / "tensorboard" / f"stage{stage.number}")
        whole = KeepOneWhole(self.root, self.processes)  # a checkpoint is complete before a run stops
        callbacks = [*followers, whole, reporter]
        trainer = OrderedTrainer(model, stage, settings, self.root, self.processes, data, head_rows, used, callbacks)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # undo the bf16 wrapper of its forward pass
        if reporter.stop is not None:  # requested in a step without a checkpoint
            raise reporter.stop

    def data(self, stage: Stage) -> OrderedBlocks:
        """Return the blocks that all processes of the stage read together."""
        per_step = self.settings.sequences(self.processes.count)
        return OrderedBlocks(
            self.mix,
            stage.first_step * per_step,
            stage.steps * per_step,
            apart=not self.settings.cross_documents,
            taught=None if self.teaching is None else self.teaching.uses_teacher,
        )


def _source_of(
    model_name: str, needed: bool, device: torch.device
) -> tuple[tuple[PreTrainedModel, Vocabulary] | None, str]:
    """Load the source model and its tokenizer; if that is impossible and not required, return the reason."""
    try:
        return load_source(model_name, device), ""
    except InputError as error:
        if needed:
            raise
        return None, str(error)


def _frozen(vocabulary: Vocabulary, source: Vocabulary | None, reason: str) -> torch.Tensor:
    """Return which ids the source has too (or have no text), bool (vocab_size,); `reason` is why `source` is None."""
    if source is None:
        raise InputError(f"freeze_shared_rows needs the source's tokenizer, which cannot be read. {reason}")
    if is_sharded():
        raise InputError("Rows of a sharded model cannot be frozen; leave out freeze_shared_rows, or do not shard.")
    frozen = torch.ones(vocabulary.size, dtype=torch.bool)
    frozen[torch.from_numpy(new_tokens(vocabulary, source))] = False
    if frozen.all():
        raise InputError("The source has all tokens of this model, so freeze_shared_rows would leave no row to train.")
    return frozen


def _recovery(
    settings: AdaptSettings,
    model: PreTrainedModel,
    source: tuple[PreTrainedModel, Vocabulary] | None,
    vocabulary: Vocabulary,
    reason: str,
    emit: Emit,
) -> tuple[SourceTeacher, Objective] | None:
    """Choose the losses from the source that can be computed; None if there are none.

    An event names the losses in use (`losses`), and why some losses of the default recipe are not used (`reason`).
    Raises `InputError` if a requested loss cannot be computed.
    """
    losses, teacher = dict(settings.source_losses), None
    try:
        teacher = SourceTeacher(*source, vocabulary) if source else None
    except InputError as error:
        if settings.needs_source:
            raise
        reason = str(error)
    if teacher is None:
        losses = {}
    elif losses.get("branches") and not reads_branches(model, settings.sequence_length):
        reason = (
            f"A model of type {model.config.model_type!r} does not read branches in sequences of "
            f"{settings.sequence_length} tokens"
        )
        if settings.losses:
            raise InputError(f"{reason}; leave branches out of the losses.")
        del losses["branches"]
        reason += ", so it does not learn from them."
    emit({"kind": "source", "losses": losses, "reason": reason})
    n_layers = model.config.get_text_config().num_hidden_layers
    return None if teacher is None else (teacher, Objective.of(losses, n_layers))


def _check_fit(model: PreTrainedModel, vocabulary: Vocabulary, settings: AdaptSettings) -> None:
    vocabulary.check_rows(len(model.get_input_embeddings().weight), advice="rearrange it for that tokenizer first")
    check_sequences(model, settings.sequence_length, not settings.cross_documents)
    if settings.teacher:
        check_student(model)
