from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CONFIGS, WORDS, tiny_model, tiny_vocabulary
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    MptConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XGLMConfig,
    XLMConfig,
)

from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation import bits_per_byte as module
from tokalign_lab.evaluation import head
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.head import Head, check_causal, longest_input
from tokalign_lab.model.check import check_folder
from tokalign_lab.vocabulary import Vocabulary

VOCABULARY = tiny_vocabulary(300)
TEXTS = [WORDS * 3, "", "Straße, 你好 👩‍🚀\r\nline two\r\n", "a"]
DOCUMENTS = [Document(text, f"d{n}", "g", "prose" if n < 2 else "other") for n, text in enumerate(TEXTS)]
BYTES = sum(len(text.encode()) for text in TEXTS)


def uniform_model(rows: int) -> PreTrainedModel:
    model = tiny_model("gpt2", rows)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    return model


def bigram_model(rows: int) -> PreTrainedModel:
    """Make a model whose prediction depends on the last token only: attention and MLP add zero."""
    model = tiny_model("llama", rows)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


@pytest.mark.parametrize("vocabulary", [VOCABULARY, tiny_vocabulary(262)], ids=["300", "262"])
def test_a_uniform_model_needs_log2_v_bits_per_token(vocabulary: Vocabulary) -> None:
    tokens = sum(len(ids) for ids in vocabulary.encode(TEXTS))
    result = bits_per_byte(uniform_model(vocabulary.size), vocabulary, DOCUMENTS, window=16)
    assert result.tokens == tokens
    assert result.bytes == BYTES
    assert result.documents == 3
    assert result.bits_per_byte == pytest.approx(math.log2(vocabulary.size) * tokens / BYTES, rel=1e-6)


def test_every_byte_is_in_exactly_one_slice_and_slices_add_up() -> None:
    result = bits_per_byte(tiny_model("llama", VOCABULARY.size), VOCABULARY, DOCUMENTS)
    assert sum(result.bytes_by_slice.values()) == result.bytes == BYTES
    whole = sum(result.by_slice[name] * result.bytes_by_slice[name] for name in result.by_slice)
    assert whole / BYTES == pytest.approx(result.bits_per_byte, rel=1e-9)


@pytest.mark.parametrize(("window", "batch_tokens"), [(6, 6), (7, 64), (16, 1), (33, 100), (512, 1024)])
def test_windows_and_batches_do_not_change_the_bits_of_a_bigram_model(window: int, batch_tokens: int) -> None:
    model = bigram_model(VOCABULARY.size)
    expected, tokens = 0.0, 0
    for ids in VOCABULARY.encode(TEXTS):
        if len(ids):
            line = torch.tensor([[VOCABULARY.roles["eos"], *ids.tolist()]])
            with torch.inference_mode():
                logits = model(line[:, :60]).logits if line.shape[1] <= 60 else by_pairs(model, line)
            scores = torch.log_softmax(logits[0, : line.shape[1] - 1].double(), dim=-1)
            expected -= float(scores[torch.arange(line.shape[1] - 1), line[0, 1:]].sum())
            tokens += len(ids)
    result = bits_per_byte(model, VOCABULARY, DOCUMENTS, window=window, batch_tokens=batch_tokens)
    assert result.tokens == tokens
    assert result.bits_per_byte == pytest.approx(expected / math.log(2) / BYTES, rel=1e-5)


def by_pairs(model: PreTrainedModel, line: torch.Tensor) -> torch.Tensor:
    return model(line.transpose(0, 1)).logits.transpose(0, 1)


