"""Add losses: with fixed weights, or scaled so that their gradients have equal norms.

Losses on logits are `Part`s. `fixed_sum` adds them in one pass over the logits. `balanced_sum` needs one pass for each,
because it needs the norm of each gradient. Losses on states add their gradient by `Injection`, at their layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokalign_lab.adaptation.loss import Term, head_loss
from tokalign_lab.evaluation.head import Head

_TINY = 1e-12


@dataclass(frozen=True)
class Part:
    """One loss on the logits.

    Attributes
    ----------
    name : of the loss
    term : the term to sum
    count : integer scalar, at least 1: number of summands
    weight : weight of the mean in the total loss
    """

    name: str
    term: Term
    count: torch.Tensor
    weight: float


Combined = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""The loss, differentiable, and the mean of each part by name, without a graph."""


def fixed_sum(
    states: torch.Tensor, head: Head, parts: Sequence[Part], n: torch.Tensor, share: torch.Tensor | float
) -> Combined:
    """Add losses with their weights.

    Parameters
    ----------
    states : float (n, d): the head's input
    head : the student's
    parts : the losses to add
    n : integer scalar: the number of states
    share : a factor for the total
    """
    summed = _Sum([(part.term, part.weight * n / part.count) for part in parts])
    loss = head_loss(states, *head.tensors, summed, n / share)
    return loss, {part.name: value / part.count for part, value in zip(parts, summed.values, strict=True)}


def balanced_sum(states: torch.Tensor, head: Head, parts: Sequence[Part], share: torch.Tensor | float) -> Combined:
    """Add losses so that the norm of each loss's gradient in the states is its weight times that of the first loss.

    Parameters
    ----------
    states, head, share : as for `fixed_sum`
    parts : the losses to add, at least one; the first has its own weight
    """
    given = [states, *head.tensors[:2]]
    means: dict[str, torch.Tensor] = {}
    total: list[torch.Tensor] = []
    value = torch.zeros((), device=states.device)
    size: torch.Tensor | None = None
    for part in parts:
        leaves = [None if one is None else one.detach().requires_grad_(one.requires_grad) for one in given]
        hidden, weight, bias = leaves
        assert hidden is not None
        assert weight is not None
        hidden.requires_grad_(True)  # its norm is the reference, even if only the head is trained
        with torch.enable_grad():
            loss = head_loss(hidden, weight, bias, head.cap, part.term, part.count)
            loss.backward()  # type: ignore[no-untyped-call]
        grads = [leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None]
        here = norm([grads[0]])
        scale: torch.Tensor | float = part.weight * share
        if size is None:
            size = here
        else:
            scale = scale * size / here.clamp(min=_TINY)
        means[part.name] = loss.detach()
        value = value + scale * loss.detach()
        if total:
            for sum_, grad in zip(total, grads, strict=True):
                sum_.add_(grad * scale)
        else:
            total = [grad * scale for grad in grads]
    trained = [states, *(one for one in given[1:] if one is not None and one.requires_grad)]
    return _Given.apply(value, len(trained), *trained, *total), means  # type: ignore[no-untyped-call]


def norm(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the norm of several tensors together, a float32 scalar."""
    return torch.stack([tensor.float().norm() for tensor in tensors]).norm()


class _Sum:
    """Several terms on the same logits, each with a factor; a `loss.Term`."""

    def __init__(self, terms: list[tuple[Term, torch.Tensor]]) -> None:
        self._terms = terms
        self.values = [torch.zeros((), dtype=torch.float64)] * len(terms)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`."""
        total = logits.new_zeros(())
        summed: torch.Tensor | None = None
        last = len(self._terms) - 1
        for place, (term, factor) in enumerate(self._terms):
            mine = logits if place == last else logits.clone()
            value = term(mine, rows)
            self.values[place] = self.values[place].to(value.device) + value.double()
            total = total + factor * value
            mine.mul_(factor)
            summed = mine if summed is None else summed.add_(mine)
        if summed is not None and summed is not logits:
            logits.copy_(summed)
        return total.to(logits.dtype)


class _Given(torch.autograd.Function):
    """A value whose gradients are known: `apply(value, n, *tensors, *gradients)`."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, n: int, *given: torch.Tensor) -> torch.Tensor:
        ctx.n = n
        ctx.save_for_backward(*given[n:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, *(above * gradient for gradient in ctx.saved_tensors), *[None] * ctx.n)


class Injection(torch.autograd.Function):
    """Returns tensors unchanged, and adds given gradients to theirs in the backward pass.

    `apply(weight, balanced, n, *tensors, *gradients)`: n tensors and a gradient for each. The backward pass adds weight
    times the given gradient; if balanced, this is first scaled to the norm of the incoming gradient.
    """

    @staticmethod
    def forward(ctx: Any, weight: float, balanced: bool, n: int, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors."""
        ctx.weight, ctx.balanced, ctx.n = weight, balanced, n
        ctx.save_for_backward(*given[n:])
        return tuple(tensor.view_as(tensor) for tensor in given[:n])

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Add the gradients."""
        own = ctx.saved_tensors
        scale: torch.Tensor | float = ctx.weight
        if ctx.balanced:
            scale = ctx.weight * norm(above) / norm(own).clamp(min=_TINY)
        added = [a + (scale * g).to(a.dtype) for a, g in zip(above, own, strict=True)]
        return (None, None, None, *added, *[None] * ctx.n)
