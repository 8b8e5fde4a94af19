"""Measure one model as the draft model of another, in speculative decoding by transformers.

In each step the draft model proposes `AHEAD` tokens and the large model reads them all in one forward pass. It accepts
the longest prefix that it would have generated and adds one token, so the output is the large model's (Leviathan et
al., arXiv 2211.17192). Two figures decide whether this is faster: the share of the proposed tokens that is accepted,
and the number of tokens per forward pass of the large model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokalign_lab.documents import Document, excerpts, n_bytes
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import longest_input, plain_generation
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AHEAD = 4
"""Tokens that the draft model proposes in a step."""
PROMPT_TOKENS = 64
"""Tokens of a prompt, or fewer where a model cannot read so many and the new tokens."""


@dataclass(frozen=True)
class DraftScore:
    """Speculative decoding of the prompts of one slice.

    Attributes
    ----------
    slice : slice of the prompts
    decoding : "greedy", or "sampled" (temperature 1, from all tokens)
    tokens, steps : generated tokens, and forward passes of the large model for them
    proposed : tokens that the draft model proposed, in the large model's vocabulary
    seconds, plain_seconds : seconds per token on this machine, with the draft model and by the large model alone
        (greedy)
    """

    slice: str
    decoding: str
    tokens: int
    steps: int
    proposed: int
    seconds: float
    plain_seconds: float

    @property
    def acceptance(self) -> float:
        """Share of the proposed tokens that the large model accepted; it adds one more token in each step."""
        return (self.tokens - self.steps) / self.proposed if self.proposed else 0.0

    @property
    def tokens_per_step(self) -> float:
        """Tokens per forward pass of the large model: 1 without a draft model, at most `AHEAD` + 1."""
        return self.tokens / self.steps

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: slice, decoding, acceptance, tokens per step, speed-up, and the counts behind them."""
        return {
            "slice": self.slice,
            "decoding": self.decoding,
            "acceptance": self.acceptance,
            "tokens_per_step": self.tokens_per_step,
            "speed_up": self.plain_seconds / self.seconds,
            "tokens": self.tokens,
            "steps": self.steps,
            "proposed": self.proposed,
        }


class Drafting:
    """Prompts of a text, which the large model continues alone and then with each draft model.

    Of the models' `generation_config` only special and suppressed ids are used, so generation does not end at stop
    strings.

    Raises `InputError` if the text has no passage that is long enough, or `longest` leaves no token for a prompt.

    Parameters
    ----------
    large : the large model, in evaluation mode
    vocabulary : its tokenizer
    documents : held-out text
    prompts : prompts per slice: the first `PROMPT_TOKENS` tokens of passages sampled by `seed`
    new_tokens : tokens to generate for each prompt
    longest : smallest maximum input length of the models, in tokens; None if there is no limit
    """

    def __init__(
        self,
        large: PreTrainedModel,
        vocabulary: Vocabulary,
        documents: Sequence[Document],
        prompts: int,
        new_tokens: int,
        seed: int,
        longest: int | None = None,
    ) -> None:
        length = prompt_tokens(new_tokens, longest)
        self._large, self._vocabulary, self._new_tokens, self._seed = large, vocabulary, new_tokens, seed
        self._prompts: dict[str, list[torch.Tensor]] = {}
        passages = excerpts(documents, n_bytes(documents))
        for place in np.random.default_rng(seed).permutation(len(passages)):
            own = self._prompts.get(passages[place].slice, [])
            if len(own) == prompts:
                continue
            ids = vocabulary.encode([passages[place].text])[0][:length]
            if len(ids) == length:
                prompt = torch.tensor([[*vocabulary.start_ids, *ids]], device=large.device)
                self._prompts[passages[place].slice] = [*own, prompt]
        if not self._prompts:
            raise InputError(f"The held-out text has no passage of {length} tokens; give more text.")
        self._plain = {name: self._run(own, "greedy") for name, own in self._prompts.items()}

    def score(
        self, draft: PreTrainedModel, own: Vocabulary | None = None, progress: Progress = silent
    ) -> list[DraftScore]:
        """Measure a draft model.

        Returns a score by slice and decoding; none if the texts, in tokens of `own`, are too long for the draft model.

        Parameters
        ----------
        draft : a model with the vocabulary and the number of rows of the large model, unless `own` is given
        own : the draft model's tokenizer, if it is another one. transformers then converts the text back and forth;
            greedy decoding only.
        """
        limit = longest_input(draft)
        if own is not None and limit is not None:
            written = [self._vocabulary.decode(ids) for texts, _ in self._plain.values() for ids in texts]
            if max(map(len, own.encode(written))) + 1 + AHEAD > limit:
                return []
        options: dict[str, Any] = {"assistant_model": draft}
        if own is not None:
            options |= {"tokenizer": self._vocabulary.tokenizer, "assistant_tokenizer": own.tokenizer}
        decodings = ("greedy", "sampled") if own is None else ("greedy",)
        jobs = [(name, decoding) for name in self._prompts for decoding in decodings]
        scores = []
        for place, (name, decoding) in enumerate(jobs):
            progress(place / len(jobs), f"{name}, {decoding}")
            prompts = self._prompts[name]
            with _proposing(draft), _tokens_read(self._large) as read:
                texts, seconds = self._run(prompts, decoding, **options)
            tokens, plain = _n_new(prompts, texts), self._plain[name][1]
            # a step reads the proposed tokens after a prompt or the last token that was generated
            proposed = sum(read) - (sum(ids.shape[1] for ids in prompts) + len(read) - len(prompts))
            scores.append(DraftScore(name, decoding, tokens, len(read), proposed, seconds, plain))
        return scores

    def _run(self, prompts: Sequence[torch.Tensor], decoding: str, **options: Any) -> tuple[list[list[int]], float]:
        """Continue prompts; return the ids of prompts with continuations, and the seconds per new token."""
        texts, started = [], time.perf_counter()
        options |= {"do_sample": decoding == "sampled", "max_new_tokens": self._new_tokens}
        if decoding == "sampled":
            options |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        with torch.random.fork_rng(), plain_generation(self._large):
            self._large.generation_config.stop_strings = None  # the draft model gets no tokenizer for them
            torch.manual_seed(self._seed)
            for ids in prompts:
                texts.append(self._large.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist())
        return texts, (time.perf_counter() - started) / _n_new(prompts, texts)


def prompt_tokens(new_tokens: int, longest: int | None) -> int:
    """Return the length of a prompt; raises `InputError` if `new_tokens` leave no token for it."""
    most = PROMPT_TOKENS if longest is None else longest - new_tokens - 1  # 1: the token that begins a text
    if longest is not None and most < 1:
        raise InputError(f"A model reads at most {longest} tokens; ask for fewer than {longest - 1} new tokens.")
    return min(most, PROMPT_TOKENS)


def _n_new(prompts: Sequence[torch.Tensor], texts: Sequence[list[int]]) -> int:
    return sum(map(len, texts)) - sum(ids.shape[1] for ids in prompts)


@contextmanager
def _proposing(draft: PreTrainedModel) -> Iterator[None]:
    """Make a draft model propose `AHEAD` tokens in each step, also where its `generation_config` has other numbers."""
    with plain_generation(draft):
        draft.generation_config.stop_strings = None
        draft.generation_config.num_assistant_tokens = AHEAD
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        yield


@contextmanager
def _tokens_read(model: PreTrainedModel) -> Iterator[list[int]]:
    """Yield a list that gets the number of tokens of each forward pass."""
    found: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, given, named: found.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        yield found
    finally:
        hook.remove()