_SMALL = {"vocab_size": VOCABULARY.size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


def bert(kind: type[PretrainedConfig], is_decoder: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    config = kind(**_SMALL, num_attention_heads=4, max_position_embeddings=40, is_decoder=is_decoder)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def test_a_model_that_attends_to_later_tokens_is_refused(tmp_path: Path) -> None:
    bert(BertConfig, is_decoder=False).save_pretrained(tmp_path)
    VOCABULARY.tokenizer.save_pretrained(tmp_path)
    assert check_folder(str(tmp_path)).finding("generation").severity == "fail"
    with pytest.raises(InputError, match="'bert' reads the tokens that it is to predict"):
        bits_per_byte(bert(BertConfig, is_decoder=False), VOCABULARY, DOCUMENTS)
    assert bits_per_byte(bert(BertConfig, is_decoder=True), VOCABULARY, DOCUMENTS).bits_per_byte > 1


@pytest.mark.parametrize("kind", ["roberta", "mpt"])
def test_an_input_limit_under_another_name_is_respected(kind: str) -> None:
    """RoBERTa's positions begin after the id of pad; MPT calls the number of positions max_seq_len."""
    if kind == "mpt":
        config = MptConfig(vocab_size=VOCABULARY.size, d_model=32, n_heads=4, n_layers=2, max_seq_len=38)
        model = AutoModelForCausalLM.from_config(config).eval()
    else:
        model = bert(RobertaConfig, is_decoder=True)
    assert longest_input(model) == 38
    assert bits_per_byte(model, VOCABULARY, DOCUMENTS, window=512) == bits_per_byte(model, VOCABULARY, DOCUMENTS, 38)


def test_the_input_limit_of_computed_positions_is_read_from_the_configuration() -> None:
    config = XGLMConfig(
        vocab_size=VOCABULARY.size, d_model=32, ffn_dim=64, num_layers=2, attention_heads=4, max_position_embeddings=40
    )
    assert longest_input(AutoModelForCausalLM.from_config(config)) == 40


def test_a_causal_model_that_finds_lengths_by_padding_is_accepted() -> None:
    """XLM finds the length of an input by counting padding, here of id 0."""
    config = XLMConfig(vocab_size=VOCABULARY.size, emb_dim=32, n_layers=2, n_heads=4, causal=True, pad_index=0)
    check_causal(AutoModelForCausalLM.from_config(config))


def test_a_window_is_no_longer_than_the_model_has_positions() -> None:
    model = tiny_model("gpt2", VOCABULARY.size)  # 64 learned positions
    long = [Document(WORDS * 5, "long", "g", "prose")]
    assert bits_per_byte(model, VOCABULARY, long) == bits_per_byte(model, VOCABULARY, long, window=64)


def test_a_long_document_is_cut_into_windows_that_tile_it() -> None:
    ids = np.arange(100, 200)
    windows = list(module._windows(0, ids, prefix=7, window=20))
    scored = np.concatenate([part.ids[len(part.ids) - part.scored :] for part in windows])
    assert np.array_equal(scored, ids)
    for number, part in enumerate(windows):
        assert part.ids[0] == 7
        assert len(part.ids) <= 20
        assert number == 0 or len(part.ids) - part.scored - 1 == 4, "a later window has a quarter of context"


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_blocks_of_logits_equal_the_models_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(kind, VOCABULARY.size)
    monkeypatch.setattr(head, "_LOGITS_BYTES", 4 * VOCABULARY.size * 3)  # three rows per block
    in_blocks = bits_per_byte(model, VOCABULARY, DOCUMENTS, window=48)
    monkeypatch.setattr(module.Head, "_probe", lambda self: False)
    whole = bits_per_byte(model, VOCABULARY, DOCUMENTS, window=48)
    assert in_blocks.bits_per_byte == pytest.approx(whole.bits_per_byte, rel=1e-5)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_every_tested_architecture_is_scored_in_blocks(kind: str) -> None:
    assert Head(tiny_model(kind, VOCABULARY.size)).in_chunks


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_in_another_dtype_is_scored_in_blocks(dtype: torch.dtype) -> None:
    model = tiny_model("llama", VOCABULARY.size)
    wanted = bits_per_byte(model, VOCABULARY, DOCUMENTS).bits_per_byte
    model.to(dtype)
    assert Head(model).in_chunks
    assert bits_per_byte(model, VOCABULARY, DOCUMENTS).bits_per_byte == pytest.approx(wanted, rel=1e-2)


def test_an_unknown_kind_of_head_falls_back_to_the_models_own_logits() -> None:
    model = tiny_model("llama", VOCABULARY.size)
    plain = bits_per_byte(model, VOCABULARY, DOCUMENTS, window=48)
    model.register_forward_hook(lambda m, i, out: out.__setitem__("logits", out["logits"] * 0.5) or out)
    assert not Head(model).in_chunks
    scaled = bits_per_byte(model, VOCABULARY, DOCUMENTS, window=48)
    assert abs(scaled.bits_per_byte - plain.bits_per_byte) > 0.05


def test_line_ends_and_broken_characters_are_counted_unchanged() -> None:
    model = uniform_model(VOCABULARY.size)
    unix, windows = ([Document(text, "d", "g", "prose")] for text in ("a\nb\n", "a\r\nb\r\n"))
    assert bits_per_byte(model, VOCABULARY, windows).bytes == bits_per_byte(model, VOCABULARY, unix).bytes + 2
    broken = b"caf\xe9 ok".decode("utf-8", "surrogateescape")
    result = bits_per_byte(model, VOCABULARY, [Document(broken, "d", "g", "prose")])
    assert result.bytes == len("caf\ufffd ok".encode())
    assert math.isfinite(result.bits_per_byte)


def test_scoring_does_not_change_the_model() -> None:
    model = tiny_model("llama", VOCABULARY.size).train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    bits_per_byte(model, VOCABULARY, DOCUMENTS)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_input_that_cannot_be_scored_is_refused() -> None:
    model = tiny_model("llama", VOCABULARY.size)
    with pytest.raises(InputError, match="no text to score"):
        bits_per_byte(model, VOCABULARY, [Document("", "d", "g", "prose")])
    with pytest.raises(InputError, match="window of 1"):
        bits_per_byte(model, VOCABULARY, DOCUMENTS, window=1)
    with pytest.raises(InputError, match="do not belong together"):
        bits_per_byte(tiny_model("llama", 100), VOCABULARY, DOCUMENTS)


def test_progress_reaches_the_end() -> None:
    reported: list[float] = []
    bits_per_byte(
        tiny_model("llama", VOCABULARY.size),
        VOCABULARY,
        DOCUMENTS,
        window=12,
        batch_tokens=24,
        progress=lambda share, message: reported.append(share),
    )
    assert reported == sorted(reported)
    assert reported[-1] == 1.0
    assert len(reported) > 3
