"""The source's prediction of the next token, compared with the student's at positions where this is possible.

At these positions both models have read the same bytes, but they predict over different vocabularies. There are two
comparisons:

- `SharedTokens`: at positions where the next token of both has the same bytes, over the shared tokens, with both sides
  renormalised to them ("strict 1:1 positions", arXiv 2610.08448).
- `Expected`: the student writes a source token with one or several tokens, and the first of them gets the source
  token's probability (see `pieces`; arXiv 2607.22334 takes the longest token that is a prefix). This is not exact if
  the student has a longer token that begins with the source's.

`ComparedNext`, a `loss.Term`, uses both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tokalign_lab.adaptation.distillation import LivePredictions
from tokalign_lab.adaptation.settings import DistillationSettings
from tokalign_lab.cross_tokenizer.pieces import separators
from tokalign_lab.evaluation.head import Head
from tokalign_lab.vocabulary import Vocabulary, shared_tokens

TEMPERATURE, SOFT_WEIGHT = 4.0, 0.3
"""Of the KL at a high temperature in `Expected`; docs/decisions/0016-recovery-defaults.md has the figures."""


Compared = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Compares the student with predictions of the source.

It gets the student's logits, float (n, vocab_size), at chosen positions, and the indices of these positions, int64
(n,). It returns KL, float (n,) in nats, and its gradient in the logits.
"""


def shared_ids(student: Vocabulary, source: Vocabulary) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of shared tokens, by bytes or by role, each once: student, source, int64 (n,)."""
    found = shared_tokens(source, student)
    mine_of = {yours: mine for mine, yours in separators(student, source)}
    for mine, yours in zip(found.target_ids.tolist(), found.source_ids.tolist(), strict=True):
        mine_of.setdefault(yours, mine)
    pairs = sorted((mine, yours) for yours, mine in mine_of.items())
    mine, yours = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return mine, yours


class SharedTokens:
    """Predictions over the shared tokens, compared by KL(source || student).

    Parameters
    ----------
    hidden : float (positions, d): input of the source's head at the positions
    head : the source's
    ids : see `shared_ids`
    """

    def __init__(self, hidden: torch.Tensor, head: Head, ids: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._mine = ids[0].to(hidden.device)
        yours = ids[1].to(hidden.device)
        weight, bias, cap = head.tensors
        rows = weight.detach()[yours]
        self._of = LivePredictions(hidden, rows, None if bias is None else bias.detach()[yours], cap)

    def __call__(self, logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Compared`."""
        log_s = torch.log_softmax(logits[:, self._mine], dim=1)
        kl, gradient = self._of[chosen].divergence(log_s, slice(None), DistillationSettings())
        return kl, torch.zeros_like(logits).index_copy_(1, self._mine, gradient)


class Expected:
    """Predictions of the source, as probabilities of some of the student's tokens; compared by KL(source || student).

    Added is KL at a high temperature over these tokens alone, times T^2 (Hinton et al. 2015, arXiv 1503.02531, section
    2). At temperature 1, a token that is unlikely everywhere gets hardly any gradient, although the source knows where
    it is less unlikely.

    Parameters
    ----------
    ids : int64 (positions, k): the student's tokens. A token may occur several times; its probabilities are added.
    probs : float (positions, k), sums to 1 at each position
    weight : float (positions,): weight of each position
    """

    def __init__(self, ids: torch.Tensor, probs: torch.Tensor, weight: torch.Tensor) -> None:
        self._ids, self._probs, self._weight = ids, probs, weight

    def __call__(self, logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Compared`."""
        weight, ids = self._weight[chosen].to(logits.dtype), self._ids[chosen]
        t = torch.zeros_like(logits).scatter_add_(1, ids, self._probs[chosen].to(logits.dtype))
        soft, at, soft_gradient = _at_high_temperature(logits, t, ids)
        log_s = torch.log_softmax(logits, dim=1)
        kl = (torch.xlogy(t, t) - t * log_s).sum(dim=1) + SOFT_WEIGHT * soft
        gradient = log_s.exp_().sub_(t).scatter_add_(1, at, soft_gradient.mul_(SOFT_WEIGHT))
        return kl * weight, gradient.mul_(weight[:, None])


def _at_high_temperature(
    logits: torch.Tensor, t: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return KL over the tokens `ids`, float (n,), and its gradient, float (n, k), in the logits of the tokens `at`.

    `t` is float (n, vocab_size), the source's probabilities.
    """
    at = ids.sort(dim=1).values
    t = t.gather(1, at)
    out = t == 0
    out[:, 1:] |= at[:, 1:] == at[:, :-1]  # each token once
    log_t, log_s = (
        torch.log_softmax(x.masked_fill(out, -torch.inf) / TEMPERATURE, dim=1) for x in (t.log(), logits.gather(1, at))
    )
    t, s = log_t.exp(), log_s.exp()
    kl = TEMPERATURE**2 * (t * (log_t - log_s).masked_fill(out, 0)).sum(dim=1)
    return kl, at, TEMPERATURE * (s - t)


class ComparedNext:
    """A divergence of next-token predictions, summed over positions; a `loss.Term`.

    Parameters
    ----------
    rows : int64 (positions,), ascending: the rows of the logits that are compared
    compared : the source's predictions at these positions
    """

    def __init__(self, rows: torch.Tensor, compared: Compared) -> None:
        self._rows = rows
        self._compared = compared

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`."""
        chosen = torch.nonzero((self._rows >= rows.start) & (self._rows < rows.stop))[:, 0]
        if not len(chosen):
            logits.zero_()
            return logits.new_zeros(())
        here = self._rows[chosen] - rows.start
        kl, gradient = self._compared(logits[here], chosen)
        logits.zero_().index_copy_(0, here, gradient)
        return kl.sum()
