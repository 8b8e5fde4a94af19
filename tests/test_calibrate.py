"""Calibration of the output: it must lower the loss of a real model on unseen text; tiny models check the mechanics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import WORDS, tiny_model, tiny_vocabulary

from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.documents import Document, excerpts, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation import head
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte, head_inputs
from tokalign_lab.model.calibrate import calibrate, expected_counts
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange

TEXT = [Document(WORDS * 4, "words", "words")]


def shares(model, vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean probability of each token, and its share of the text."""
    states, ids, _ = head_inputs(model, vocabulary, TEXT, 10_000)
    with torch.inference_mode():
        expected = torch.softmax(model.get_output_embeddings()(states).float(), dim=1).mean(dim=0)
    return expected.numpy(), (torch.bincount(ids, minlength=len(expected)) / len(ids)).numpy()


def test_calibration_changes_only_the_bias_of_a_head_that_has_one() -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model("phi", vocabulary.size)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected, share = shares(model, vocabulary)
    result = calibrate(model, vocabulary, TEXT)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["lm_head.bias"]
    now, _ = shares(model, vocabulary)
    shift = model.lm_head.bias.detach() - before["lm_head.bias"]
    often = share > 0.01
    assert often.sum() > 10
    # the prior adds 1 to what the text has of each token, and exp(shift) to what the model expects
    n = result.tokens
    started = np.log((n * share + 1) / (n * expected + 1))[often]
    fitted = np.log((n * share + 1) / (n * now + shift.exp().numpy()))[often]
    assert np.abs(fitted).mean() < 0.1 * np.abs(started).mean()
    assert result.nats_after < result.nats_before
    assert result.spread == 0
    assert result.largest == pytest.approx(float(shift.abs().max())) != 0


