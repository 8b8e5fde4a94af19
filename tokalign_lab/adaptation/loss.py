"""The loss over a large vocabulary without the full logits: one chunk of positions at a time, with its gradients.

The logits of a thousand positions over 262k tokens take a gigabyte, and the usual cross entropy holds four such
tensors. Here, a chunk of logits is computed, replaced in place by the gradient of the loss, multiplied into the
gradients of the states and of the head, and overwritten by the next chunk. Both matrix products of the backward pass
are done in the forward pass, so that no logits are computed twice (as in Hsu et al. 2024, Liger Kernel, fused linear
cross entropy). Logits are float32 for any dtype of the weights (float64 if the states are float64).

A `Term` defines the summands: `NextToken` is the cross entropy. Another term, such as a divergence from a teacher,
takes the same logits and computes its own gradient.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch

from tokalign_lab.evaluation.head import Head, capped_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED = -100  # the label of a position without a loss, as in transformers
_CHUNK_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}  # of float32 logits


class Term(Protocol):
    """A loss over next tokens, as a sum over positions."""

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return the sum of the loss over a chunk, and overwrite the chunk with its gradient.

        Returns a scalar of the logits' dtype; no autograd graph is kept.

        Parameters
        ----------
        logits : float32 (float64 where the states are), (positions of the chunk, vocab_size): the model's logits
        rows : which of all positions these are
        """
        ...


class NextToken:
    """Cross entropy: the negative log probability of the next token.

    Parameters
    ----------
    labels : int64 (positions,), each a token id
    """

    def __init__(self, labels: torch.Tensor) -> None:
        self.labels = labels

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `Term`; the gradient is softmax minus one-hot."""
        here = self.labels[rows, None]
        wanted = logits.gather(1, here)
        highest, place = logits.max(dim=1, keepdim=True)
        torch.softmax(logits, dim=1, out=logits)
        # log sum exp = highest logit - its log probability; that of a rare token itself could underflow
        loss = (highest - logits.gather(1, place).log() - wanted).sum()
        logits.scatter_add_(1, here, torch.full_like(wanted, -1.0))
        return loss


def head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    cap: float | None,
    term: Term,
    divisor: torch.Tensor | float,
) -> torch.Tensor:
    """Sum a term over the positions of `hidden`, divided by `divisor`; differentiable in states and head.

    Returns a float32 scalar (float64 where the states are).

    Parameters
    ----------
    hidden : shape (positions, d): the head's input
    weight, bias, cap : `Head.tensors` of the model
    term : the loss term to sum
    divisor : usually the number of all positions
    """
    return _HeadLoss.apply(hidden, weight, bias, cap, term, divisor)  # type: ignore[no-untyped-call]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        cap: float | None,
        term: Term,
        divisor: torch.Tensor | float,
    ) -> torch.Tensor:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):
            loss, *grads = _chunks(hidden.to(dtype), weight.to(dtype), bias, cap, term, divisor, ctx.needs_input_grad)
        ctx.grads = [
            None if grad is None or given is None else grad.to(given.dtype)
            for grad, given in zip(grads, (hidden, weight, bias), strict=True)
        ]
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None  # the head's gradient is handed over, not copied
        if grad_output.is_cuda or float(grad_output) != 1.0:
            grads = [None if grad is None else grad.mul_(grad_output) for grad in grads]
        return (*grads, None, None, None)


def _chunks(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    cap: float | None,
    term: Term,
    divisor: torch.Tensor | float,
    needed: tuple[bool, ...],
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Return the loss and its gradients in hidden, weight and bias; None for a gradient that is not needed."""
    wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    loss = torch.zeros((), dtype=wide, device=hidden.device)
    d_hidden = torch.empty_like(hidden) if needed[0] else None
    # summed over chunks in float32: in bfloat16 small chunks would be lost
    d_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if needed[1] else None
    d_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None
    chunk = max(1, _CHUNK_BYTES.get(hidden.device.type, _CHUNK_BYTES["cpu"]) // (4 * len(weight)))
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        states = hidden[rows]
        logits = capped_logits(states, weight, bias, cap)
        slope = 1 - (logits / cap).square_() if cap is not None and any(needed) else None
        loss += term(logits, rows)
        if not any(needed):
            continue
        if slope is not None:
            logits.mul_(slope)
        if d_bias is not None:
            d_bias += logits.sum(dim=0) / divisor
        gradient = logits.to(weight.dtype)
        if d_hidden is not None:
            torch.mm(gradient, weight, out=d_hidden[rows])
        if d_weight is not None and weight.dtype == wide:
            d_weight.addmm_(gradient.T, states / divisor)
        elif d_weight is not None:
            d_weight += gradient.T @ (states / divisor)
        del logits, gradient, slope  # before the next chunk is made, not after
    if d_hidden is not None:
        d_hidden /= divisor
    return loss / divisor, d_hidden, d_weight, d_bias


class ChunkedLoss:
    """Within the block, a model computes its loss by `head_loss`; nothing else about the model changes.

    If the model is called with labels, its logits are those of the first position only, and its `loss` is computed
    here: the sum over all labelled positions, divided by `num_items_in_batch` (or by their number). The loss runs in
    place of the head in the forward pass, so that wrappers which gather weights (DDP, FSDP) have them.

    Parameters
    ----------
    model : a causal language model whose `Head` is `in_chunks`
    head : that head
    """

    def __init__(self, model: PreTrainedModel, head: Head) -> None:
        self._model = model
        self._head = head
        self._labels: torch.Tensor | None = None
        self._divisor: torch.Tensor | float | None = None
        self._loss: torch.Tensor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for hook in (
            self._model.register_forward_pre_hook(self._take, with_kwargs=True),
            self._head.module.register_forward_pre_hook(self._at_the_head),
            self._model.register_forward_hook(self._give_loss),
        ):
            self._stack.callback(hook.remove)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def take(self, inputs: dict[str, Any]) -> None:
        """Remove from a batch the entries that only the loss needs."""
        self._labels = inputs.pop("labels", None)
        self._divisor = inputs.pop("num_items_in_batch", None)

    @property
    def further_ids(self) -> torch.Tensor:
        """int64: ids that the loss adds to batches, even if the text does not contain them."""
        return torch.zeros(0, dtype=torch.int64)

    def means(self) -> dict[str, float]:
        """Return the parts of the loss since the last call, by name; none if there is only one."""
        return {}

    def term(self, labels: torch.Tensor, predicted: torch.Tensor) -> Term:
        """Return the loss term for the positions whose next tokens are `labels`.

        Parameters
        ----------
        labels : int64 (positions,)
        predicted : bool (batch, length - 1): selects these positions, row by row
        """
        return NextToken(labels)

    def _take(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.take(kwargs)
        return args, kwargs

    def _at_the_head(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor] | None:
        if self._labels is None:
            return None
        hidden, labels = inputs[0], self._labels[:, 1:]  # a position predicts the token after it
        predicted = labels != IGNORED
        divisor = self._divisor if self._divisor is not None else predicted.sum().clamp(min=1)
        term = self.term(labels[predicted], predicted)
        self._loss = head_loss(hidden[:, :-1][predicted], *self._head.tensors, term, divisor)
        return (hidden[:, :1],)

    def _give_loss(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        if self._labels is not None:
            output["loss"] = self._loss
            self._labels = self._loss = None
        return output
