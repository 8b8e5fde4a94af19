"""Losses on hidden states and attention-weighted values, at positions where both models have read the same bytes.

`state_loss` compares states after one layer:

    sum over positions of |student - source|^2  /  sum over positions of |source - mean of source|^2

`value_loss` is MATT (arXiv 2510.21954). The chunks between shared positions are segments. For each head, the segment q
as query (its last token) and each segment s up to q,

    A(q, s) = sum over tokens k in s of attention[last(q), k] V[k]

is the contribution of s to the attention head's output at q. The loss is the squared difference over all q and s,
normalised as above.

Both functions return a scalar with an autograd graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.cross_tokenizer.source import SharedPositions

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

_TINY = 1e-12


def state_loss(student: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Compare states at the same positions.

    Returns a float32 scalar (float64 if the states are): 0 if both are equal, 1 if all of the student's states are the
    mean of the source's.

    Parameters
    ----------
    student, source : float (positions, d). No gradient flows into the second.
    """
    wide = torch.float64 if student.dtype == torch.float64 else torch.float32
    source = source.detach().to(wide)
    spread = (source - source.mean(dim=0)).square().sum()
    return (student.to(wide) - source).square().sum() / spread.clamp(min=_TINY)


@dataclass
class Attention:
    """Inputs of one attention layer.

    Attributes
    ----------
    query, key, value : float (batch, heads, length, head_dim), after the rotary embedding; key and value may have fewer
        heads
    mask : as given to the attention: bool (True: attended to) or added to the scores; None for causal attention
    scaling : of the scores
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scaling: float


@contextmanager
def attention_of(layer: torch.nn.Module, model: PreTrainedModel, work: Callable[[Attention], Any]) -> Iterator[None]:
    """Within the block, call `work` with the attention inputs of a decoder layer.

    Raises `InputError` if the model uses another attention than "sdpa".

    Parameters
    ----------
    layer : a decoder layer of `model`
    model : the model
    work : may return a query, key and value to replace the given ones
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from tokalign_lab.errors import InputError

    kind = model.config.get_text_config()._attn_implementation
    if kind != "sdpa":
        raise InputError(
            f"A model of type {model.config.model_type!r} uses the attention {kind!r}, but values can be compared with "
            "'sdpa' only; choose another loss."
        )
    inside = set(layer.modules())
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def watched(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> Any:
        if module in inside:
            scaling = options.get("scaling") or query.shape[-1] ** -0.5
            changed = work(Attention(query, key, value, attention_mask, scaling))
            query, key, value = (query, key, value) if changed is None else changed
        return before(module, query, key, value, attention_mask, **options)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = watched
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = before


def weighted_values(attention: Attention, row: int, ends: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Return A(q, s) of one sequence: float (heads, n, n, head_dim), zeros where s comes after q.

    Parameters
    ----------
    attention : of a batch
    row : which sequence
    ends : int64 (n,), ascending: the last token of each segment, which is the query
    starts : int64 (n,): the first token of each segment
    """
    query, key, value = attention.query[row][:, ends], attention.key[row], attention.value[row]
    groups = query.shape[0] // key.shape[0]
    key, value = (part.repeat_interleave(groups, dim=0) for part in (key, value))
    scores = query @ key.transpose(1, 2) * attention.scaling
    length = key.shape[1]
    if attention.mask is None:
        unseen = torch.arange(length, device=ends.device)[None] > ends[:, None]
        scores = scores.masked_fill(unseen, -torch.inf)
    else:
        mask = attention.mask[row if len(attention.mask) > 1 else 0][:, ends]
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = torch.softmax(scores.float(), dim=2).to(value.dtype)
    # the segment of each token; one past the last for tokens outside all segments
    place = torch.arange(length, device=ends.device)
    segment = torch.searchsorted(ends, place)
    inside = (segment < len(ends)) & (place >= starts[segment.clamp(max=len(ends) - 1)])
    sums = []
    for head_weights, head_value in zip(weights, value, strict=True):
        parts = head_weights[:, inside, None] * head_value[None, inside]  # (n, tokens, head_dim)
        empty = parts.new_zeros(len(ends), len(ends), value.shape[2])
        sums.append(empty.index_add(1, segment[inside], parts))
    return torch.stack(sums)


def value_loss(
    student: Attention, source: Attention, positions: SharedPositions, length: int, own: int
) -> torch.Tensor:
    """Compare attention-weighted values; see the docstring of this module.

    Parameters
    ----------
    student, source : attention of one layer, with the same number of heads
    positions : their exact chunks are the segments
    length, own : tokens of the student's sequences and of the source's
    """
    apart: list[torch.Tensor] = []
    spread: list[torch.Tensor] = []
    for row in range(student.query.shape[0]):
        here = positions[(positions.row == row) & positions.exact]
        if not len(here):
            continue
        mine = weighted_values(student, row, here.student[:, 1] - row * length, here.student[:, 0] - row * length)
        with torch.no_grad():
            yours = weighted_values(source, row, here.source[:, 1] - row * own, here.source[:, 0] - row * own)
        apart.append((mine - yours.to(mine.dtype)).square().sum())
        spread.append((yours - yours.mean(dim=(1, 2), keepdim=True)).square().sum())
    if not apart:
        return student.query.sum() * 0.0
    return torch.stack(apart).sum() / torch.stack(spread).sum().clamp(min=_TINY)
