"""Calibration of the output: shift logits until the model expects each token with the right frequency.

A rearranged model has a row for every new token, and at many positions several of these rows are plausible: tokens that
share a source piece, the piece itself, longer and shorter spellings of the same word. Together they take probability
from the right token. But how often each token should occur is known without training. So each logit is shifted by a
constant, until the mean probability of a token equals its share of the counts n:

    shift(t)  +=  log (n(t) + a) / (sum over positions of p(t | text before it) + a exp shift(t))

This is repeated a few times, with a = 1. The logit of a token that is neither seen nor expected does not change. It is
the maximum a posteriori fit of a head bias by iterative scaling (Darroch and Ratcliff 1972; an approximation for a
model that caps its logits), on states that are computed once. The prior of exp shift(t) is a gamma distribution with
mean 1 and shape a: without it, the shifts of rare tokens fit the noise of their counts. The fit needs no gradient and
changes nothing inside the model.

A text of 20,000 tokens shows few of the words that a vocabulary can write. The source model knows how likely the others
are. So n(t) is the mean of two counts: how often the token occurs, and how often the source expects it. Where both
models have read the same bytes, the probability of each source token is added to its first target token; elsewhere the
token of the text counts (docs/decisions/0019-calibration-reads-the-source.md).

Most models have no head bias. But the states that enter the head share a direction, because of the final norm. There is
a v, found by least squares over the text's states, for which h . v is 1 within a few percent. So `row += shift * v`
shifts the logit. The head is untied first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.cross_tokenizer.pieces import Pieces, Predictions
from tokalign_lab.cross_tokenizer.source import SourceTeacher
from tokalign_lab.device import fast, pick_device
from tokalign_lab.documents import Document, excerpts, read_parts
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import Window, head_inputs
from tokalign_lab.evaluation.head import capped_logits, evaluation_mode, in_fast_dtype
from tokalign_lab.model.rearrange import untie
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.settings.kinds import TextSettings
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ITERATIONS = 2  # a third changes at most 0.004 bits per byte
PRIOR = 1.0  # shape of the gamma prior of exp(shift), which acts like so many tokens of text
MAX_TOKENS = 20_000
"""`benchmarks/calibrate_precision.py` measures what other numbers cost in bits per byte and in time."""
_SCORED = 1000  # number of states for `nats_before` and `nats_after`
_READ_BYTES = 6_000_000  # passages are drawn from this much of a text
_BLOCK_NUMBERS = 1 << 24  # logits at a time, 64 MB
_RIDGE = 0.01  # of the states' mean square, so that v does not follow directions in which the states hardly vary
_MOST_SPREAD = 0.25  # of h . v about 1; beyond it a shift would be noise


class CannotCalibrate(InputError):
    """The model or the text does not allow calibration; the model can be made without it."""


@contextmanager
def plain_calibration_errors() -> Iterator[None]:
    """Convert errors of a calibration to `CannotCalibrate`."""
    try:
        yield
    except InputError as error:
        raise CannotCalibrate(str(error)) from error


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration.

    Attributes
    ----------
    tokens : number of tokens of text
    nats_before, nats_after : mean nats per token of the first of these tokens. The shift was fitted to them, so this
        does not measure quality.
    spread : standard deviation of h . v about 1; 0 for a model with a head bias
    largest : the largest shift, in nats
    unread_tokens : tokens in windows that the source model cannot read at once; only the text's own counts are used
        there
    """

    tokens: int
    nats_before: float
    nats_after: float
    spread: float
    largest: float
    unread_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def calibrate(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    max_tokens: int = MAX_TOKENS,
    progress: Progress = silent,
    source: tuple[PreTrainedModel, Vocabulary] | None = None,
) -> Calibration:
    """Shift the logits of a rearranged model until it expects each token with the right frequency; changes the model.

    Raises `InputError` if there is no text, it does not fit the model, the model's states have no direction to shift
    along, or `max_tokens` is below 1.

    Parameters
    ----------
    model
        A causal language model that reads `vocabulary`. Its head is untied unless it has a bias.
    vocabulary
        Its tokenizer. Special tokens keep their logits, because a text does not show their use. Ids without a token
        (holes, padding) never occur in a text, so their logits can only fall.
    documents
        Text that will not be used for measurements.
    max_tokens
        Number of tokens to read, in windows.
    progress
        Called with each batch of windows and each block of logits.
    source
        The source model and its tokenizer, whose predictions count too; without it only the text's tokens count.
    """
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}, but calibration must read at least 1 token.")
    share = 0.5 if source is None else 0.3  # of the time
    with in_fast_dtype(model):
        states, input_ids, windows = head_inputs(
            model, vocabulary, documents, max_tokens, progress=part(progress, 0.0, share)
        )
    head = model.get_output_embeddings()
    weight, bias = head.weight.detach().float().cpu(), getattr(head, "bias", None)
    direction, spread = (None, 0.0) if bias is not None else steady_direction(states)
    # a copy: on the CPU in float32 it would be the head's own bias, which is overwritten below
    start = torch.zeros(len(weight)) if bias is None else bias.detach().float().cpu().clone()
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    seen = torch.bincount(input_ids, minlength=len(weight)).float()
    unread = 0
    if source is not None:
        with in_fast_dtype(source[0]):
            counts, unread = expected_counts(*source, vocabulary, windows, len(seen), part(progress, share, 0.5))
        seen = (seen + counts) / 2
    free = torch.ones(len(weight), dtype=torch.bool)
    free[: vocabulary.size] = ~torch.from_numpy(vocabulary.is_control)
    before = nats_per_token(states[:_SCORED], input_ids[:_SCORED], weight, start, cap)
    shift = fitted_shift(states, seen, weight, start, free, cap, part(progress, 0.5, 1.0))
    if direction is None:
        head.bias.data.copy_(shift)
        fitted = head.bias.detach().float().cpu()
    else:
        untie(model)
        head.weight.data.copy_((weight + shift[:, None] * direction).to(head.weight.dtype))
        weight, fitted = head.weight.detach().float().cpu(), start
    after = nats_per_token(states[:_SCORED], input_ids[:_SCORED], weight, fitted, cap)
    return Calibration(len(input_ids), before, after, spread, float((shift - start).abs().max()), unread)


