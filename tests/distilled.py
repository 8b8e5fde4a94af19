"""The loss of a batch with a teacher, from what the student's head sees; as `DistilledLoss` computes it in a run."""

from __future__ import annotations

from typing import NamedTuple

import torch

from tokalign_lab.adaptation.distillation import DistillationTerm, Predictions
from tokalign_lab.adaptation.loss import IGNORED, term_loss
from tokalign_lab.adaptation.settings import DistillationSettings


class Distilled(NamedTuple):
    """Scalars: next_token + weight T^2 divergence with a graph; and both parts, means over positions."""

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
    """Predictions are those at all positions, of which labels of -100 and those not `distilled` are left out."""
    predicted = labels != IGNORED
    n = int(predicted.sum())
    states, labels, teacher = states[predicted], labels[predicted], teacher[predicted]
    distilled = torch.ones_like(labels, dtype=torch.bool) if distilled is None else distilled[predicted]
    teacher = teacher[distilled]
    term = DistillationTerm(labels, teacher, settings, vocab_size, distilled)
    loss = term_loss(states, weight, bias, cap, term, n, chunk_bytes)
    return Distilled(loss, term.next_token / n, term.divergence / n, n)
