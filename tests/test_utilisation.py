"""The FLOPs per stage of `benchmarks/utilisation.py` equal those that torch counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tokalign_lab.adaptation.stages import set_trainable

LENGTH, VOCAB_SIZE = 64, 1000


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("llama", {"num_key_value_heads": 2, "intermediate_size": 200, "tie_word_embeddings": False}),
        ("gpt_neox", {"intermediate_size": 256, "tie_word_embeddings": False}),
        ("gpt2", {"tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0}),
    ],
)
def test_the_flops_of_a_stage_are_those_that_torch_counts(
    monkeypatch: pytest.MonkeyPatch, kind: str, more: dict[str, Any], stage: int
) -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    from utilisation import flops_per_token

    config = AutoConfig.for_model(
        kind, vocab_size=VOCAB_SIZE, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, **more
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")  # torch counts its products
    set_trainable(model, stage)
    with FlopCounterMode(display=False) as counted:
        model(input_ids=torch.arange(LENGTH)[None], use_cache=False).logits.sum().backward()
    assert counted.get_total_flops() / LENGTH == sum(flops_per_token(model, stage, LENGTH))
