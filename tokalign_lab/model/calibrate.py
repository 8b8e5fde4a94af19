"""Calibration of the output: each token is expected as often as it comes.

Rearranging gives every new token a row, and many rows look plausible in the same place: the tokens that share a source
piece, the piece itself, longer and shorter spellings of the same word. Together they take probability from the one
that stands there. What is known without any training is how often each token comes in a text. So each logit is
shifted by a constant, until the mean probability that the model gives a token equals its share of the text:

    shift(t)  +=  log (n(t) + a) / (sum over positions of p(t | what stands before) + a)

a few times over, with a = 1 against noise; for a token that is neither seen nor expected nothing changes. It is the
maximum-likelihood fit of a head bias (the condition is its gradient set to zero), found by iterative scaling (Darroch
and Ratcliff 1972; where a model caps its logits, nearly so) on states that are computed once. No gradient is taken and
nothing inside the model changes.

Most models have no head bias. But the states that enter the head share a direction (the final norm sees to that): the
least-squares solution v of h . v = 1 over the text's states is met within a few percent, so that `row += shift * v`
shifts the logit. The head is untied first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.device import pick_device
from tokalign_lab.documents import Document, excerpts, read_parts
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import head_inputs
from tokalign_lab.model.rearrange import untie
from tokalign_lab.progress import Progress, part
from tokalign_lab.settings.kinds import TextSettings
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ITERATIONS = 3
SMOOTHING = 1.0  # tokens added to both counts
MAX_TOKENS = 20_000
_READ_BYTES = 6_000_000  # passages are drawn from this much of a text
_BLOCK_NUMBERS = 1 << 24  # logits at a time, 64 MB
_RIDGE = 0.01  # of the states' mean square, so that v does not follow a few directions of next to no length
_MOST_SPREAD = 0.25  # of h . v about 1; beyond it a shift would be noise


@dataclass(frozen=True)
class Calibration:
    """What was done.

    Attributes
    ----------
    tokens : int
        Tokens of text that were read.
    nats_before, nats_after : float
        Mean nats of a token of that text (the text that was fitted: no measure of quality).
    spread : float
        Standard deviation of h . v about 1; 0 for a model with a head bias.
    largest : float
        The largest shift, in nats.
    """

    tokens: int
    nats_before: float
    nats_after: float
    spread: float
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def calibrate(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    max_tokens: int = MAX_TOKENS,
    progress: Progress | None = None,
) -> Calibration:
    """Shift the logits of a rearranged model so that tokens are expected as often as they come; changes the model.

    Parameters
    ----------
    model
        A causal language model that reads `vocabulary`. Its head is untied unless it has a bias.
    vocabulary
        Its tokenizer. Special tokens keep their logits: text says nothing about them. Of rows that no token has (holes
        in its ids, padding) text says that they never come, so they only go down.
    documents
        Text that nothing will be measured on.
    max_tokens
        Tokens of it that are read, by windows.
    progress
        Told about each step.

    Raises
    ------
    InputError
        If there is no text, it does not fit the model, or the model's states have no direction to shift along.
    """
    states, input_ids = head_inputs(model, vocabulary, documents, max_tokens, progress=part(progress, 0.0, 0.5))
    head = model.get_output_embeddings()
    weight = head.weight.detach().float().cpu()
    bias = getattr(head, "bias", None)
    bias = None if bias is None else bias.detach().float().cpu()
    direction, spread = (None, 0.0) if bias is not None else _steady_direction(states)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    shift = torch.zeros(len(weight)) if bias is None else bias.clone()
    seen = torch.bincount(input_ids, minlength=len(weight)).float()
    free = torch.ones(len(weight), dtype=torch.bool)
    free[: vocabulary.size] = ~torch.from_numpy(vocabulary.is_control)
    nats = []
    for iteration in range(ITERATIONS):
        expected, mean_nats = _expected(states, input_ids, weight, shift, cap)
        nats.append(mean_nats)
        shift[free] += torch.log((seen[free] + SMOOTHING) / (expected[free] + SMOOTHING))
        if progress is not None:
            progress(0.5 + 0.4 * (iteration + 1) / ITERATIONS, "matching how often tokens come")
    if direction is None:
        head.bias.data.copy_(shift)
        shift, largest = head.bias.detach().float().cpu(), float((shift - bias).abs().max())
    else:
        untie(model)
        head.weight.data.copy_((weight + shift[:, None] * direction).to(head.weight.dtype))
        weight, largest = head.weight.detach().float().cpu(), float(shift.abs().max())
        shift = torch.zeros_like(shift)
    nats.append(_expected(states, input_ids, weight, shift, cap)[1])  # of the model as it is now
    if progress is not None:
        progress(1.0, "calibrated")
    return Calibration(len(input_ids), nats[0], nats[-1], spread, largest)


def calibrate_on(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    text: Sequence[str],
    seed: int = 0,
    progress: Progress | None = None,
    split: Mapping[str, Any] | None = None,
) -> Calibration:
    """Calibrate on passages drawn from the train part of a text, given as for `documents.read_documents`.

    `split` is how the text was split when it was aligned ("split" of a lexicon's provenance), so that what was held out
    then is not read now.

    Raises
    ------
    InputError
        As `calibrate`, or if the text cannot be read.
    """
    chosen = {"max_bytes": _READ_BYTES, "seed": seed, **(split or {}), "text": list(text)}
    documents, _ = read_parts(TextSettings.from_dict(chosen))
    return calibrate(model, vocabulary, excerpts(documents, 8 * MAX_TOKENS, seed=seed), MAX_TOKENS, progress)


@torch.inference_mode()
def _expected(
    states: torch.Tensor, input_ids: torch.Tensor, weight: torch.Tensor, shift: torch.Tensor, cap: float | None
) -> tuple[torch.Tensor, float]:
    """Sum of each token's probability over all states, float32 (vocab_size,); and the mean nats of the text."""
    device = pick_device()
    weight, shift = weight.to(device), shift.to(device)
    expected, nats = torch.zeros_like(shift), 0.0
    block = max(1, _BLOCK_NUMBERS // len(weight))
    for first in range(0, len(states), block):
        logits = states[first : first + block].to(device) @ weight.T + shift
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        log_p = torch.log_softmax(logits, dim=1)
        here = input_ids[first : first + block].to(device)
        nats -= float(log_p.gather(1, here[:, None]).sum())
        expected += log_p.exp_().sum(dim=0)
    return expected.cpu(), nats / len(states)


def _steady_direction(states: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Find v with h . v as near to 1 as can be over all states; and the standard deviation of h . v.

    Raises
    ------
    InputError
        If it strays too far for a shift of a logit to be one.
    """
    states = states.double()
    squares = states.T @ states / len(states)
    ridge = _RIDGE * float(squares.diagonal().mean())
    direction = torch.linalg.solve(squares + ridge * torch.eye(len(squares), dtype=torch.float64), states.mean(dim=0))
    along = states @ direction
    scale, spread = float(along.mean()), float(along.std(correction=0))
    if not scale > 0 or spread / scale > _MOST_SPREAD:
        raise InputError(
            "The states before this model's head have no common direction and the head has no bias, so its logits "
            "cannot be shifted; use the model without calibration."
        )
    return (direction / scale).float(), spread / scale