def calibrate_on(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    text: Sequence[str],
    seed: int = 0,
    progress: Progress = silent,
    split: Mapping[str, Any] | None = None,
    source: tuple[PreTrainedModel, Vocabulary] | None = None,
) -> Calibration:
    """Calibrate on passages sampled from the train part of a text, given as for `documents.read_documents`.

    `split` has the settings of the alignment's split ("split" in a lexicon's provenance), so that its held-out part is
    not read. With $TOKALIGN_FAST, a hundredth of `MAX_TOKENS` is read. Raises `InputError` as `calibrate`, or if the
    text cannot be read.
    """
    chosen = {"max_bytes": _READ_BYTES, "seed": seed, **(split or {}), "text": list(text)}
    documents, _ = read_parts(TextSettings.from_dict(chosen), needed=("train",))
    tokens = MAX_TOKENS // 100 if fast() else MAX_TOKENS
    passages = excerpts(documents, 8 * tokens, seed=seed)
    return calibrate(model, vocabulary, passages, tokens, progress, source)


@torch.inference_mode()
def expected_counts(
    model: PreTrainedModel,
    own: Vocabulary,
    vocabulary: Vocabulary,
    windows: Sequence[Window],
    size: int,
    progress: Progress = silent,
) -> tuple[torch.Tensor, int]:
    """Count how often the source model expects each token of another vocabulary in a text.

    If the source's prediction cannot be mapped to these tokens (inside its own tokens, after a special token, or
    because the window is too long for it), the token of the text counts.

    Returns the counts, float32 (size,), whose sum is the number of scored tokens of all windows; and how many of these
    tokens are in windows that the source cannot read. Raises `InputError` as `SourceTeacher`.

    Parameters
    ----------
    model, own : the source model and its tokenizer
    vocabulary : the tokenizer of the windows' ids
    windows : the text
    size : how many counts to return, at least `vocabulary.size`
    progress : called with each window
    """
    with evaluation_mode(model):
        teacher, pieces = SourceTeacher(model, own, vocabulary), Pieces(vocabulary, own)
        return _expected_counts(teacher, pieces, windows, size, progress)


