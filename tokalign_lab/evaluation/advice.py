"""Is a swap worth it? What the target tokenizer saves on a text, what the swap costs, and a verdict by stated rules.

A swap pays on a slice of the text if

1. the slice needs at least `LEAST_SAVED` fewer tokens, and
2. the speed-up of generation, in bytes per second, is at least the loss: the largest measured ratio of bits per byte
   after recovery to those of the source model.

So seconds per byte times bits per byte must not rise. The speed-up is a range (the quartiles of the timed steps): a
swap pays if its low end reaches the largest measured loss, and may pay if only its high end reaches the smallest one.
Losses were measured after small budgets of recovery; more text may lower them, which is not assumed here. A slice of
fewer than `LEAST_BYTES` bytes gets no verdict.

- "swap": it pays on every slice.
- "swap for some": it pays on some slices.
- "extend": it pays on none, some slices need at least `LEAST_SAVED` fewer tokens, and they use new tokens.
- "do not swap": otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.compression import count_tokens, token_lengths
from tokalign_lab.evaluation.measured_moves import ExpectedLoss, expected_loss
from tokalign_lab.evaluation.step_time import StepTime
from tokalign_lab.vocabulary import shared_tokens

LEAST_SAVED = 0.1
LEAST_BYTES = 1_000
_MUCH_UNSPELLED = 0.01  # share of a slice's bytes
_MOST = 0.9  # share of the uses of new tokens that an extension should cover

ALL = "all"
"""Name of the sum of all slices, which does not affect the verdict."""


@dataclass(frozen=True)
class SliceCounts:
    """Numbers of UTF-8 bytes and tokens of one slice of a text.

    Each byte that a tokenizer cannot spell counts as a token, as with byte fallback: else an unknown token for a word
    would look like a gain. `unspelled_bytes` are those of the target. `new_tokens` and `new_bytes` count occurrences of
    target tokens that are not shared: their rows are not copied.
    """

    slice: str
    n_bytes: int
    source_tokens: int
    target_tokens: int
    new_tokens: int
    new_bytes: int
    unspelled_bytes: int

    @property
    def saved(self) -> float:
        """Share of tokens that the target saves; negative if it needs more."""
        return 1 - self.target_tokens / self.source_tokens

    @property
    def factor(self) -> float:
        """Bytes per token of the target over bytes per token of the source."""
        return self.source_tokens / self.target_tokens


@dataclass(frozen=True)
class TextCounts:
    """A text in both tokenizations.

    Attributes
    ----------
    slices : in descending order of bytes
    of_target : int64 (slices, target size): occurrences of each target token in each slice
    is_new : bool (target size,): text tokens that are not shared
    is_text : bool (target size,): text tokens, without special tokens
    """

    slices: tuple[SliceCounts, ...]
    of_target: np.ndarray[Any, Any]
    is_new: np.ndarray[Any, Any]
    is_text: np.ndarray[Any, Any]

    @property
    def unseen(self) -> int:
        """Number of the target's text tokens that are not in the text."""
        return int((self.is_text & (self.of_target.sum(axis=0) == 0)).sum())

    @property
    def all(self) -> SliceCounts:
        """All slices together."""
        fields = ("n_bytes", "source_tokens", "target_tokens", "new_tokens", "new_bytes", "unspelled_bytes")
        return SliceCounts(ALL, *(sum(getattr(one, name) for one in self.slices) for name in fields))

    def most_used_new(self, slices: Sequence[str]) -> int:
        """Count the most frequent new tokens that cover 90 % of all occurrences of new tokens in some slices."""
        rows = [place for place, one in enumerate(self.slices) if one.slice in slices]
        counts = np.sort(self.of_target[rows].sum(axis=0)[self.is_new])[::-1].cumsum()
        return int(np.searchsorted(counts, _MOST * counts[-1])) + 1 if counts.size and counts[-1] else 0


