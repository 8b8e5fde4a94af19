"""A teacher of token-level distillation: a model with the student's tokenizer, and what it predicts.

The teacher reads the very blocks of ids that the student is trained on, with their bos and eos, so that both
see the same tokens whatever their tokenizers would put in front by themselves. That requires one vocabulary: a teacher
with another tokenizer is refused. `teacher_cache` keeps its predictions on disk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from tokalign_lab.adaptation.distillation import LivePredictions
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import capped_logits, head_to_learn_from
from tokalign_lab.files import hash_of
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS_BYTES = {"cpu": 1 << 26, "cuda": 1 << 29}  # of one chunk of float32 logits; about three are held
_PASSING = ("_name_or_path", "transformers_version")  # of a configuration: do not affect predictions


def check_same_tokenizer(teacher: Vocabulary, student: Vocabulary) -> None:
    """Make sure that two models share a vocabulary. Raises `InputError` if their tokenizers differ."""
    if teacher.fingerprint != student.fingerprint:
        raise InputError(
            f"The teacher's tokenizer ({teacher.name}, {teacher.size} ids) is not the student's ({student.name}, "
            f"{student.size} ids), but token-level distillation needs one vocabulary; rearrange the student to the "
            "teacher's first (with --special-tokens target), or let it learn from text that the teacher writes."
        )


class Teacher:
    """A model whose predictions a student learns from.

    Raises `InputError` if the tokenizers differ, the teacher has fewer rows than its tokenizer has ids, or it does more
    to its logits than its head does.

    Parameters
    ----------
    model : the teacher; its weights are not changed
    vocabulary : its tokenizer
    student : the student's tokenizer
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, student: Vocabulary) -> None:
        check_same_tokenizer(vocabulary, student)
        self.vocabulary = vocabulary
        self.model = model.eval()
        self._head = head_to_learn_from(model, vocabulary, "teacher")

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self._head.module.weight.device

    @torch.no_grad()
    def predictions(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> LivePredictions:
        """Read sequences and keep what the head sees.

        Returns the predictions at batch * (length - 1) positions, row by row: each sequence's tokens but its last
        predict the next.

        Parameters
        ----------
        input_ids : int64 (batch, length): the student's own input, whole sequences without padding
        position_ids : int64 (batch, length), where the student's documents are kept apart: the teacher keeps them apart
            too
        """
        head = self._head.module
        states = self._states(input_ids, position_ids)
        return LivePredictions(states, head.weight, getattr(head, "bias", None), self._head.cap)

    @torch.no_grad()
    def best(
        self, input_ids: torch.Tensor, k: int, temperature: float, position_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the k best tokens after each position, and the mass of the others; as `KeptPredictions`."""
        states = self._states(input_ids, position_ids)
        head, n = self._head.module, self.vocabulary.size
        weight = head.weight[:n]
        bias = None if getattr(head, "bias", None) is None else head.bias[:n]
        chunk = max(1, _LOGITS_BYTES.get(self.device.type, _LOGITS_BYTES["cpu"]) // (4 * n))
        parts = []
        for start in range(0, len(states), chunk):
            logits = capped_logits(states[start : start + chunk], weight, bias, self._head.cap)
            log_probs = torch.log_softmax(logits, dim=1)
            top = log_probs.topk(k, dim=1)
            rest = torch.logsumexp(log_probs.scatter_(1, top.indices, -math.inf).div_(temperature), dim=1)
            parts.append((top.indices, top.values, rest))
        ids, values, rest = (torch.cat(column) for column in zip(*parts, strict=True))
        return ids, values, rest

    def _states(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None) -> torch.Tensor:
        """Return what the head sees at all positions but each sequence's last, (batch * (length - 1), d)."""
        input_ids = input_ids.to(self.device)
        if position_ids is None:
            return self._head.hidden(input_ids, torch.ones_like(input_ids))[:, :-1].flatten(0, 1)
        # with a mask, transformers does not look at the positions for where documents begin
        return self._head.hidden(input_ids, None, position_ids.to(self.device))[:, :-1].flatten(0, 1)

    def fingerprint(self) -> str:
        """SHA-256 of the weights, their dtypes and the configuration, as hex."""
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in _PASSING}
        tensors = self.model.state_dict()

        def parts() -> Iterator[bytes]:
            yield json.dumps(config, sort_keys=True, default=str).encode()
            for name in sorted(tensors):
                tensor = tensors[name].detach().cpu().contiguous()
                yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
                yield tensor.flatten().view(torch.uint8).numpy().tobytes()

        return hash_of(parts())
