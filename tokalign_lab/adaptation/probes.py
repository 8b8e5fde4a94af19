"""Probes: short prompts with one right continuation, which show what a model forgets while it is tuned.

`data/probes.jsonl` holds facts, fixed phrases, arithmetic and lines of code, each a prompt and its continuation. A
probe is answered when each token of the continuation is the model's most likely one. Only probes that the source model
answers with its own tokenizer are used (`answered`), so the swap or tuning must have lost a lost probe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import torch

from tokalign_lab.evaluation.head import evaluation_mode
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS = 1 << 25  # numbers at a time, 128 MB of float32


@dataclass(frozen=True)
class Probe:
    """A prompt and its only right continuation."""

    prompt: str
    answer: str


def all_probes() -> list[Probe]:
    """Read the probes that come with the package."""
    lines = (files("tokalign_lab") / "data" / "probes.jsonl").read_text(encoding="utf-8").splitlines()
    return [Probe(**json.loads(line)) for line in lines]


def answered(model: PreTrainedModel, vocabulary: Vocabulary, probes: Sequence[Probe]) -> list[Probe]:
    """Return the probes that a model answers."""
    return [probe for probe, right in zip(probes, ask(model, vocabulary, probes), strict=True) if right]


@torch.inference_mode()
def ask(model: PreTrainedModel, vocabulary: Vocabulary, probes: Sequence[Probe]) -> list[bool]:
    """Return whether a model answers each probe; its mode (training or evaluation) is not changed.

    Parameters
    ----------
    model
        A causal language model that reads `vocabulary`.
    vocabulary
        Its tokenizer.
    probes
        The probes.
    """
    with evaluation_mode(model):
        return [one for batch in _batches(probes, model) for one in _ask(model, vocabulary, batch)]


def _batches(probes: Sequence[Probe], model: PreTrainedModel) -> list[Sequence[Probe]]:
    size = max(1, _LOGITS // (int(model.get_output_embeddings().weight.shape[0]) * 32))
    return [probes[start : start + size] for start in range(0, len(probes), size)]


def _ask(model: PreTrainedModel, vocabulary: Vocabulary, probes: Sequence[Probe]) -> list[bool]:
    bos = vocabulary.roles.get("bos", vocabulary.roles.get("eos"))
    before = [] if bos is None else [bos]
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    prompts = [[*before, *ids.tolist()][:most] for ids in vocabulary.encode([one.prompt for one in probes])]
    whole = [[*before, *ids.tolist()][:most] for ids in vocabulary.encode([one.prompt + one.answer for one in probes])]
    longest = max(len(ids) for ids in whole)
    device = model.get_input_embeddings().weight.device
    padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in whole], device=device)
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in whole], device=device)
    logits = model(input_ids=padded, attention_mask=mask, use_cache=False).logits
    found = []
    for row, (prompt, ids) in enumerate(zip(prompts, whole, strict=True)):
        # the answer may change how the prompt's end is cut, so the first token that differs is the first asked for
        start = next(
            (i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), min(len(prompt), len(ids))
        )
        start = max(1, min(start, len(ids) - 1))
        wanted = torch.tensor(ids[start:], device=device)
        found.append(bool((logits[row, start - 1 : len(ids) - 1].argmax(dim=1) == wanted).all()))
    return found