def _expected_counts(
    teacher: SourceTeacher, pieces: Pieces, windows: Sequence[Window], size: int, progress: Progress
) -> tuple[torch.Tensor, int]:
    counts, unread = torch.zeros(size), 0
    block = max(1, _BLOCK_NUMBERS // len(pieces.first))
    for number, window in enumerate(windows, 1):
        ids = torch.from_numpy(window.ids)
        by_text = torch.arange(len(ids)) >= len(ids) - window.scored
        try:
            reading = teacher.read(ids[None], predicts=True)
        except InputError:  # the source cannot read so many tokens at once
            unread += window.scored
        else:
            following = reading.positions.student[:, 1] + 1
            here = (following < len(ids)) & (following >= len(ids) - window.scored) & ~reading.positions.special
            for chosen in torch.split(torch.nonzero(here)[:, 0], block):
                found = Predictions.of(reading, ids[None], teacher.head, pieces, chosen)
                by_text[following[chosen][found.whole]] = False
                found = found[found.whole]
                counts.index_add_(0, found.first.flatten(), found.first_probs.flatten().to(counts.dtype))
        counts += torch.bincount(ids[by_text], minlength=size)
        progress(number / len(windows), "reading what the source model expects")
    return counts, unread


@torch.inference_mode()
def fitted_shift(
    states: torch.Tensor,
    seen: torch.Tensor,
    weight: torch.Tensor,
    start: torch.Tensor,
    free: torch.Tensor,
    cap: float | None = None,
    progress: Progress = silent,
) -> torch.Tensor:
    """Fit a bias of the head, float32 (vocab_size,), to the frequencies of tokens.

    Parameters
    ----------
    states : float32 (n, d), inputs of the head
    seen : float32 (vocab_size,), how often each token should follow one of the states
    weight, start : float32 (vocab_size, d) and (vocab_size,), the head's matrix and the bias to begin with
    free : bool (vocab_size,), the logits that may be shifted
    cap : the model's `final_logit_softcapping`
    progress : called with each block of logits
    """
    shift = start.clone()
    for iteration in range(ITERATIONS):
        expected = torch.zeros_like(shift)
        for done, log_p in _log_probabilities(states, weight, shift, cap):
            expected += log_p.exp_().sum(dim=0).cpu()
            progress((iteration + done) / ITERATIONS, "fitting the output to how often tokens come")
        kept = PRIOR * torch.exp(shift - start)
        shift[free] += torch.log((seen[free] + PRIOR) / (expected[free] + kept[free]))
    return shift


@torch.inference_mode()
def nats_per_token(
    states: torch.Tensor, input_ids: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, cap: float | None = None
) -> float:
    """Mean nats per token of a text: `input_ids`, int64 (n,), follow the states; see `fitted_shift`."""
    parts = [log_p.cpu() for _, log_p in _log_probabilities(states, weight, bias, cap, input_ids)]
    return -float(torch.cat(parts).mean())


def _log_probabilities(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    cap: float | None,
    input_ids: torch.Tensor | None = None,
) -> Iterator[tuple[float, torch.Tensor]]:
    """Yield the share done and a block of log probabilities: (n, vocab_size), or (n,) of the given ids."""
    device = pick_device()
    weight, bias = weight.to(device), bias.to(device)
    block = max(1, _BLOCK_NUMBERS // len(weight))
    for first in range(0, len(states), block):
        log_p = torch.log_softmax(capped_logits(states[first : first + block].to(device), weight, bias, cap), dim=1)
        if input_ids is not None:
            log_p = log_p.gather(1, input_ids[first : first + block, None].to(device))[:, 0]
        yield min(1.0, (first + block) / len(states)), log_p


def steady_direction(states: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Find v, float32 (d,), with h . v as close to 1 as possible over all states, and the standard deviation of h . v.

    Raises `InputError` if the deviation is so large that a shift along v would not shift the logits.
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
