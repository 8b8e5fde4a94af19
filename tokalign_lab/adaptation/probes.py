"""Probes: short prompts with one right continuation, which show what a model forgets while it is tuned.

`data/probes.jsonl` has facts, fixed phrases, arithmetic and lines of code, each a prompt with its continuation. The
model answers a probe if each token of the continuation is its most likely one. Only probes that the source model
answers with its own tokenizer are used (`answered`). So if a probe is lost, the swap or tuning has lost it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from tokalign_lab.device import fast
from tokalign_lab.evaluation.bits_per_byte import Scorer, scoring
from tokalign_lab.evaluation.head import longest_input
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PROBES = 16  # at a time; without `Head.in_chunks`, their logits over 262k tokens are 0.3 GB


@dataclass(frozen=True)
class Probe:
    """A prompt and its only right continuation."""

    prompt: str
    answer: str


def all_probes() -> list[Probe]:
    """Read the probes that come with the package; with $TOKALIGN_FAST, every eighth of them."""
    lines = (files("tokalign_lab") / "data" / "probes.jsonl").read_text(encoding="utf-8").splitlines()
    return [Probe(**json.loads(line)) for line in lines[:: 8 if fast() else 1]]


def answered(model: PreTrainedModel, vocabulary: Vocabulary, probes: Sequence[Probe]) -> list[Probe]:
    """Return the probes that a model answers."""
    return [probe for probe, right in zip(probes, ask(model, vocabulary, probes), strict=True) if right]


def ask(model: PreTrainedModel, vocabulary: Vocabulary, probes: Sequence[Probe]) -> list[bool]:
    """Return whether a model answers each probe; its mode (training or evaluation) stays the same.

    Parameters
    ----------
    model : a causal language model that reads `vocabulary`
    vocabulary : its tokenizer
    probes : the probes
    """
    before = vocabulary.start_ids
    most = longest_input(model) or 1 << 30
    prompts = [[*before, *ids.tolist()][:most] for ids in vocabulary.encode([one.prompt for one in probes])]
    wholes = [[*before, *ids.tolist()][:most] for ids in vocabulary.encode([one.prompt + one.answer for one in probes])]
    found = [False] * len(probes)
    order = sorted(range(len(probes)), key=lambda place: len(wholes[place]))  # probes of one length need no padding
    with scoring(model) as score:
        for first in range(0, len(order), _PROBES):
            batch = order[first : first + _PROBES]
            starts = [_start(prompts[place], wholes[place]) for place in batch]
            for place, right in zip(batch, _right(score, [wholes[place] for place in batch], starts), strict=True):
                found[place] = right
    return found


def _start(prompt: list[int], whole: list[int]) -> int:
    """Return the position of the first token of the answer."""
    # the answer may change how the end of the prompt is tokenized, so the first different token counts
    start = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole))
    )
    return max(1, min(start, len(whole) - 1))


def _right(score: Scorer, wholes: Sequence[list[int]], starts: Sequence[int]) -> list[bool]:
    """Return whether each token from the start on is the most likely one."""
    head = score.head
    padded, mask = score.padded(wholes)
    asked = [
        (row, i) for row, (ids, start) in enumerate(zip(wholes, starts, strict=True)) for i in range(start, len(ids))
    ]
    rows, places = torch.tensor(asked, device=head.device).T
    if head.in_chunks:  # with a large vocabulary, the head does most of the work
        likely = head.at(padded, mask, lambda hidden: head.logits(hidden[rows, places - 1]).argmax(dim=1))
    else:
        logits = head.model(input_ids=padded, attention_mask=mask, use_cache=False).logits
        likely = logits[rows, places - 1].argmax(dim=1)
    wrong = set(rows[likely != padded[rows, places]].tolist())
    return [row not in wrong for row in range(len(wholes))]
