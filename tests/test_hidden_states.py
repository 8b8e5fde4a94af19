"""Hidden states as token vectors, on a real model and a few hundred tokens."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_vocabulary
from transformers import AutoModelForCausalLM, PreTrainedModel

from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.hidden_states import hidden_state_vectors
from tokalign_lab.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model(smollm_folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(smollm_folder, dtype=torch.float32).eval()


def some_of(vocabulary: Vocabulary, tokens: list[bytes]) -> Vocabulary:
    """Return the vocabulary reduced to these tokens."""
    kept = {vocabulary.id_of_bytes(token) for token in tokens}
    fewer = copy(vocabulary)
    fewer.token_bytes = tuple(token if i in kept else None for i, token in enumerate(vocabulary.token_bytes))
    return fewer


def read(model: PreTrainedModel, source: Vocabulary, of: Vocabulary) -> object:
    return hidden_state_vectors(model, source, of, np.zeros(of.size, np.int64), spell=spell)


def states(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """Return the hidden states of the last layer by another call of transformers."""
    with torch.inference_mode():
        found = model(torch.tensor([ids]), output_hidden_states=True)
    return found.hidden_states[-1][0].numpy()


def test_states_are_the_models_own(
    model: PreTrainedModel, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
) -> None:
    source, target = smollm_vocabulary, sp32k_vocabulary
    bos = source.roles["bos"]
    long = next(token for token in target.token_bytes if token and len(token) > 7 and source.id_of_bytes(token) is None)
    pieces = spell(source, [long])[0]
    assert len(pieces) > 1
    made = read(model, source, some_of(target, [long, b" the"]))
    for token, ids in ((long, pieces), (b" the", [source.id_of_bytes(b" the")])):
        row = made.rows_for(np.array([target.id_of_bytes(token)]))[0]
        np.testing.assert_allclose(row, states(model, [bos, *ids])[-1], rtol=1e-3, atol=1e-3)
    assert made.provenance["prefix"] == [source.raw_token(bos)]


def test_shared_tokens_get_the_same_vector_on_both_sides(
    model: PreTrainedModel, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
) -> None:
    source, target = smollm_vocabulary, sp32k_vocabulary
    shared = [token for token in target.token_bytes if token and source.id_of_bytes(token) is not None][-200:]
    one, other = (read(model, source, some_of(side, shared)) for side in (source, target))
    for token in shared:
        rows = (
            one.rows_for(np.array([source.id_of_bytes(token)])),
            other.rows_for(np.array([target.id_of_bytes(token)])),
        )
        np.testing.assert_allclose(*rows, rtol=1e-3, atol=1e-3)


def test_with_bos_in_front_states_of_tokens_differ(model: PreTrainedModel, smollm_vocabulary: Vocabulary) -> None:
    source = smollm_vocabulary
    words = [b"the", b"and", b"for", b"with", b"from", b"that", b"this", b"have", b"are", b"was", b"not", b"you"]
    made = read(model, source, some_of(source, words + [b" " + word for word in words])).normalized()
    similar = made @ made.T
    assert similar[~np.eye(len(made), dtype=bool)].mean() < 0.95  # 0.99 without


def test_parts_of_characters_are_read_and_counted(
    model: PreTrainedModel, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
) -> None:
    source, target = smollm_vocabulary, sp32k_vocabulary
    made = read(model, source, some_of(target, [b"\xe4", b"\xf0", b" the"]))
    assert len(made) == 3
    assert made.provenance["partial_utf8"] == 2
    assert made.provenance["left_out"] == 0


def test_tokens_without_a_spelling_have_no_vector() -> None:
    source, of = tiny_vocabulary(300), tiny_vocabulary(280)
    made = hidden_state_vectors(
        tiny_model("llama", source.size), source, of, np.arange(of.size), spell=lambda _, tokens: [[] for _ in tokens]
    )
    shared = [i for i, token in enumerate(of.token_bytes) if token and source.id_of_bytes(token) is not None]
    assert made.ids.tolist() == shared
    assert made.counts.tolist() == shared
    assert made.provenance["left_out"] == sum(token is not None for token in of.token_bytes) - len(shared)


def test_invalid_inputs_are_refused() -> None:
    source = tiny_vocabulary(300)
    counts = np.zeros(source.size, np.int64)
    with pytest.raises(InputError, match="has 100 rows, but its tokenizer 'tiny-300' has ids up to"):
        hidden_state_vectors(tiny_model("llama", 100), source, source, counts, spell=spell)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "opt", "gemma3"])
def test_other_architectures_are_read(kind: str) -> None:
    source = tiny_vocabulary(300)
    made = hidden_state_vectors(
        tiny_model(kind, source.size), source, source, np.zeros(source.size, np.int64), spell=spell
    )
    assert made.ids.tolist() == [i for i, token in enumerate(source.token_bytes) if token]
    assert len(np.unique(made.rows.round(3), axis=0)) > 0.9 * len(made)
