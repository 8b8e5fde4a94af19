"""The output head of a model, separated from its body, so that logits are computed for a few positions at a time.

With 262k tokens, the logits of a thousand positions are a gigabyte. Here a hook gets the input of the head, and the
caller computes logits in chunks. Some models change the logits after the head. Gemma's soft-cap is supported. For all
models, the logits of a few tokens are compared with the model's: if they differ, `in_chunks` is False and the caller
must use the model's own logits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

import psutil
import torch
from torch.nn.functional import cross_entropy

from tokalign_lab.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tokalign_lab.vocabulary import Vocabulary

_PROBE_TOKENS = 8
_LOGITS_BYTES = 64_000_000  # of one chunk of float32 logits
_LEAK, _LEAK_OF_HALVES = 1e-4, 1e-2  # of the largest logit: above rounding, which grouped experts make larger
# names of the maximum input length in configurations; the last two are MPT's and Whisper's
_LONGEST = ("max_position_embeddings", "max_seq_len", "max_target_positions")
# settings of a generation_config that do not choose another way to generate
_OF_ANY_GENERATION = ("bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens", "stop_strings")
NO_NUMBERS = (
    "The model's predictions are no numbers (NaN or infinity), so it cannot be used; `tokalign-lab check` names the "
    "weights that are not."
)
Made = TypeVar("Made")
_causal: WeakSet[torch.nn.Module] = WeakSet()  # checked models: a run measures the same model many times


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch a model to evaluation mode; restore its mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Let `generate` do what it is asked to do; restore the model's `generation_config` at the end.

    That may choose beams, prompt lookup, guidance, no cache or another kind of result, and cut or change the
    distribution. Only its special ids, suppressed ids and stop strings are used. Raises `InputError` if predictions
    are NaN: a greedy choice would be an arbitrary token, and a drawn one a RuntimeError.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in _OF_ANY_GENERATION})
    hook = model.register_forward_hook(lambda module, inputs, output: check_logits(output.logits[:, -1]))
    try:
        yield
    finally:
        hook.remove()
        model.generation_config = own


def check_logits(logits: torch.Tensor) -> None:
    """Raise `InputError` if a logit is NaN or positive infinity; with negative infinity a model excludes a token."""
    if not float(logits.max()) < math.inf:
        raise InputError(NO_NUMBERS)


@contextmanager
def in_fast_dtype(model: PreTrainedModel) -> Iterator[None]:
    """Compute in float32 if the model is on a CPU that is slower in the model's dtype; restore its weights at the end.

    Many CPUs multiply bfloat16 four to five times more slowly. Without free memory for the copy, nothing changes.
    """
    weights = _slow_weights(model)
    originals = [weight.data for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.float()
        yield
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.data = original


def _slow_weights(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """Return the weights to convert: those of half precision, or none if float32 is not faster or does not fit."""
    halves = [weight for weight in model.parameters() if weight.dtype in (torch.bfloat16, torch.float16)]
    quantised = any(not weight.is_floating_point() or weight.itemsize < 2 for weight in model.parameters())
    if not halves or quantised or any(weight.device.type != "cpu" for weight in halves):
        return []
    fits = sum(4 * weight.numel() for weight in halves) <= psutil.virtual_memory().available
    return halves if fits and _slower_than_float32(halves[0].dtype) else []


@cache
def _slower_than_float32(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices of this dtype more slowly than float32, measured in some milliseconds."""

    def seconds(of: torch.dtype) -> float:
        one, two = torch.ones(128, 512, dtype=of), torch.ones(512, 512, dtype=of)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(one, two)
            times.append(time.perf_counter() - began)
        return min(times)

    return seconds(dtype) > seconds(torch.float32)


def longest_input(model: PreTrainedModel) -> int | None:
    """Return the maximum number of input tokens of a model; None if its configuration sets no limit."""
    config = model.config.get_text_config()
    limits = (getattr(config, name, None) for name in _LONGEST)
    limit = next((held for held in limits if isinstance(held, int) and held > 0), None)
    if limit is not None:
        for name, module in model.named_modules():  # RoBERTa's positions start after the id of pad
            padding, weight = getattr(module, "padding_idx", None), getattr(module, "weight", None)
            if padding is None or weight is None or "position" not in name.rpartition(".")[2]:
                continue
            if len(weight) == limit:
                return limit - int(padding) - 1
    return limit


