"""A model as lm-evaluation-harness wants it, its log-likelihoods made by this room's `Scorer`.

Everything about text is the harness's `HFLM`: how prompt and answer are cut apart, whether bos stands in front, how
long inputs are cut. What is ours is the one method that turns ids into log-likelihoods. The harness (extra `tasks`) is
imported when a model is made; where it is missing, a sentence says so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import Scorer, scoring
from tokalign_lab.evaluation.tasks import check_harness
from tokalign_lab.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Request = tuple[tuple[str, str], list[int], list[int]]
"""Prompt and answer as text, then the ids of each."""


@dataclass
class _Input:
    """One sequence to read, and the answers that end in it: (request, the prompt's last position, tokens)."""

    ids: tuple[int, ...]
    answers: list[tuple[int, int, list[int]]] = field(default_factory=list)


def harness_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch_tokens: int,
    progress: Progress | None = None,
    message: str = "",
) -> Any:
    """Return the harness's view of a model in memory, an `HFLM`.

    Parameters
    ----------
    model, tokenizer
        The model and its tokenizer; the tokenizer is copied, because the harness gives it a pad token.
    batch_tokens
        About how many tokens go through the model at once.
    progress, message
        Told the share of the inputs that are scored, with this message.

    Raises
    ------
    InputError
        If the harness is not installed.
    """
    check_harness()
    from lm_eval.models.huggingface import HFLM

    class HarnessModel(HFLM):  # type: ignore[misc]  # mypy does not read the harness
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            """Score answers given prompts, without the harness's bar."""
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: list[Request], disable_tqdm: bool = True, override_bs: int | None = None
        ) -> list[tuple[float, bool]]:
            return log_likelihoods(self.model, requests, self.max_length, batch_tokens, progress, message)

    return HarnessModel(pretrained=model, tokenizer=copy.deepcopy(tokenizer))


def log_likelihoods(
    model: PreTrainedModel,
    requests: list[Request],
    max_length: int,
    batch_tokens: int,
    progress: Progress | None = None,
    message: str = "",
) -> list[tuple[float, bool]]:
    """Return the log-likelihood of each answer's tokens; "is it the greedy one" is False, no task here asks.

    Raises
    ------
    InputError
        For an answer of more than `max_length` tokens.
    """
    inputs = gather(requests, max_length)
    found = [0.0] * len(requests)
    done = 0
    with scoring(model) as score:
        for batch in _batches(inputs, batch_tokens):
            for request, nats in _score(score, batch):
                found[request] = -nats
            done += len(batch)
            if progress is not None:
                progress(done / len(inputs), message)
    return [(value, False) for value in found]


def gather(requests: list[Request], max_length: int) -> list[_Input]:
    """Gather requests that differ in the last token only into one input; the longest first."""
    by_ids: dict[tuple[int, ...], _Input] = {}
    for number, (_, prompt, answer) in enumerate(requests):
        if len(answer) > max_length:
            raise InputError(
                f"The model reads at most {max_length} tokens, but an answer has {len(answer)}; "
                "it cannot be scored in this task."
            )
        # the last token is predicted, not read; what is too long loses its beginning, as in the harness
        ids = tuple((prompt + answer)[-(max_length + 1) : -1])
        entry = by_ids.setdefault(ids, _Input(ids))
        entry.answers.append((number, len(ids) - len(answer), answer))
    return sorted(by_ids.values(), key=lambda entry: -len(entry.ids))


def _batches(inputs: list[_Input], batch_tokens: int) -> Iterator[list[_Input]]:
    start = 0
    while start < len(inputs):
        size = max(1, batch_tokens // len(inputs[start].ids))
        yield inputs[start : start + size]
        start += size


def _score(score: Scorer, batch: list[_Input]) -> Iterator[tuple[int, float]]:
    """Yield (request, nats of its answer) for every answer of a batch."""
    longest = len(batch[0].ids)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    for place, entry in enumerate(batch):
        ids[place, : len(entry.ids)] = torch.tensor(entry.ids)
        mask[place, : len(entry.ids)] = 1
        for _, first, answer in entry.answers:
            rows += [place] * len(answer)
            # the prompt's last position predicts the answer's first token
            columns += range(first, first + len(answer))
            targets += answer
    device = score.head.device
    on = [torch.tensor(values, device=device) for values in (rows, columns, targets)]
    nats = score.nats(ids.to(device), mask.to(device), *on)
    answers = [answer for entry in batch for answer in entry.answers]
    for (request, _, _), part in zip(
        answers, torch.split(nats, [len(tokens) for _, _, tokens in answers]), strict=True
    ):
        yield request, float(part.sum())