@pytest.mark.parametrize("slower", [True, False])
def test_a_model_in_bfloat16_is_read_in_float32_where_that_is_faster(
    slower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = tiny_vocabulary(300)
    halves = tiny_model("phi", vocabulary.size).to(torch.bfloat16)
    before = {name: value.clone() for name, value in halves.state_dict().items()}
    monkeypatch.setattr(head, "_slower_than_float32", lambda _dtype: slower)
    with head.in_fast_dtype(halves):
        assert {value.dtype for value in halves.parameters()} == {torch.float32 if slower else torch.bfloat16}
    whole = tiny_model("phi", vocabulary.size)
    whole.load_state_dict(before)  # the same weights, in float32
    found, right = (calibrate(model, vocabulary, TEXT, source=(model, vocabulary)) for model in (halves, whole))
    assert (abs(found.nats_before - right.nats_before) < 1e-5) == slower
    after = halves.state_dict()
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert [name for name, value in after.items() if not torch.equal(value, before[name])] == ["lm_head.bias"]


def test_special_tokens_keep_their_logits() -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model("phi", vocabulary.size)
    before = model.lm_head.bias.detach().clone()
    calibrate(model, vocabulary, TEXT)
    special = torch.from_numpy(np.flatnonzero(vocabulary.is_control))
    assert len(special)
    assert torch.equal(model.lm_head.bias[special], before[special])
    assert not torch.equal(model.lm_head.bias, before)


@pytest.mark.parametrize("kind", ["phi", "llama_tied"])
def test_logits_of_padding_only_decrease(kind: str) -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model(kind, vocabulary.size + 20)
    if kind == "llama_tied":  # random states have no common direction: give them one
        with torch.no_grad():
            model.model.norm.weight.fill_(1e-3)
            model.model.norm.register_forward_hook(lambda module, inputs, out: out + 1)
    before, _ = shares(model, vocabulary)
    calibrate(model, vocabulary, TEXT)
    after, _ = shares(model, vocabulary)
    assert len(after) == vocabulary.size + 20
    assert after[vocabulary.size :].sum() < before[vocabulary.size :].sum()


def test_states_without_a_common_direction_are_refused_and_the_model_does_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model("llama_tied", vocabulary.size)
    before = model.get_input_embeddings().weight.detach().clone()
    states = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
    both_ways = torch.cat([states, -states])
    monkeypatch.setattr(
        "tokalign_lab.model.calibrate.head_inputs", lambda *a, **k: (both_ways, torch.full((800,), 7), [])
    )
    with pytest.raises(InputError, match="no common direction"):
        calibrate(model, vocabulary, TEXT)
    assert torch.equal(model.get_output_embeddings().weight, before)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt", "phi"])
def test_states_of_batched_documents_equal_those_of_each_alone(kind: str) -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model(kind, vocabulary.size)
    documents = [
        Document(text, f"{i}", f"{i}") for i, text in enumerate(("a cat", "the dog and the cat sat", "b", "and so on"))
    ]
    states, ids, _ = head_inputs(model, vocabulary, documents, max_tokens=10_000)
    alone = [head_inputs(model, vocabulary, [document], max_tokens=10_000) for document in documents]
    wanted, theirs = torch.cat([one[0] for one in alone]), torch.cat([one[1] for one in alone])
    assert sorted(ids.tolist()) == sorted(theirs.tolist())
    for state, token in zip(states, ids, strict=True):
        assert (wanted[theirs == token] - state).abs().max(dim=1).values.min() < 1e-5


def test_expected_counts_of_a_model_with_one_tokenizer_are_its_own_probabilities() -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model("llama", vocabulary.size)
    states, ids, windows = head_inputs(model, vocabulary, TEXT, max_tokens=10_000, window=40)
    assert len(windows) > 3, "later windows have context, which does not count"
    counts, unread = expected_counts(model, vocabulary, vocabulary, windows, vocabulary.size + 5)
    assert unread == 0
    with torch.no_grad():
        predicted = torch.softmax(model.get_output_embeddings()(states).float(), dim=1)
    begins = np.cumsum([0] + [window.scored for window in windows[:-1]])
    first = [place for place, window in zip(begins, windows, strict=True) if len(window.ids) == window.scored + 1]
    predicted[first] = torch.nn.functional.one_hot(ids[first], vocabulary.size).float()  # after bos, the text counts
    assert counts[: vocabulary.size].numpy() == pytest.approx(predicted.sum(dim=0).numpy(), abs=1e-3)
    assert counts.sum() == pytest.approx(len(ids), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_expected_counts_use_the_sources_dtype_and_fall_back_to_the_text(dtype: torch.dtype) -> None:
    own, vocabulary = tiny_vocabulary(280), tiny_vocabulary(300)
    student, source = tiny_model("llama", vocabulary.size), tiny_model("llama", own.size).to(dtype).train()
    _, ids, windows = head_inputs(student, vocabulary, TEXT, max_tokens=10_000, window=40)
    counts, unread = expected_counts(source, own, vocabulary, windows, vocabulary.size)
    assert unread == 0
    assert source.training, "the source does not change"
    assert counts.sum() == pytest.approx(len(ids), rel=1e-3)
    seen = torch.bincount(ids, minlength=vocabulary.size).float()
    assert (counts - seen).abs().max() > 1, "a random source expects other tokens than the text has"
    source.config.max_position_embeddings = 8
    counts, unread = expected_counts(source, own, vocabulary, windows, vocabulary.size)
    assert torch.equal(counts, seen)
    assert unread == len(ids)


def test_no_text_is_refused() -> None:
    vocabulary = tiny_vocabulary(300)
    with pytest.raises(InputError, match="no text to read"):
        calibrate(tiny_model("phi", vocabulary.size), vocabulary, [Document("", "empty", "empty")])


def test_separate_output_rows_beat_tied_rows_and_calibration_beats_both(
    small_pair: TokenizedPair, anchored: Alignment
) -> None:
    train, held_out = split_documents(read_documents(["default"], max_bytes=330_000))
    passages = excerpts(held_out, 3_000, longest=300)
    model = load_model("smollm2-135m", device="cpu")
    lexicon = anchored.lexicon
    source, target = small_pair.source, small_pair.target

    tied = rearrange(model, lexicon, source, target, keep_tied=True)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    apart = rearrange(model, lexicon, source, target)
    assert apart.config.tie_word_embeddings is False
    inputs = apart.get_input_embeddings().weight.detach().clone()
    figures = [bits_per_byte(one, target, passages).bits_per_byte for one in (tied, apart)]
    by_source = rearrange(model, lexicon, source, target)
    reading = excerpts(train, 6_000, longest=600, seed=1)
    result = calibrate(apart, target, reading, max_tokens=1_500)
    calibrate(by_source, target, reading, max_tokens=1_500, source=(model, source))
    figures += [bits_per_byte(one, target, passages).bits_per_byte for one in (apart, by_source)]

    assert figures[0] - 0.02 > figures[1] > max(figures[2:]) + 0.05, figures
    assert figures[3] < figures[2] + 0.01, "so little text hardly shows what the source adds"
    assert torch.equal(apart.get_input_embeddings().weight, inputs)
    assert result.spread < 0.1, "a real model's states share a direction"
