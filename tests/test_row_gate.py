"""The row gate finds rows with planted faults, and none among a model's own trained rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WORDS, tiny_model, tiny_vocabulary
from transformers import PreTrainedModel

from tokalign_lab.documents import Document, excerpts, read_documents, split_documents
from tokalign_lab.evaluation.bits_per_byte import head_inputs
from tokalign_lab.evaluation.row_gate import row_gate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import untie
from tokalign_lab.vocabulary import Vocabulary

CONTEXTS = 300


@pytest.fixture(scope="module")
def text() -> list[Document]:
    return excerpts(split_documents(read_documents(["default"], max_bytes=100_000))[1], 2_000)


@pytest.fixture(scope="module")
def model(smollm_folder: Path) -> PreTrainedModel:
    return load_model(str(smollm_folder), device="cpu")


def test_trained_rows_pass(model: PreTrainedModel, smollm_vocabulary: Vocabulary, text: list[Document]) -> None:
    found = row_gate(model, smollm_vocabulary, text, contexts=CONTEXTS)
    assert [one.severity for one in found] == ["ok"] * 3
    assert found[0].values["contexts"] >= 0.9 * CONTEXTS


def test_planted_rows_are_found(model: PreTrainedModel, smollm_vocabulary: Vocabulary, text: list[Document]) -> None:
    untie(model)
    weight = model.get_output_embeddings().weight.data
    states, *_ = head_inputs(model, smollm_vocabulary, text, CONTEXTS)
    length = weight.float().norm(dim=1).median()
    breaker, short = 20_000, 20_001
    weight[breaker] = (torch.nn.functional.normalize(states.mean(dim=0), dim=0) * 3 * length).to(weight.dtype)
    weight[short] *= 0.01
    new = np.arange(20_000, 21_000)
    lengths, wrong, breakers = row_gate(model, smollm_vocabulary, text, new, CONTEXTS)
    assert [one.severity for one in (lengths, wrong, breakers)] == ["warn"] * 3
    assert lengths.target_ids == [short]
    assert wrong.target_ids == breakers.target_ids == [breaker]


def test_a_vocabulary_without_new_rows_passes() -> None:
    vocabulary = tiny_vocabulary(300)
    text = [Document(WORDS * 3, "a", "a")]
    found = row_gate(tiny_model("llama", vocabulary.size), vocabulary, text, np.array([], np.int64), CONTEXTS)
    assert [one.values["new"] for one in found] == [0] * 3
    assert [one.severity for one in found] == ["ok"] * 3