@dataclass(frozen=True)
class SliceAdvice:
    """Gains and costs of a swap on one slice.

    Attributes
    ----------
    counts : bytes and tokens
    source_speed, target_speed : bytes per second of generation, batch size 1
    faster : low, middle and high estimate of the speed-up: bytes per second after the swap over before
    context_gained : bytes by which the model's maximum context grows; None if the model has no limit
    right_after, recovered : ratio of bits per byte to the untuned source, and to the source tuned on the same bytes
    """

    counts: SliceCounts
    source_speed: float
    target_speed: float
    faster: tuple[float, ...]
    context_gained: int | None
    right_after: ExpectedLoss
    recovered: ExpectedLoss

    @property
    def verdict(self) -> str:
        """Return "pays", "may pay", "does not pay" or "too little text", by the rules of this module."""
        if self.counts.n_bytes < LEAST_BYTES:
            return "too little text"
        if self.counts.saved < LEAST_SAVED or self.faster[2] < self.recovered.low:
            return "does not pay"
        return "pays" if self.faster[0] >= self.recovered.high else "may pay"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **asdict(self.counts),
            "saved": self.counts.saved,
            "source_bytes_per_second": self.source_speed,
            "target_bytes_per_second": self.target_speed,
            "faster": self.faster,
            "context_gained_bytes": self.context_gained,
            "loss_right_after": asdict(self.right_after),
            "loss_recovered": asdict(self.recovered),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Sizes:
    """Number of weights before and after the swap, and their bytes in the dtype of the saved model.

    After the swap, input embedding and head are untied, as `rearrange` saves them by default.
    """

    source_weights: int
    target_weights: int
    source_bytes: int
    target_bytes: int


@dataclass(frozen=True)
class Advice:
    """Verdict ("swap", "swap for some", "extend" or "do not swap"), its reason in one sentence, and the evidence.

    `slices` are in descending order of bytes; `total` is all slices together.
    """

    verdict: str
    reason: str
    slices: tuple[SliceAdvice, ...]
    total: SliceAdvice
    text: TextCounts
    sizes: Sizes
    step: StepTime

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: verdict, reason, slices and their sum, rows, weights and times."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "slices": [one.to_dict() for one in self.slices],
            "all": {name: value for name, value in self.total.to_dict().items() if name != "verdict"},
            "rows": {
                "text_tokens": int(self.text.is_text.sum()),
                "not_in_the_text": self.text.unseen,
                "new": int(self.text.is_new.sum()),
                "new_share_of_text_tokens": self.total.counts.new_tokens / self.total.counts.target_tokens,
                "new_share_of_text_bytes": self.total.counts.new_bytes / self.total.counts.n_bytes,
            },
            "sizes": asdict(self.sizes),
            "step": asdict(self.step),
            "rules": {"least_saved": LEAST_SAVED, "least_bytes": LEAST_BYTES},
        }


def count_text(pair: TokenizedPair) -> TextCounts:
    """Count bytes, tokens and new tokens of a text by slice.

    Raises `InputError` if no slice of the text has `LEAST_BYTES` bytes.
    """
    target = pair.target
    is_text = np.array([token is not None for token in target.token_bytes])
    is_new = is_text.copy()
    is_new[shared_tokens(pair.source, target).target_ids] = False
    of_source, lengths = token_lengths(pair.source), token_lengths(target)
    names = np.array([document.slice for document in pair.documents])
    found, rows = [], []
    for name in dict.fromkeys(names.tolist()):
        here = names == name
        source_tokens = count_tokens(of_source, pair.source_corpus, pair.documents, here)[1]
        counts, target_tokens, unspelled = count_tokens(lengths, pair.target_corpus, pair.documents, here)
        if not source_tokens or not counts.sum():  # a tokenizer may drop white space
            continue
        n_bytes = int(pair.source_corpus.byte_lengths[here].sum())
        new = (int(counts[is_new].sum()), int((counts * lengths)[is_new].sum()))
        found.append(SliceCounts(name, n_bytes, source_tokens, target_tokens, *new, unspelled))
        rows.append(counts)
    if max((one.n_bytes for one in found), default=0) < LEAST_BYTES:
        raise InputError(
            f"The text has no slice of at least {LEAST_BYTES:,} bytes, which is too little for a verdict; "
            "give more text."
        )
    order = sorted(range(len(found)), key=lambda place: -found[place].n_bytes)
    slices = tuple(found[place] for place in order)
    return TextCounts(slices, np.stack([rows[place] for place in order]), is_new, is_text)


