"""Computing the loss in chunks and training only the used rows give the same numbers as the plain loop."""

from __future__ import annotations

import pytest
import torch
from tiny import CONFIGS, tiny_model
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from tokalign_lab.adaptation import loss as module
from tokalign_lab.adaptation.loss import ChunkedLoss, NextToken, head_loss
from tokalign_lab.adaptation.rows import UsedRows, can_use_rows
from tokalign_lab.adaptation.stages import set_trainable
from tokalign_lab.evaluation.head import Head

ROWS = 300


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, ROWS, (3, 20), generator=torch.Generator().manual_seed(seed))
    labels = ids.clone()
    labels[0, 5:9] = -100
    labels[1] = -100
    return {"input_ids": ids, "labels": labels}


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in one.values())
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6 * scale), name


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_chunks_give_the_loss_and_the_gradients_of_the_models_own(
    kind: str, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", {"cpu": 4 * ROWS * 7})  # seven positions, fewer in the last chunk
    model = tiny_model(kind, ROWS)
    set_trainable(model, stage)
    for items in (None, torch.tensor(17)):
        extra = {} if items is None else {"num_items_in_batch": items}
        own = model(**batch(), **extra).loss
        own.backward()
        expected = gradients(model)
        with ChunkedLoss(model, Head(model)):
            output = model(**batch(), **extra)
            output.loss.backward()
        assert float(output.loss) == pytest.approx(float(own), rel=1e-5)
        assert output.logits.shape[1] == 1, "no logits of all positions"
        assert_same(expected, gradients(model))
    assert torch.equal(model(**batch()).loss, model(**batch()).loss)
    assert model(**batch()).logits.shape[1] == 20, "outside of the context the model is unchanged"


def test_the_labels_are_shifted_once() -> None:
    model = tiny_model("llama", ROWS)
    ids = batch()["input_ids"]
    logits = model(input_ids=ids).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    with ChunkedLoss(model, Head(model)):
        assert float(model(input_ids=ids, labels=ids).loss) == pytest.approx(float(expected), rel=1e-5)


def test_a_model_without_labels_works_as_before() -> None:
    model = tiny_model("gpt2", ROWS)
    ids = batch()["input_ids"]
    expected = model(input_ids=ids).logits
    with ChunkedLoss(model, Head(model)):
        assert torch.equal(model(input_ids=ids).logits, expected)


def test_a_token_with_tiny_probability_has_the_right_loss() -> None:
    logits = torch.zeros(2, 5000)
    logits[:, 0] = 400.0  # exp(-400) is 0 in float32
    labels = torch.tensor([7, 0])
    expected = cross_entropy(logits, labels, reduction="sum")
    assert float(NextToken(labels)(logits, slice(0, 2))) == pytest.approx(float(expected))


def test_an_empty_batch_has_a_loss_of_zero() -> None:
    model = tiny_model("llama", ROWS)
    ids = batch()["input_ids"]
    with ChunkedLoss(model, Head(model)):
        loss = model(input_ids=ids, labels=torch.full_like(ids, -100)).loss
        loss.backward()
    assert float(loss) == 0.0


def test_the_heads_gradient_is_not_copied() -> None:
    model = tiny_model("llama", ROWS)
    head = Head(model)
    made: list[int] = []
    hidden = torch.randn(9, 32, requires_grad=True)
    loss = head_loss(hidden, *head.tensors, NextToken(torch.arange(9)), 9.0)
    made.append(loss.grad_fn.grads[1].data_ptr())
    loss.backward()
    assert head.module.weight.grad.data_ptr() == made[0]
    assert loss.grad_fn.grads is None


def test_bfloat16_is_close_to_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", {"cpu": 4 * ROWS * 7})
    model = tiny_model("llama", ROWS)
    with ChunkedLoss(model, Head(model)):
        whole = model(**batch()).loss
        whole.backward()
        expected = gradients(model)["lm_head.weight"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(**batch()).loss
        half.backward()
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(whole), rel=0.02)
    found = gradients(model)["lm_head.weight"]
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


# --- the rows in use ------------------------------------------------------------------------------------------


def train(model: PreTrainedModel, ids: torch.Tensor | None, steps: int = 6) -> UsedRows | None:
    used = None if ids is None else UsedRows(model, ids)
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=1e-2, weight_decay=0.0
    )
    for step in range(steps):  # rows of tokens that occur in one step and not in the next still change, by momentum
        optimizer.zero_grad()
        text = torch.arange(10 * step, 10 * step + 20).unsqueeze(0) % 70
        model(input_ids=text, labels=text).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
    return used


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "phi", "qwen2"])
@pytest.mark.parametrize("stage", [1, 2])
def test_training_the_rows_in_use_equals_training_all(kind: str, stage: int) -> None:
    dense, compact = tiny_model(kind, ROWS), tiny_model(kind, ROWS)
    before = dense.get_input_embeddings().weight.detach().clone()
    for model in (dense, compact):
        set_trainable(model, stage)
        assert can_use_rows(model, 0.0)
    train(dense, None)
    used = train(compact, torch.arange(70))
    assert used is not None
    assert compact.get_input_embeddings().weight.shape[0] == 70
    used.close()
    expected, found = dense.state_dict(), compact.state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        # the norm for clipping is summed over a matrix of another shape
        assert torch.allclose(expected[name], found[name], rtol=1e-5, atol=1e-6), name
    rows = compact.get_input_embeddings().weight
    assert torch.equal(rows[70:], before[70:])
    assert not torch.equal(rows[:70], before[:70])


def test_the_whole_matrix_is_restored_to_measure_and_to_save() -> None:
    model = tiny_model("llama", ROWS)
    used = UsedRows(model, torch.tensor([3, 299]))
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 5.0
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[3, 4]]))
    with used.whole():
        whole = model.get_input_embeddings().weight
        assert whole.shape[0] == ROWS
        assert bool((whole[3] == 5.0).all())
        assert "model.embed_tokens.weight" in model.state_dict()
        model(input_ids=torch.tensor([[3, 4]]))
    assert model.get_input_embeddings().weight.shape[0] == 2


@pytest.mark.parametrize("padding", [3, 8])
def test_the_padding_row_gets_no_gradient_in_either_form(padding: int) -> None:
    model = tiny_model("llama", ROWS)
    model.get_input_embeddings().padding_idx = padding
    used = UsedRows(model, torch.tensor([3, 4]))
    text = torch.tensor([[3, 4, 3]])
    model(input_ids=text, labels=text).loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert bool((gradient[0] == 0).all()) == (padding == 3)
    assert bool((gradient[1] != 0).any())
    used.close()
    assert model.get_input_embeddings().padding_idx == padding


def test_training_only_used_rows_is_refused_if_it_is_not_exact() -> None:
    assert not can_use_rows(tiny_model("llama_tied", ROWS), 0.0), "the softmax reaches every row"
    assert not can_use_rows(tiny_model("gpt2", ROWS), 0.0)
    assert not can_use_rows(tiny_model("llama", ROWS), 0.01), "decay reaches every row"
