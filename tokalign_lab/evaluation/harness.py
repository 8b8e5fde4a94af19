"""A model as lm-evaluation-harness wants it, its log-likelihoods made by this room's `Scorer`.

Everything about text is the harness's `HFLM`: how prompt and answer are cut apart, whether bos stands in front, how
long inputs are cut. What is ours is the one method that turns ids into log-likelihoods. Importing this module needs
the harness (extra `tasks`); `tasks.check_harness` says so in a sentence.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.models.huggingface import HFLM

from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import Scorer, scoring
from tokalign_lab.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class _Input:
    """One sequence to read, and the answers that end in it: (request, the prompt's last position, tokens)."""

    ids: tuple[int, ...]
    answers: list[tuple[int, int, list[int]]] = field(default_factory=list)


class HarnessModel(HFLM):  # type: ignore[misc]  # mypy does not read the harness
    """The harness's view of a model in memory.

    Parameters
    ----------
    model, tokenizer
        The model and its tokenizer; the tokenizer is copied, because the harness gives it a pad token.
    batch_tokens
        About how many tokens go through the model at once.
    progress, message
        Told the share of the inputs that are scored, with this message.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int,
        progress: Progress | None,
        message: str,
    ) -> None:
        super().__init__(pretrained=model, tokenizer=copy.deepcopy(tokenizer))
        self._batch_tokens = batch_tokens
        self._progress = progress
        self._message = message

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Score answers given prompts, without the harness's bar."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each answer's tokens; "is it the greedy one" is False, no task here asks."""
        inputs = self._inputs(requests)
        found = [0.0] * len(requests)
        done = 0
        with scoring(self.model) as score:
            for batch in _batches(inputs, self._batch_tokens):
                for request, nats in _score(score, batch):
                    found[request] = -nats
                done += len(batch)
                if self._progress is not None:
                    self._progress(done / len(inputs), self._message)
        return [(value, False) for value in found]

    def _inputs(self, requests: list[tuple[tuple[str, str], list[int], list[int]]]) -> list[_Input]:
        """Gather requests that differ in the last token only into one input; the longest first."""
        by_ids: dict[tuple[int, ...], _Input] = {}
        for number, (_, prompt, answer) in enumerate(requests):
            if len(answer) > self.max_length:
                raise InputError(
                    f"The model reads at most {self.max_length} tokens, but an answer has {len(answer)}; "
                    "it cannot be scored in this task."
                )
            # the last token is predicted, not read; what is too long loses its beginning, as in the harness
            ids = tuple((prompt + answer)[-(self.max_length + 1) : -1])
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
