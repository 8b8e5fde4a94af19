"""A model for lm-evaluation-harness, with log-likelihoods computed by this package's `Scorer`.

Text handling is that of the harness's `HFLM`: splitting prompt and answer, adding bos, truncating long inputs. Only the
method that computes log-likelihoods from ids is ours. The harness (extra `tasks`) is imported when a model is made.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import batches, scoring
from tokalign_lab.evaluation.tasks import check_harness
from tokalign_lab.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Request = tuple[tuple[str, str], list[int], list[int]]
"""Prompt and answer as text, and the ids of each."""


@dataclass
class _Input:
    """One input sequence, and the answers at its end: (request, the prompt's last position, tokens)."""

    ids: tuple[int, ...]
    answers: list[tuple[int, int, list[int]]] = field(default_factory=list)


def harness_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch_tokens: int,
    progress: Progress = silent,
    message: str = "",
) -> Any:
    """Wrap a model in memory as an `HFLM`.

    Raises `InputError` if the harness is not installed.

    Parameters
    ----------
    model, tokenizer : the model and its tokenizer, which is copied because the harness gives it a pad token
    batch_tokens : approximate number of tokens per forward pass
    progress, message : called with the share of inputs scored, and this message
    """
    check_harness()
    from lm_eval.models.huggingface import HFLM

    class HarnessModel(HFLM):  # type: ignore[misc]  # mypy does not read the harness
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            """Score answers given prompts, without the harness's progress bar."""
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
    progress: Progress = silent,
    message: str = "",
) -> list[tuple[float, bool]]:
    """Return the log-likelihood of each answer, and False for "is it greedy", which no task here uses.

    Raises `InputError` for an answer of more than `max_length` tokens.
    """
    inputs = gather(requests, max_length)
    found = [0.0] * len(requests)
    done = 0
    with scoring(model) as score:
        for batch in batches(inputs, batch_tokens):
            inputs_read = [(one.ids, [(first, tokens) for _, first, tokens in one.answers]) for one in batch]
            for one, nats in zip(batch, score(inputs_read), strict=True):
                for (request, _, _), value in zip(one.answers, nats, strict=True):
                    found[request] = -value
            done += len(batch)
            progress(done / len(inputs), message)
    return [(value, False) for value in found]


def gather(requests: list[Request], max_length: int) -> list[_Input]:
    """Join requests that differ only in the last token into one input. Raises `InputError` as `log_likelihoods`."""
    by_ids: dict[tuple[int, ...], _Input] = {}
    for number, (_, prompt, answer) in enumerate(requests):
        if len(answer) > max_length:
            raise InputError(
                f"The model reads at most {max_length} tokens, but an answer has {len(answer)}; "
                "it cannot be scored in this task."
            )
        # the last token is predicted, not read; long inputs lose their beginning, as in the harness
        ids = tuple((prompt + answer)[-(max_length + 1) : -1])
        entry = by_ids.setdefault(ids, _Input(ids))
        entry.answers.append((number, len(ids) - len(answer), answer))
    return list(by_ids.values())
