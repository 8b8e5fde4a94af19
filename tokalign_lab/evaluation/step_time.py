"""Time of one generation step, with the model's head and with a head of another size.

A step is the body, with one new token and a cache, then the head. The body does not depend on the vocabulary, so the
same time is used for both; the other head is a matrix of the new size with copies of the model's rows. Sampling and the
tokenizer are not included. Body and both heads are timed alternately, so that other load on the machine affects all
three equally.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.device import describe_device
from tokalign_lab.evaluation.head import check_logits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTEXT = 64
"""Tokens in the cache at the first step."""
_WARM_UP = 3


@dataclass(frozen=True)
class StepTime:
    """Seconds of one generation step, batch size 1.

    Attributes
    ----------
    body, source_head, target_head : medians of the parts
    source, target : first quartile, median and third quartile of body and head together
    steps : number of timed steps
    device, dtype : device and dtype of the model
    """

    body: float
    source_head: float
    target_head: float
    source: tuple[float, float, float]
    target: tuple[float, float, float]
    steps: int
    device: str
    dtype: str


@torch.inference_mode()
def time_step(model: PreTrainedModel, rows: int, steps: int = 24) -> StepTime:
    """Time a generation step with the model's head and with a head of `rows` rows.

    Raises `InputError` if the model's predictions are NaN or infinite.

    Parameters
    ----------
    model : a causal language model in evaluation mode
    rows : rows of the other head: ids of the target tokenizer
    steps : number of timed steps, at least 2, after three steps of warm-up
    """
    old = model.get_output_embeddings().weight
    new = old[torch.arange(rows, device=old.device) % len(old)]
    ids = torch.arange(CONTEXT, device=old.device).unsqueeze(0) % len(old)
    body = model.base_model
    read = body(input_ids=ids, use_cache=True)
    check_logits(torch.nn.functional.linear(read.last_hidden_state, old))
    cache = read.past_key_values
    state = torch.zeros((1, old.shape[1]), dtype=old.dtype, device=old.device)
    found = [
        (
            _seconds(lambda: body(input_ids=ids[:, :1], past_key_values=cache, use_cache=True), old.device),
            _seconds(lambda: torch.nn.functional.linear(state, old), old.device),
            _seconds(lambda: torch.nn.functional.linear(state, new), old.device),
        )
        for _ in range(_WARM_UP + steps)
    ][_WARM_UP:]
    body_time, old_time, new_time = (statistics.median(seconds) for seconds in zip(*found, strict=True))
    return StepTime(
        body=body_time,
        source_head=old_time,
        target_head=new_time,
        source=_quartiles([body_s + head_s for body_s, head_s, _ in found]),
        target=_quartiles([body_s + head_s for body_s, _, head_s in found]),
        steps=steps,
        device=describe_device(old.device),
        dtype=str(old.dtype).removeprefix("torch."),
    )


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
