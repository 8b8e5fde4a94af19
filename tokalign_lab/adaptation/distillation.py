"""Token-level distillation: the student learns the next token and the teacher's full distribution.

TokAlign section 4.3: once teacher and student share a vocabulary, the student learns from the text and from the
teacher's prediction at every position (Hinton et al. 2015):

    loss = mean over positions of  -log s(next token)  +  weight T^2 KL(t_T || s_T)

t_T and s_T are the softmax of the teacher's and the student's logits divided by the temperature T; T^2 keeps the size
of the gradient when T changes. "forward" is KL(t || s), "reverse" KL(s || t). The papers state neither direction, nor
weight, nor temperature; the defaults here are forward, 1 and 1. If only a share of the sequences is distilled, the
others have only the first term.

The teacher runs live (its states and head), or its k best tokens are read from a cache (`teacher_cache`). The cache has
k + 1 outcomes: the k tokens and one for all others. By the chain rule of KL, the error of this is known exactly:

    KL(t || s) = KL over k + 1 outcomes + t(others) KL(t given others || s given others)

so the cached KL is never above the true one, and is lower by the probability of the others times the divergence among
them. If the student equals the teacher, the KL and its gradient are zero.

No tensor of all logits exists: `DistillationTerm` is a `loss.Term`. It gets the student's logits in chunks and replaces
each chunk by its gradient. With u = logits / T and o(j) the outcome that token j belongs to:

    forward:  dKL/du_j = s_j - t_o s_j / s_o        reverse:  dKL/du_j = s_j (log s_o - log t_o - KL)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from tokalign_lab.adaptation.settings import DistillationSettings
from tokalign_lab.cross_tokenizer.tensor_table import TensorTable
from tokalign_lab.evaluation.head import capped_logits


@dataclass(frozen=True, eq=False)
class LivePredictions:
    """The teacher's full predictions, computed from the input of its head.

    Attributes
    ----------
    states : float (positions, d): the input of the teacher's head
    weight : float (rows, d): the teacher's head; rows beyond the shared vocabulary (padding) are dropped
    bias : float (rows,), if the head has one
    cap : the teacher's soft-cap, if it has one
    """

    states: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    cap: float | None = None

    def __getitem__(self, positions: torch.Tensor) -> LivePredictions:
        """Return the predictions at some positions, given as a mask or as indices."""
        return replace(self, states=self.states[positions])

    def divergence(
        self, log_s: torch.Tensor, rows: slice, settings: DistillationSettings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare a chunk of the student with the teacher.

        Returns the KL of each position, float (n,), in nats; and its gradient with respect to the student's logits /
        temperature, float (n, vocab_size).

        Parameters
        ----------
        log_s : float (n, vocab_size): the student's log probabilities at the temperature
        rows : which positions these are
        settings : temperature and direction
        """
        n = log_s.shape[1]
        bias = None if self.bias is None else self.bias[:n]
        logits = capped_logits(self.states[rows], self.weight[:n], bias, self.cap)
        log_t = torch.log_softmax(logits.to(log_s.dtype).div_(settings.temperature), dim=1)
        ratio = log_t - log_s
        if settings.direction == "forward":
            t = log_t.exp_()
            return (t * ratio).sum(dim=1), log_s.exp().sub_(t)
        s = log_s.exp()
        kl = -(s * ratio).sum(dim=1)
        return kl, s.mul_(ratio.neg_().sub_(kl[:, None]))


@dataclass(frozen=True, eq=False)
class KeptPredictions(TensorTable):
    """The teacher's k best tokens at each position, and the probability of all others as one more outcome.

    Attributes
    ----------
    input_ids : int64 (positions, k): the k best tokens, all different
    log_probs : float (positions, k): their log probabilities, at temperature 1
    log_rest : float (positions,): log of the sum over all other tokens of p^(1 / temperature), of the run's temperature
    """

    input_ids: torch.Tensor
    log_probs: torch.Tensor
    log_rest: torch.Tensor

    def divergence(
        self, log_s: torch.Tensor, rows: slice, settings: DistillationSettings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compare a chunk as `LivePredictions` does; the KL is that over k + 1 outcomes."""
        ids = self.input_ids[rows]
        outcomes = torch.cat([self.log_probs[rows] / settings.temperature, self.log_rest[rows, None]], dim=1)
        log_t = torch.log_softmax(outcomes.to(log_s.dtype), dim=1)  # of k + 1 outcomes; also corrects their rounding
        kept = log_s.gather(1, ids)
        rest = torch.logsumexp(log_s.scatter(1, ids, -math.inf), dim=1, keepdim=True)
        ratio = log_t - torch.cat([kept, rest], dim=1)
        if settings.direction == "forward":
            t = log_t.exp()
            kl = (t * ratio).sum(dim=1)
            gradient = log_s.exp().sub_((log_s + ratio[:, -1:]).exp_())
            return kl, gradient.scatter_(1, ids, kept.exp() - t[:, :-1])
        kl = -(torch.cat([kept, rest], dim=1).exp() * ratio).sum(dim=1)
        factor = -ratio - kl[:, None]
        gradient = log_s.exp().mul_(factor[:, -1:])
        return kl, gradient.scatter_(1, ids, kept.exp() * factor[:, :-1])


Predictions = LivePredictions | KeptPredictions
"""A teacher's predictions at a number of positions."""


@dataclass(eq=False)
class DistillationTerm:
    """The next-token loss plus the divergence from the teacher, summed over positions.

    `next_token` and `divergence` are float64 scalars: the two sums so far in nats, the second without weight and T^2.

    Attributes
    ----------
    labels : int64 (positions,), each a token id
    teacher : the teacher's predictions at the distilled positions, in order; None if there are none
    settings : weight, temperature, direction
    vocab_size : ids that both models share; rows beyond them are padding and are not compared
    distilled : bool (positions,): where the teacher is used
    """

    labels: torch.Tensor
    teacher: Predictions | None
    settings: DistillationSettings
    vocab_size: int
    distilled: torch.Tensor

    def __post_init__(self) -> None:
        self.next_token = torch.zeros((), dtype=torch.float64, device=self.labels.device)
        self.divergence = torch.zeros_like(self.next_token)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return the sum of the loss over a chunk, and overwrite the chunk's logits with the gradient."""
        settings = self.settings
        scale = settings.weight * settings.temperature**2
        here = self.distilled[rows].nonzero()[:, 0]  # of this chunk
        pulled = None
        if scale and self.teacher is not None and len(here):
            before = int(self.distilled[: rows.start].sum())
            compared = logits[:, : self.vocab_size]
            compared = compared if len(here) == len(logits) else compared[here]
            log_s = torch.log_softmax(compared / settings.temperature, dim=1)
            kl, pulled = self.teacher.divergence(log_s, slice(before, before + len(here)), settings)
            self.divergence += kl.sum()
        labels = self.labels[rows, None]
        nats = torch.logsumexp(logits, dim=1) - logits.gather(1, labels)[:, 0]
        self.next_token += nats.sum()
        torch.softmax(logits, dim=1, out=logits)
        logits.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=logits.dtype))
        if pulled is None:
            return nats.sum()
        # d/dlogits = 1/T d/du
        logits[:, : self.vocab_size].index_add_(0, here, pulled, alpha=scale / settings.temperature)
        return nats.sum() + scale * kl.sum()