def advise(source: str, target: str, text: TextCounts, step: StepTime, sizes: Sizes, context: int | None) -> Advice:
    """Judge a swap by the rules of this module.

    Parameters
    ----------
    source, target : names of the model and of the target tokenizer, to find measured runs
    text : from `count_text`
    step : from `time_step`, for a head with the target's rows
    sizes : weights before and after
    context : number of positions of the model; None if it has no limit
    """

    def judge(counts: SliceCounts) -> SliceAdvice:
        per_token = counts.n_bytes / counts.source_tokens, counts.n_bytes / counts.target_tokens
        return SliceAdvice(
            counts=counts,
            source_speed=per_token[0] / step.source[1],
            target_speed=per_token[1] / step.target[1],
            faster=tuple(counts.factor * old / new for old, new in zip(step.source, step.target[::-1], strict=True)),
            context_gained=None if context is None else round(context * (per_token[1] - per_token[0])),
            right_after=expected_loss(source, target, counts.slice, recovered=False),
            recovered=expected_loss(source, target, counts.slice, recovered=True),
        )

    slices = tuple(map(judge, text.slices))
    verdict, reason = _verdict(text, [one for one in slices if one.verdict != "too little text"])
    return Advice(verdict, reason, slices, judge(text.all), text, sizes, step)


def _verdict(text: TextCounts, slices: list[SliceAdvice]) -> tuple[str, str]:
    """Return the verdict and its reason in one sentence."""
    pays, may = ([one for one in slices if one.verdict == name] for name in ("pays", "may pay"))
    if pays:
        worst = min(pays, key=lambda one: one.faster[0] / one.recovered.high)
        paid = (
            "generation gains more speed there than measured swaps lose in bits per byte after recovery (the closest "
            f"is {_figures(worst)})"
        )
        if len(pays) == len(slices):
            return "swap", f"Swap for {_names(pays)}: {paid}."
        return "swap for some", f"Swap only if the model is for {_names(pays)}: {paid}; on other text it is uncertain."
    saving = [one for one in slices if one.counts.saved >= LEAST_SAVED]
    if not saving:
        best = max(slices, key=lambda one: one.counts.saved)
        lost = best.counts.unspelled_bytes / best.counts.n_bytes
        unspelled = f" because the target has no token for {lost:.0%} of its bytes" if lost >= _MUCH_UNSPELLED else ""
        return "do not swap", (
            f"Do not swap: a swap costs quality, and no slice needs {LEAST_SAVED:.0%} fewer tokens (the best is "
            f"{best.counts.slice}, where {_change(best.counts.saved)}{unspelled})."
        )
    best = max(saving, key=lambda one: one.faster[1] / one.recovered.low)
    also = f"; it may pay for {'all of them' if len(may) == len(saving) else _names(may)}" if may else ""
    unsure = (
        f"{_names(saving)} would need fewer tokens, but a swap may lose more in bits per byte than it gains in speed "
        f"(the best is {_figures(best)}{also})"
    )
    added = text.most_used_new([one.counts.slice for one in saving])
    if not added:
        return "do not swap", f"Do not swap: {unsure}, and the target has no new token there to extend the source with."
    return "extend", (
        f"Extend the source tokenizer instead: {unsure}, while {added:,} added tokens cover 90 % of the uses of new "
        "tokens there and keep the old rows."
    )


def _change(saved: float) -> str:
    return f"{abs(saved):.1%} {'fewer' if saved >= 0 else 'more'} tokens are needed"


def _figures(one: SliceAdvice) -> str:
    low, high = (f"{value:.2f}" for value in (one.recovered.low, one.recovered.high))
    loss = low if low == high else f"{low} to {high}"
    figures = f"{one.counts.slice}: {one.faster[1]:.2f} times the speed for {loss} times the bits"
    return f"{figures}, by one measured run" if one.recovered.n == 1 else figures


def _names(slices: Sequence[SliceAdvice]) -> str:
    names = [one.counts.slice for one in slices]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