@torch.no_grad()
def check_causal(model: PreTrainedModel) -> None:
    """Raise `InputError` if the predictions of a model depend on later tokens, so that it sees what it has to predict.

    BERT is such a model unless `is_decoder` is set, and so is XLM unless `causal` is set.
    """
    if model in _causal:
        return
    embedding = model.get_input_embeddings().weight
    ids = torch.arange(_PROBE_TOKENS, device=embedding.device).unsqueeze(0) % len(embedding)
    other = ids.clone()
    other[0, -1] = _PROBE_TOKENS % len(embedding)  # not among `ids`, so that a padding id is in both or in none
    with evaluation_mode(model):
        one, two = (model(input_ids=read, use_cache=False).logits[0, :-1].float() for read in (ids, other))
    least = _LEAK if embedding.dtype in (torch.float32, torch.float64) else _LEAK_OF_HALVES
    if float((one - two).abs().max()) > least * float(one.abs().max()):
        raise InputError(
            f"The model of type {model.config.model_type!r} reads the tokens that it is to predict, so it is no causal "
            "language model; use another model, or set is_decoder or causal in its config.json if it was trained so."
        )
    _causal.add(model)


class Head:
    """The output head of a model.

    Raises `InputError` if the predictions are NaN.

    Parameters
    ----------
    model : a causal language model in any float dtype

    Attributes
    ----------
    module : torch.nn.Module; the output embeddings, with `weight` (vocab_size, d) and perhaps `bias` (vocab_size,)
    cap : the model's soft-cap: its logits are cap * tanh(logits / cap)
    in_chunks : bool; whether `logits(hidden(...))` are the model's logits
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.module = model.get_output_embeddings()
        self.cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self.device = model.get_input_embeddings().weight.device
        self.in_chunks = self.module is not None and self._probe()

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor | None, float | None]:
        """Weight, bias and soft-cap, as `capped_logits` takes them."""
        return self.module.weight, getattr(self.module, "bias", None), self.cap

    def hidden(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, position_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the head's input, shape (batch, positions, d)."""
        return self.at(ids, mask, lambda hidden: hidden, position_ids)

    def at(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        work: Callable[[torch.Tensor], Made],
        position_ids: torch.Tensor | None = None,
    ) -> Made:
        """Call `work` with the head's input during the forward pass, just before the head; return its result.

        If the model is sharded over processes, the head's weight is gathered at this point, but perhaps not later. The
        head itself then computes only one position.
        """
        made: list[Made] = []

        def catch(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
            made.append(work(inputs[0]))
            return (inputs[0][:, :1],)

        positions = {} if position_ids is None else {"position_ids": position_ids}
        hook = self.module.register_forward_pre_hook(catch)
        try:
            self.model(input_ids=ids, attention_mask=mask, use_cache=False, **positions)
        finally:
            hook.remove()
        return made[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of states, (..., vocab_size), as `capped_logits`."""
        return capped_logits(hidden, *self.tensors)

    def nats(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each of `targets`, int64 (n,), after its state, (n, d); the logits are made in chunks."""
        parts = zip(torch.split(hidden, self._chunk), torch.split(targets, self._chunk), strict=True)
        return torch.cat([cross_entropy(self.logits(states), right, reduction="none") for states, right in parts])

    def log_probs_of_any(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the log probability that one of `ids` follows each state, (n,); the logits are made in chunks."""
        blocks = map(self.logits, torch.split(hidden, self._chunk))
        return torch.cat([logits[:, ids].logsumexp(dim=1) - logits.logsumexp(dim=1) for logits in blocks])

    @property
    def _chunk(self) -> int:
        return max(1, _LOGITS_BYTES // (4 * len(self.module.weight)))

    def _probe(self) -> bool:
        with evaluation_mode(self.model), torch.no_grad():
            ids = torch.arange(_PROBE_TOKENS, device=self.device).unsqueeze(0) % int(self.module.weight.shape[0])
            mask = torch.ones_like(ids)
            own = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            check_logits(own)
            made = self.at(ids, mask, self.logits)
        return made.shape == own.shape and torch.allclose(own.to(made.dtype), made, rtol=1e-3, atol=1e-3)


def head_to_learn_from(model: PreTrainedModel, vocabulary: Vocabulary, role: str) -> Head:
    """Return the head of a model that another model learns from.

    Raises `InputError`, which calls the model `role`, if it has fewer rows than its tokenizer has ids, or changes its
    logits after the head.
    """
    head = Head(model)
    if not head.in_chunks:
        kind = model.config.model_type
        raise InputError(f"A {role} of type {kind!r} changes its logits after the head; it cannot be used.")
    vocabulary.check_rows(len(head.module.weight), role)
    return head


@torch.no_grad()
def capped_logits(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, cap: float | None
) -> torch.Tensor:
    """Return the logits of a head for states of its dtype, without gradients.

    Returns logits (..., rows), float32, or float64 for float64 states; capped as in Gemma: cap * tanh(logits / cap).

    Parameters
    ----------
    states : float (..., d)
    weight, bias : float (rows, d) and (rows,)
    cap : the soft-cap; None for models without one
    """
    on_cpu = states.device.type == "cpu" and states.dtype == torch.float32
    logits: torch.Tensor
    # oneDNN's kernel for this shape is faster than MKL's on AMD machines
    if on_cpu and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # type: ignore[no-untyped-call]
        logits = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    else:
        logits = torch.nn.functional.linear(states, weight, None if bias is None else bias.to(weight.dtype))
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)
