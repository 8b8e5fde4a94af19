"""The teacher of token-level distillation: a model with the student's tokenizer, and its predictions.

The teacher reads the same blocks of ids as the student, with their bos and eos. So both read the same tokens, even if
their tokenizers add different special tokens. This requires one vocabulary: a teacher with another tokenizer is
refused. `teacher_cache` stores the predictions on disk.
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
_PASSING = ("_name_or_path", "transformers_version")  # entries of a configuration that do not affect predictions


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

    Raises `InputError` if the tokenizers differ, the teacher has fewer rows than its tokenizer has ids, or its logits
    cannot be computed from its head alone.

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
        """The teacher's device."""
        return self._head.module.weight.device

    @torch.no_grad()
    def predictions(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None = None) -> LivePredictions:
        """Run the teacher on sequences and keep the input of its head.

        Returns the predictions at batch * (length - 1) positions, row by row: the last token of each sequence predicts
        nothing.

        Parameters
        ----------
        input_ids : int64 (batch, length): the student's input, whole sequences without padding
        position_ids : int64 (batch, length), if the student's documents are separated: the teacher separates them too
        """
        return LivePredictions(self._states(input_ids, position_ids), *self._head.tensors)

    @torch.no_grad()
    def best(
        self, input_ids: torch.Tensor, k: int, temperature: float, position_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the k best tokens after each position, and the probability of the others; as `KeptPredictions`."""
        states = self._states(input_ids, position_ids)
        (weight, bias, cap), n = self._head.tensors, self.vocabulary.size
        weight, bias = weight[:n], None if bias is None else bias[:n]
        chunk = max(1, _LOGITS_BYTES.get(self.device.type, _LOGITS_BYTES["cpu"]) // (4 * n))
        parts = []
        for start in range(0, len(states), chunk):
            logits = capped_logits(states[start : start + chunk], weight, bias, cap)
            log_probs = torch.log_softmax(logits, dim=1)
            top = log_probs.topk(k, dim=1)
            rest = torch.logsumexp(log_probs.scatter_(1, top.indices, -math.inf).div_(temperature), dim=1)
            parts.append((top.indices, top.values, rest))
        ids, values, rest = (torch.cat(column) for column in zip(*parts, strict=True))
        return ids, values, rest

    def _states(self, input_ids: torch.Tensor, position_ids: torch.Tensor | None) -> torch.Tensor:
        """Return the head's input at all positions except the last of each sequence, (batch * (length - 1), d)."""
        input_ids = input_ids.to(self.device)
        if position_ids is None:
            return self._head.hidden(input_ids, torch.ones_like(input_ids))[:, :-1].flatten(0, 1)
        # with a mask, transformers does not derive the beginnings of documents from the positions
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
