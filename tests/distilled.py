"""The loss of a batch with a teacher, from the input of the student's head, as `DistilledLoss` computes it in a run."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from tokalign_lab.adaptation import loss as module
from tokalign_lab.adaptation.distillation import DistillationTerm, Predictions
from tokalign_lab.adaptation.loss import IGNORED, head_loss
from tokalign_lab.adaptation.settings import DistillationSettings


class Distilled(NamedTuple):
    """The loss (next_token + weight T^2 divergence) with its graph, and both parts as means over positions."""

    loss: torch.Tensor
    next_token: torch.Tensor
    divergence: torch.Tensor
    positions: int


def distillation_loss(
    states: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    teacher: Predictions,
    settings: DistillationSettings,
    vocab_size: int,
    bias: torch.Tensor | None = None,
    cap: float | None = None,
    distilled: torch.Tensor | None = None,
    chunk_bytes: int | None = None,
) -> Distilled:
    """Compute the loss of a batch.

    `teacher` has the predictions at all positions. Positions with the label -100 have no loss, and positions that are
    not `distilled` have no divergence.
    """
    predicted = labels != IGNORED
    n = int(predicted.sum())
    states, labels, teacher = states[predicted], labels[predicted], teacher[predicted]
    distilled = torch.ones_like(labels, dtype=torch.bool) if distilled is None else distilled[predicted]
    teacher = teacher[distilled]
    term = DistillationTerm(labels, teacher, settings, vocab_size, distilled)
    with pytest.MonkeyPatch.context() as patch:
        if chunk_bytes is not None:
            patch.setattr(module, "_CHUNK_BYTES", {"cpu": chunk_bytes})
        loss = head_loss(states, weight, bias, cap, term, n)
    return Distilled(loss, term.next_token / n, term.divergence / n, n)
