"""The teacher in a tuning run: the sequences that it is used for, and its predictions.

Token-level distillation (TokAlign section 4.3) is used in both stages. Whether a sequence is distilled depends on the
seed and its position in the endless order of the data, so stages, resumed runs and any number of processes choose the
same sequences. The teacher runs live, on each batch just before the student. Or it reads the sequences of the run once,
before the first step, stores its best tokens (`teacher_cache.keep_predictions`), and is then freed.

`DistilledLoss` is the loss in chunks with a `DistillationTerm`. It, not the model, holds the teacher, so that no
wrapper of the model (DDP, FSDP) affects it: each process has its own teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokalign_lab.adaptation.data import Mix, OrderedBlocks, check_sequences
from tokalign_lab.adaptation.distillation import DistillationTerm, Predictions
from tokalign_lab.adaptation.events import Emit, Interrupt
from tokalign_lab.adaptation.loss import ChunkedLoss
from tokalign_lab.adaptation.processes import Processes
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.teacher import Teacher
from tokalign_lab.adaptation.teacher_cache import TeacherCache, keep_predictions
from tokalign_lab.adaptation.trainer import computes_in_bf16
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import Head
from tokalign_lab.model.load import load_model
from tokalign_lab.progress import Progress
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DRAW = 0xD15717  # keeps this draw apart from those of the data's order


def is_distilled(position: int, share: float, seed: int) -> bool:
    """Return whether the sequence at a position of the order belongs to the `share` that is distilled."""
    return float(np.random.default_rng([seed, _DRAW, position]).random()) < share


class Teaching:
    """A teacher and its use in a run.

    Parameters
    ----------
    settings : the run's settings
    vocab_size : ids that both models share
    source : the teacher, or its stored predictions; None if no sequence of the run is distilled
    """

    def __init__(self, settings: AdaptSettings, vocab_size: int, source: Teacher | TeacherCache | None) -> None:
        self.settings = settings.distillation
        self.vocab_size = vocab_size
        self._share, self._seed = settings.distillation_share, settings.seed
        self._source = source

    def uses_teacher(self, position: int) -> bool:
        """Return whether the sequence at a position of the order is distilled."""
        return is_distilled(position, self._share, self._seed)

    def predictions(self, inputs: dict[str, Any], taught: torch.Tensor) -> Predictions | None:
        """Return the teacher's predictions of a batch.

        Returns (length - 1) positions of each sequence that the teacher is used for, row by row; None if it is used for
        no sequence or there is no teacher.

        Parameters
        ----------
        inputs : input_ids, int64 (batch, length), and position_ids if documents are separated
        taught : int64 (batch,): each sequence's block, or -1 if the teacher is not used
        """
        asked = taught >= 0
        if self._source is None or not asked.any():
            return None
        if isinstance(self._source, TeacherCache):
            return self._source.predictions(taught[asked].tolist(), taught.device)
        positions = inputs.get("position_ids")
        return self._source.predictions(inputs["input_ids"][asked], None if positions is None else positions[asked])


def prepare_teaching(
    settings: AdaptSettings,
    vocabulary: Vocabulary,
    student: Vocabulary,
    mix: Mix,
    processes: Processes,
    emit: Emit,
    interrupt: Interrupt,
) -> Teaching:
    """Load the teacher of a run; if its predictions are to be stored, compute them.

    Raises `InputError` if the teacher cannot be loaded, has another tokenizer, has logits that cannot be computed from
    its head alone, cannot read sequences of this length, or is to separate documents but cannot.

    Parameters
    ----------
    settings : the run's settings; they name a teacher
    vocabulary, student : the teacher's tokenizer and the student's
    mix : the training text
    processes : the processes that share the work. The first one stores the predictions; the others wait and read them.
    emit, interrupt : as for `adapt`
    """
    teacher = Teacher(load_model(settings.teacher, device="cpu"), vocabulary, student)
    check_sequences(teacher.model, settings.sequence_length, not settings.cross_documents, "teacher")
    dtype = torch.bfloat16 if computes_in_bf16(settings, processes.device) else torch.float32
    teacher.model.to(processes.device, dtype)
    if not settings.distillation_top_k:
        return Teaching(settings, vocabulary.size, teacher)
    n = settings.steps * settings.sequences(processes.count)
    order = OrderedBlocks(mix, 0, n)
    asked = (i for i in range(n) if is_distilled(i, settings.distillation_share, settings.seed))
    numbers = [mix.number(*order.block_at(i)) for i in asked]
    if not numbers:
        return Teaching(settings, vocabulary.size, None)
    with processes.first_goes_first():
        kept = keep_predictions(
            teacher,
            mix,
            numbers,
            settings.distillation_top_k,
            settings.distillation_temperature,
            apart=not settings.cross_documents,
            progress=_in_percent(emit),
            interrupt=interrupt,
        )
    return Teaching(settings, vocabulary.size, kept)


def check_student(model: PreTrainedModel) -> None:
    """Make sure that a model's loss can be computed from the input of its head.

    Raises `InputError` if the model's logits cannot be computed from its head alone.
    """
    if not Head(model).in_chunks:
        raise InputError(
            f"A model of type {model.config.model_type!r} changes its logits after the head; it cannot be taught. "
            "Let it learn from text that the teacher writes (`tokalign-lab generate`)."
        )


class DistilledLoss(ChunkedLoss):
    """Within the block, a model computes the next-token loss and its divergence from a teacher.

    Batches carry `taught` (see `OrderedBlocks`) in addition to ids and labels.
    """

    def __init__(self, model: PreTrainedModel, head: Head, teaching: Teaching, processes: Processes) -> None:
        super().__init__(model, head)
        self._teaching = teaching
        self._processes = processes
        self._asked: torch.Tensor | None = None
        self._predictions: Predictions | None = None
        self._term: DistillationTerm | None = None
        self._sums = torch.zeros(3, dtype=torch.float64)  # next token, divergence, positions

    def take(self, inputs: dict[str, Any]) -> None:
        """Select what the loss needs, and get the teacher's predictions; without `taught` there are none."""
        super().take(inputs)
        self._collect()
        taught = inputs.pop("taught", None)
        if taught is not None:
            self._asked = taught >= 0
            self._predictions = self._teaching.predictions(inputs, taught)

    def term(self, labels: torch.Tensor, predicted: torch.Tensor) -> DistillationTerm:
        """See `ChunkedLoss`."""
        assert self._asked is not None  # every batch of training has `taught`
        distilled = self._asked[:, None].expand_as(predicted)[predicted]
        predictions, self._predictions = self._predictions, None
        if predictions is not None:
            predictions = predictions[predicted[self._asked].flatten()]
        teaching = self._teaching
        self._term = DistillationTerm(labels, predictions, teaching.settings, teaching.vocab_size, distilled)
        return self._term

    def means(self) -> dict[str, float]:
        """Return the sums since the last call over all processes; every process must call this.

        Returns next_token and divergence in nats, means over all predicted positions. The loss is next_token + weight *
        temperature^2 * divergence. A sequence that is not distilled has a divergence of 0.
        """
        self._collect()
        next_token, divergence, n = self._processes.total(self._sums).tolist()
        self._sums.zero_()
        return {"next_token": next_token / max(n, 1), "divergence": divergence / max(n, 1)}

    def _collect(self) -> None:
        """Add the sums of the last batch, and free its predictions."""
        if self._term is None:
            return
        sums = torch.stack([self._term.next_token, self._term.divergence]).cpu()
        self._sums += torch.cat([sums, torch.tensor([len(self._term.labels)], dtype=torch.float64)])
        self._term = None


def _in_percent(emit: Emit) -> Progress:
    """Report the progress of the work before the first step, at most a hundred times."""
    last = -1

    def report(share: float, message: str) -> None:
        nonlocal last
        if int(100 * share) > last:
            last = int(100 * share)
            emit({"kind": "progress", "share": 0.0, "message": f"{message} ({last} %)"})

    return report
