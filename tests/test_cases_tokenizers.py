"""Tokenizers from public bug reports, each reduced to a small one with its correct result."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import time
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tiny import WORDS, renumbered, tiny_model, tiny_tokenizer, tiny_vocabulary
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tokalign_lab import catalog
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.catalog.tokenizer_formats import PATTERNS
from tokalign_lab.corpus import Corpus
from tokalign_lab.cross_tokenizer.byte_alignment import tokenize
from tokalign_lab.cross_tokenizer.pieces import Pieces
from tokalign_lab.documents import Document, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.document_bits import document_bits
from tokalign_lab.evaluation.spelled import unspelled_bytes
from tokalign_lab.model.special_ids import move_special_ids
from tokalign_lab.model.tokenizer_checks import unreachable_tokens
from tokalign_lab.pipeline import train_tokenizer
from tokalign_lab.settings.kinds import TrainTokenizerSettings
from tokalign_lab.tokenizer_training import extend, train
from tokalign_lab.vectors.hidden_states import hidden_state_vectors
from tokalign_lab.vocabulary import Vocabulary, shared_roles, shared_tokens

TEXTS = [WORDS * 5, "short", "a\n\n  b </s> café 你好", ""]
DOCUMENTS = [Document(text, str(n), str(n), "code" if n else "prose") for n, text in enumerate(TEXTS)]


def view(backend: Tokenizer, name: str = "tokenizer", **roles: str) -> Vocabulary:
    return Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **roles), name)


def zero_model(rows: int) -> torch.nn.Module:
    """Make a model for which all ids are equally likely: log2(rows) bits per token."""
    model = tiny_model("llama", rows)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    return model


# Settings that a tokenizer's file stores (h01)


def _truncation(backend: Tokenizer) -> None:
    backend.enable_truncation(8, stride=2, direction="left")


def _padding(backend: Tokenizer) -> None:
    backend.enable_padding(length=64, pad_id=backend.token_to_id("</s>"), pad_token="</s>")


def _dropout(backend: Tokenizer) -> None:
    backend.model.dropout = 0.5


def _template(backend: Tokenizer) -> None:
    eos = ("</s>", backend.token_to_id("</s>"))
    backend.post_processor = processors.TemplateProcessing(single="</s> $A </s>", pair="$A $B", special_tokens=[eos])


@pytest.mark.parametrize("store", [_truncation, _padding, _dropout, _template])
def test_settings_stored_in_a_tokenizers_file_are_not_applied_to_text(store, tmp_path: Path) -> None:
    plain = tiny_vocabulary(300)
    tokenizer = tiny_tokenizer(300)
    store(tokenizer.backend_tokenizer)
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    stored = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    assert stored != plain.tokenizer.backend_tokenizer.to_str(pretty=True)
    vocabulary = view(Tokenizer.from_str(stored), eos_token="</s>")
    assert vocabulary.fingerprint == plain.fingerprint
    for ours, right in zip(vocabulary.encode(TEXTS), plain.encode(TEXTS), strict=True):
        assert ours.tolist() == right.tolist()
    assert vocabulary.spans(TEXTS[2]) == plain.spans(TEXTS[2])
    assert vocabulary.spans("e\u0301 </s>") == plain.spans("e\u0301 </s>")
    model = tiny_model("llama", plain.size)
    assert bits_per_byte(model, vocabulary, DOCUMENTS) == bits_per_byte(model, plain, DOCUMENTS)
    assert json.loads(vocabulary.tokenizer.backend_tokenizer.to_str()) == json.loads(stored), "reading changed it"


def test_sampling_of_a_unigram_model_is_turned_off() -> None:
    tokens = [("<unk>", 0.0), *((token, -1.0) for token in ("a", "b", "c", "ab", "bc", "abc"))]
    backend = Tokenizer(models.Unigram(tokens, 0, False))
    backend.model.alpha, backend.model.nbest_size = 0.1, 8
    vocabulary = view(backend)
    assert len({tuple(vocabulary.encode(["abcabcabc"])[0].tolist()) for _ in range(20)}) == 1
    assert backend.model.alpha == pytest.approx(0.1)


def test_a_template_and_truncation_are_not_applied_to_spans() -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    _template(tokenizer.backend_tokenizer)
    _truncation(tokenizer.backend_tokenizer)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "nfc")
    text = "cafe\u0301 " + WORDS
    spans = vocabulary.spans(text)
    assert spans[-1][2] == len(text.encode())
    assert not any(vocabulary.is_control[i] for i, _, _ in spans)
    tokens = tokenize(text, vocabulary)
    assert tokens.ends[-1] == len(text.encode())
    assert tokens.ids.tolist() == vocabulary.encode([text])[0].tolist()


# Marks of spaces and words in tokens (h06, h07)


def gemma_like(runs: list[str], normalized: bool = False) -> Vocabulary:
    """Make a vocabulary with `▁` for spaces and added tokens of several `▁`, as in transformers' version of Gemma's."""
    tokens = ["<unk>", "▁", "x", "\n", *runs]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token="<unk>")
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_tokens([*_added(runs, normalized), *_added(["\n"], normalized)])
    return view(backend, unk_token="<unk>")


def _added(contents: list[str], normalized: bool) -> list:
    return [AddedToken(content, normalized=normalized) for content in contents]


@pytest.mark.parametrize("normalized", [False, True])
def test_repeated_space_marks_are_repeated_spaces(normalized: bool) -> None:
    runs = ["▁" * n for n in (2, 4, 8)]
    vocabulary = gemma_like(runs, normalized)
    for run in runs:
        token_id = vocabulary.id_of_raw(run)
        assert vocabulary.token_bytes[token_id] == b" " * len(run)
        assert vocabulary.decode([token_id]) == " " * len(run)
    assert vocabulary.token_bytes[vocabulary.id_of_raw("\n")] == b"\n"
    source = tiny_vocabulary(300)
    eight = spell(source, [vocabulary.token_bytes[vocabulary.id_of_raw(runs[-1])]])[0]
    assert b"".join(source.token_bytes[i] for i in eight) == b" " * 8


@pytest.mark.parametrize("pre", [pre_tokenizers.Metaspace(prepend_scheme="never"), None])
def test_byte_tokens_that_a_trainer_made_special_are_bytes(pre) -> None:
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    if pre:
        backend.pre_tokenizer = pre
    byte_tokens = [f"<0x{number:02X}>" for number in range(256)]
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *byte_tokens], show_progress=False)
    backend.train_from_iterator([WORDS], trainer)
    vocabulary = view(backend, unk_token="<unk>")
    (ids,) = vocabulary.encode(["cat\n你"])
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == "cat\n你".encode()
    assert vocabulary.decode(ids) == "cat\n你"
    assert vocabulary.is_byte_fallback.sum() == 256
    assert not unspelled_bytes(vocabulary, "cat\n你", ids)


def test_the_space_mark_is_read_from_the_tokenizer() -> None:
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("_a", -1.0), ("b", -2.0)], 0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="_")
    backend.decoder = decoders.Metaspace(replacement="_")
    vocabulary = view(backend, unk_token="<unk>")
    assert vocabulary.token_bytes == (None, b" a", b"b")


@pytest.mark.parametrize(
    ("normalizer", "decoder"),
    [
        (normalizers.Replace(" ", "|"), None),
        (None, decoders.Replace("|", " ")),
        (normalizers.Replace(" ", "|"), decoders.Sequence([decoders.Replace("|", " "), decoders.Fuse()])),
    ],
)
def test_any_mark_may_stand_for_a_space(normalizer, decoder) -> None:
    backend = Tokenizer(models.BPE({"<unk>": 0, "|a": 1, "|": 2, "a": 3}, [("|", "a")], unk_token="<unk>"))
    if normalizer is not None:
        backend.normalizer = normalizer
    if decoder is not None:
        backend.decoder = decoder
    assert view(backend, unk_token="<unk>").token_bytes == (None, b" a", b" ", b"a")


def rewriting(normalizer, decoder, pre=None, added: tuple[str, ...] = ()) -> Vocabulary:
    """Make a BPE whose normalizer changes some text, and whose decoder changes it back."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer, backend.decoder = normalizer, decoder
    if pre is not None:
        backend.pre_tokenizer = pre
    alphabet = pre_tokenizers.ByteLevel.alphabet() if pre is not None else []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([WORDS, "one\ntwo\n\n\tx  y"] * 3, trainer)
    backend.add_tokens(_added([*added], normalized=True))
    return view(backend, "rewriting", unk_token="<unk>")


_LINE, _BACK = normalizers.Replace("\n", "<n>"), decoders.Replace("<n>", "\n")
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("normalizer", "decoder", "pre", "added"),
    [
        (_LINE, _BACK, None, ("<n>",)),
        (_LINE, decoders.Sequence([decoders.Fuse(), _BACK]), None, ("<n>",)),
        (_LINE, decoders.Sequence([decoders.Replace(Regex("<n>"), "\n"), decoders.Fuse()]), None, ()),
        (_LINE, decoders.Sequence([decoders.ByteLevel(), _BACK]), _BYTES, ("<n>",)),
        (normalizers.Replace("\n", "¶"), decoders.Replace("¶", "\n"), None, ()),
        (normalizers.Replace("\t", "▁"), decoders.Replace("▁", "\t"), None, ()),
        (
            normalizers.Sequence([normalizers.Replace("  ", "<2>"), normalizers.Replace(" ", "▁")]),
            decoders.Sequence([decoders.Replace("<2>", "  "), decoders.Replace("▁", " "), decoders.Fuse()]),
            None,
            ("<2>",),
        ),
        (normalizers.Replace(" ", "|"), decoders.CTC(), None, ()),
    ],
)
def test_bytes_are_what_the_decoder_writes_back(normalizer, decoder, pre, added, tmp_path: Path) -> None:
    vocabulary = rewriting(normalizer, decoder, pre, added)
    for text in ("one\ntwo", "\tx  y\n\n", "The quick brown fox"):
        (ids,) = vocabulary.encode([text])
        assert b"".join(vocabulary.token_bytes[i] for i in ids) == text.encode()
        assert unspelled_bytes(vocabulary, text, ids) == 0
    vocabulary.save_tokens(tmp_path / "tokens")
    assert Vocabulary.from_tokens(tmp_path / "tokens", "listed").token_bytes == vocabulary.token_bytes


def test_a_character_that_only_the_decoder_joins_is_refused() -> None:
    with pytest.raises(InputError, match=r"writes '\\n' as several tokens that only its decoder joins \('<n>'\)"):
        rewriting(_LINE, decoders.Sequence([decoders.ByteLevel(), _BACK]), _BYTES)


@pytest.mark.parametrize(
    "pre",
    [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(" ", "removed"),
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Digits()]),
    ],
)
def test_each_token_of_whole_words_begins_a_word(pre) -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "fox": 1, ",": 2, "<n>": 3}, unk_token="<unk>"))
    backend.normalizer, backend.decoder = normalizers.Replace("\n", " <n> "), _BACK
    backend.pre_tokenizer = pre
    assert view(backend, unk_token="<unk>").token_bytes == (None, b" fox", b",", b"\n")


@pytest.mark.parametrize(
    ("pre", "mark"),
    [(pre_tokenizers.ByteLevel(add_prefix_space=False), "Ġ"), (pre_tokenizers.Metaspace(), "▁")],
)
def test_wordpiece_after_a_pre_tokenizer_that_keeps_spaces(pre, mark: str) -> None:
    pieces = {"<unk>": 0, f"{mark}fox": 1, "##es": 2, "fox": 3}
    backend = Tokenizer(models.WordPiece(pieces, unk_token="<unk>"))
    backend.pre_tokenizer = pre
    vocabulary = view(backend, unk_token="<unk>")
    assert vocabulary.token_bytes == (None, b" fox", b"es", b"fox")
    assert b"".join(vocabulary.token_bytes[i] for i in vocabulary.encode([" foxes"])[0]) == b" foxes"


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        (pre_tokenizers.Split(" ", "isolated"), ["fox", "##es", " ", "the"]),
        (pre_tokenizers.Split(" ", "merged_with_next"), ["fox", "##es", " the"]),
        (pre_tokenizers.Split(" ", "merged_with_previous"), ["fox", "##es", "## ", "the"]),
    ],
)
def test_wordpiece_tokens_that_have_spaces_get_no_others(pre, tokens: list[str]) -> None:
    pieces = {token: i for i, token in enumerate(["<unk>", *tokens])}
    backend = Tokenizer(models.WordPiece(pieces, unk_token="<unk>"))
    backend.pre_tokenizer = pre
    vocabulary = view(backend, unk_token="<unk>")
    (ids,) = vocabulary.encode(["foxes the"])
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == b"foxes the"


def test_an_added_token_of_a_byte_level_tokenizer_has_the_bytes_of_its_string() -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.add_tokens(["▁▁", "Ġx"])
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "bytes")
    assert vocabulary.token_bytes[vocabulary.id_of_raw("▁▁")] == "▁▁".encode()
    assert vocabulary.token_bytes[vocabulary.id_of_raw("Ġx")] == "Ġx".encode()


def trained(pre, decoder=None, **marks: str) -> Vocabulary:
    backend = Tokenizer(models.BPE(unk_token="<unk>", **marks))
    backend.pre_tokenizer = pre
    if decoder is not None:
        backend.decoder = decoder
    options = {"vocab_size": 600, "special_tokens": ["<unk>", "</s>"], "show_progress": False, **marks}
    backend.train_from_iterator([WORDS] * 3, trainers.BpeTrainer(**options))
    return view(backend, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize(
    ("pre", "text", "word", "spelled"),
    [
        (pre_tokenizers.BertPreTokenizer(), "fox", "fox</w>", b"fox"),
        (pre_tokenizers.ByteLevel(add_prefix_space=False), " fox", "Ġfox</w>", b" fox"),
    ],
)
def test_the_end_of_word_mark_is_not_part_of_the_bytes(pre, text, word, spelled, tmp_path: Path) -> None:
    vocabulary = trained(pre, decoders.BPEDecoder(suffix="</w>"), end_of_word_suffix="</w>")
    whole = [i for i in range(vocabulary.size) if vocabulary.ends_word(i)]
    assert len(whole) > 20
    assert not any(b"</w>" in (token or b"") for token in vocabulary.token_bytes)
    (fox,) = vocabulary.encode([text])
    assert [vocabulary.raw_token(i) for i in fox] == [word]
    assert vocabulary.token_bytes[fox[0]] == spelled
    assert vocabulary.id_of_bytes(b"x") == vocabulary.id_of_raw("x</w>"), "the whole word, not the part of one"
    assert vocabulary.id_of_raw("x") < vocabulary.id_of_raw("x</w>")
    source = tiny_vocabulary(600)
    assert spell(source, [spelled]) == [source.encode([text])[0].tolist()]
    vocabulary.save_tokens(tmp_path / "tokens")
    listed = Vocabulary.from_tokens(tmp_path / "tokens", "listed")
    assert listed.token_bytes == vocabulary.token_bytes
    assert listed.id_of_bytes(b"x") == vocabulary.id_of_bytes(b"x")
    alike = shared_tokens(vocabulary, listed)
    assert (alike.source_ids == alike.target_ids).all(), "the same tokenizer: `x` is `x`, and `x</w>` is `x</w>`"
    assert len(alike) == vocabulary.size - len(vocabulary.roles)


def test_word_marks_are_respected_in_lookups_in_another_vocabulary() -> None:
    source = trained(pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder(suffix="</w>"), end_of_word_suffix="</w>")
    new_id = np.random.default_rng(0).permutation(source.size)
    target = renumbered(source, new_id)
    text = [i for i, token in enumerate(source.token_bytes) if token]
    assert source.id_of_bytes(b"x") != source.id_of_raw("x"), "bytes alone do not distinguish the two"

    pieces = Pieces(target, source)
    assert pieces.first[text].tolist() == new_id[text].tolist()
    assert set(pieces.count[text].tolist()) == {1}

    model = tiny_model("llama", source.size)
    counts = np.zeros(source.size, np.int64)
    ours, theirs = (hidden_state_vectors(model, source, of, counts, spell=spell) for of in (source, target))
    rows = ours.rows_for(np.array(text)), theirs.rows_for(new_id[text])
    np.testing.assert_allclose(*rows, rtol=1e-4, atol=1e-5)

    model.generation_config.suppress_tokens = text
    move_special_ids(model.config, model.generation_config, source, target, source.size)
    assert model.generation_config.suppress_tokens == new_id[text].tolist()


def test_the_continuation_mark_is_not_part_of_the_bytes(tmp_path: Path) -> None:
    vocabulary = trained(pre_tokenizers.BertPreTokenizer(), continuing_subword_prefix="##")
    (ids,) = vocabulary.encode(["foxes, the"])
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == b" foxes, the"
    continued = [i for i in range(vocabulary.size) if vocabulary.raw_token(i).startswith("##")]
    assert len(continued) > 20
    assert all(vocabulary.token_bytes[i] == vocabulary.raw_token(i)[2:].encode() for i in continued)
    assert vocabulary.token_bytes[vocabulary.id_of_raw("fox")] == b" fox"
    vocabulary.save_tokens(tmp_path / "tokens")
    assert Vocabulary.from_tokens(tmp_path / "tokens", "listed").token_bytes == vocabulary.token_bytes


LAYOUTS = {
    "GPT-2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()),
    "RoBERTa": (None, pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()),
    "Llama 2": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, None),
    "Gemma": (normalizers.Replace(" ", "▁"), None, None),
    "Mistral": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), None),
    "T5": (None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True), None),
    "no prefix": (None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), None),
}


@pytest.fixture(scope="module")
def layouts() -> dict[str, Vocabulary]:
    made = {}
    for name, (normalizer, cuts, decoder) in LAYOUTS.items():
        backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=decoder is None, fuse_unk=True))
        if normalizer is not None:
            backend.normalizer = normalizer
        if cuts is not None:
            backend.pre_tokenizer = cuts
        undo = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        backend.decoder = decoder or undo
        special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if decoder is None)]
        letters = pre_tokenizers.ByteLevel.alphabet() if decoder is not None else []
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=letters, show_progress=False
        )
        backend.train_from_iterator([WORDS] * 3, trainer)
        state = json.loads(backend.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
        made[name] = view(Tokenizer.from_str(json.dumps(state)), name, unk_token="<unk>", eos_token="</s>")
    return made


@settings(max_examples=80)
@given(
    text=st.lists(
        st.one_of(st.sampled_from(["the fox", " ", "  ", "\n", "\t", "</s>", "<0x0A>"]), st.characters(codec="utf-8")),
        max_size=20,
    ).map(lambda parts: "".join(parts).replace("▁", "_"))
)
def test_token_bytes_join_to_the_text_for_every_kind_of_tokenizer(layouts, text: str) -> None:
    for name, vocabulary in layouts.items():
        (ids,) = vocabulary.encode([text])
        joined = b"".join(vocabulary.token_bytes[i] for i in ids)
        assert joined in (text.encode(), b" " + text.encode()), name
        assert vocabulary.decode(ids).encode() == joined, name
        assert unspelled_bytes(vocabulary, text, ids) == 0, name
        spans = vocabulary.spans(text)
        assert b"".join(text.encode()[start:end] for _, start, end in spans) == text.encode(), name


def test_both_word_marks_at_once_and_a_token_that_is_only_a_mark() -> None:
    marks = {"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"}
    tokens = ["<unk>", "a", "##b</w>", "a</w>", "##", "</w>"]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token="<unk>", **marks))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    vocabulary = view(backend, unk_token="<unk>")
    assert vocabulary.token_bytes == (None, b" a", b"b", b" a", b"##", b"")
    assert vocabulary.label(5) == "</w>", "it has no bytes, but an empty label is no token"


def test_parts_of_words_are_found_reachable() -> None:
    vocabulary = trained(pre_tokenizers.BertPreTokenizer(), end_of_word_suffix="</w>")
    found = unreachable_tokens(SimpleNamespace(vocabulary=vocabulary))
    assert found.values["unreachable"] == 6, "punctuation, which is always a word of its own"
    assert not any(character.isalnum() for character in "".join(found.examples))


# Text that the tokenizer cannot spell (h13)


def ascii_only(normalizer=None) -> Vocabulary:
    """Make a Unigram model of ASCII pieces, without byte tokens for other characters."""
    letters = [chr(code) for code in range(33, 127)]
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)], 0))
    backend.normalizer = normalizers.Sequence([*([normalizer] if normalizer else []), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Replace("▁", " ")
    return view(backend, unk_token="<unk>", bos_token="<unk>")


def measured(vocabulary: Vocabulary, text: str) -> tuple[float, int, float]:
    model = zero_model(vocabulary.size)
    (ids,) = vocabulary.encode([text])
    result = bits_per_byte(model, vocabulary, [Document(text, "d", "g")])
    tokens_alone = math.log2(vocabulary.size) * len(ids) / len(text.encode())
    return result.bits_per_byte, result.unspelled_bytes, tokens_alone


def test_unknown_characters_count_at_least_the_bits_of_their_bytes() -> None:
    text = "今日は天気がとても良いですね。" * 20
    bits, unspelled, tokens_alone = measured(ascii_only(), text)
    assert tokens_alone < 0.1, "what was reported: hundreds of characters as one unknown token"
    assert unspelled == len(text.encode())
    assert bits == pytest.approx(8 + tokens_alone)


@pytest.mark.parametrize(
    ("normalizer", "text", "unspelled"),
    [
        (None, "all of it", 0),
        (None, "caf\u00e9 ok", 2),
        (None, "日本 and 中", 9),
        (normalizers.Lowercase(), "Ab CD e", 3),
        (normalizers.Strip(), "  ab  ", 4),
        (normalizers.Replace(Regex(" {2,}"), " "), "a    b", 3),
        (normalizers.Prepend(" "), "a b", 0),
        (normalizers.NFKC(), "a\ufb01b", 3),
    ],
)
def test_only_what_the_tokens_spell_is_spelled(normalizer, text: str, unspelled: int) -> None:
    bits, found, tokens_alone = measured(ascii_only(normalizer), text)
    assert found == unspelled
    assert bits == pytest.approx(tokens_alone + 8 * unspelled / len(text.encode()))


def test_a_byte_level_tokenizer_that_normalises_loses_only_what_it_changes() -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "nfc")
    for text, unspelled in [("naïve 你好 👩‍🚀\n\tx", 0), ("the cafe\u0301 \u4f60 of rain", 3), ("e\u0301", 3)]:
        assert measured(vocabulary, text)[1] == unspelled, text


def test_an_added_token_that_takes_the_spaces_around_it_spells_its_own_text() -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.add_tokens([AddedToken("<tool>", lstrip=True, rstrip=True, normalized=False)])
    assert measured(Vocabulary.from_tokenizer(tokenizer, "strips"), "the fox  <tool>   and rain")[1] == 5


def test_wordpiece_and_ends_of_words_spell_one_space_and_no_line_end() -> None:
    ends = trained(pre_tokenizers.BertPreTokenizer(), end_of_word_suffix="</w>")
    continues = trained(pre_tokenizers.BertPreTokenizer(), continuing_subword_prefix="##")
    for vocabulary in (ends, continues):
        assert measured(vocabulary, "the fox and rain")[1] == 0
        assert measured(vocabulary, "the fox\n\nand  rain")[1] == 3


def test_unspelled_text_is_reported_by_slice_and_by_document() -> None:
    vocabulary = ascii_only()
    documents = [Document("plain text", "a", "a", "en"), Document("日本", "b", "b", "ja"), Document("", "c", "c", "ja")]
    model = zero_model(vocabulary.size)
    found = bits_per_byte(model, vocabulary, documents)
    assert (found.unspelled_bytes, found.bytes) == (6, 16)
    assert found.to_dict()["unspelled_share"] == found.unspelled_share == 6 / 16
    assert found.by_slice["ja"] > 8 > found.by_slice["en"]
    apart = document_bits(model, vocabulary, documents)
    assert apart.per_byte().mean == pytest.approx(found.bits_per_byte)


def test_real_tokenizers_spell_all_of_a_real_text(smollm_vocabulary, sp32k_vocabulary) -> None:
    code = Path(catalog.__file__).with_name("texts.py").read_text(encoding="utf-8")
    for vocabulary in (smollm_vocabulary, sp32k_vocabulary):
        for text in (code, "  Größe 你好\r\n\tこんにちは 👩‍🚀\x00", "e\u0301 \u200b\ufeff"):
            assert unspelled_bytes(vocabulary, text, vocabulary.encode([text])[0]) == 0


# tiktoken, and files with impossible ids


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    """Return the ranks of a small byte-level BPE, in the order of its merges."""
    vocabulary = tiny_vocabulary(500)
    letters = sorted(token for token in vocabulary.token_bytes if token is not None and len(token) == 1)
    merged = [token for token in vocabulary.token_bytes if token is not None and len(token) > 1]
    return {token: rank for rank, token in enumerate([*letters, *merged])}


def written(ranks: dict[bytes, int], path: Path) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


_tiktoken_text = st.lists(
    st.one_of(
        st.sampled_from(
            ["The quick", "isn't", "I'LL", " ", "   ", "\n", "\r\n", "\t", "12345", "</s>", "你好", "e\u0301"]
        ),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
).map("".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=_tiktoken_text)
def test_tiktoken_files_read_as_the_tiktoken_library(ranks, tmp_path_factory, text: str) -> None:
    for vocabulary, library in _of_every_pattern(ranks, tmp_path_factory):
        (ids,) = vocabulary.encode([text])
        assert ids.tolist() == library.encode_ordinary(text)
        assert vocabulary.decode(ids) == text
        assert [vocabulary.token_bytes[i] for i in ids] == library.decode_tokens_bytes(ids.tolist())


_made: list = []


def _of_every_pattern(ranks, tmp_path_factory) -> list:
    import tiktoken

    if not _made:
        folder = tmp_path_factory.mktemp("tiktoken")
        for pattern, cut in PATTERNS.items():
            path = written(ranks, folder / f"{pattern}.tiktoken")
            library = tiktoken.Encoding(pattern, pat_str=cut, mergeable_ranks=ranks, special_tokens={})
            _made.append((catalog.load_vocabulary(str(path)), library))
    return _made


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({b"zzzz": 99_999_999}, "most ids have no token"),
        ({b"zzzz": 10**30}, "most ids have no token"),
        ({b"zzzz": -1}, "below 0"),
        ({b"zzzz": 300}, "two tokens have one rank"),
    ],
)
def test_a_file_of_ranks_without_a_vocabulary_is_refused_in_one_sentence(
    ranks, change, match: str, tmp_path: Path
) -> None:
    path = written(ranks | change, tmp_path / "bad.tiktoken")
    began = time.process_time()
    with pytest.raises(InputError, match=match) as caught:
        catalog.load_vocabulary(str(path))
    assert "bad.tiktoken" in str(caught.value)
    assert time.process_time() - began < 10, "a loop over the ids takes minutes"


def test_an_invalid_line_of_ranks_is_named(ranks, tmp_path: Path) -> None:
    path = written(ranks, tmp_path / "bad.tiktoken")
    path.write_bytes(b"\n" + path.read_bytes() + b"no*base64 7\n")
    with pytest.raises(InputError, match=f"line {len(ranks) + 2} is not a base64 token"):
        catalog.load_vocabulary(str(path))


@pytest.mark.parametrize("folder", [False, True])
def test_a_tokenizer_json_with_an_id_far_beyond_its_tokens_is_one_sentence(folder: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["vocab"]["zzzz"] = 99_999_999
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    if not folder:
        (tmp_path / "tokenizer.json").rename(tmp_path / "bare.json")
    with pytest.raises(InputError, match="most ids have no token"):
        catalog.load_vocabulary(str(tmp_path if folder else tmp_path / "bare.json"))


@pytest.mark.parametrize("model", [models.WordPiece({"a": 0}, unk_token="[UNK]"), models.Unigram([("a", 0.0)])])
def test_a_tokenizer_without_its_unknown_token_is_one_sentence(model) -> None:
    with pytest.raises(InputError, match=r"cannot read every text .*; correct its unknown token"):
        view(Tokenizer(model))


@pytest.mark.parametrize("name", ["GPT2Tokenizer", "PreTrainedTokenizerFast"])
def test_a_class_that_reads_another_tokenizer_than_the_file_is_named(name: str, tmp_path: Path, caplog) -> None:
    """SmolLM2's folder names the class of GPT-2, which drops the pre-tokenizer that splits numbers into digits."""
    tokenizer = tiny_tokenizer(300)
    tokenizer.backend_tokenizer.train_from_iterator(
        ["12,345 12,345 12,345 "], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    digits, bytes_ = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_])
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    catalog.load_tokenizer(str(tmp_path))
    assert ("cuts text unlike its tokenizer.json" in caplog.text) == (name == "GPT2Tokenizer")


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_a_class_that_reads_another_tokenizer_than_the_sentencepiece_model_is_named(
    dummy_prefix: bool, tmp_path: Path, caplog
) -> None:
    """transformers 5 builds a LlamaTokenizer from the pieces alone: it puts a space before every text."""
    import sentencepiece

    options = {"vocab_size": 400, "model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.splitlines() * 9),
        model_prefix=str(tmp_path / "tokenizer"),
        normalization_rule_name="identity",
        add_dummy_prefix=dummy_prefix,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    catalog.load_tokenizer(str(tmp_path))
    assert ("cuts text unlike its tokenizer.model" in caplog.text) != dummy_prefix


def test_an_unknown_name_suggests_names_that_have_a_tokenizer() -> None:
    with pytest.raises(InputError) as caught:
        catalog.load_vocabulary("zzzzzzzz")
    kinds = {asset.kind for asset in catalog.assets() if re.search(rf"\b{asset.name}\b", str(caught.value))}
    assert kinds == {"tokenizer", "model"}
    with pytest.raises(InputError) as caught:
        catalog.model_folder("pythja")
    assert "pythia" not in str(caught.value), "a tokenizer is no model"


def test_ids_are_int32(smollm_vocabulary) -> None:
    assert all(ids.dtype == np.int32 for ids in smollm_vocabulary.encode(TEXTS))


# Special and added tokens that are ordinary tokens of the model


@pytest.mark.parametrize("spelled", ["!", " the", "\n"])
@pytest.mark.parametrize("use", ["pad", "eos", "added"])
def test_a_token_of_the_text_that_is_also_special_or_added_keeps_its_bytes(spelled: str, use: str) -> None:
    plain, tokenizer = tiny_vocabulary(600), tiny_tokenizer(600)
    token_id = plain.id_of_bytes(spelled.encode())
    raw = plain.raw_token(token_id)
    if use == "added":
        tokenizer.add_tokens([raw])
    else:
        setattr(tokenizer, f"{use}_token", raw)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "named twice")
    assert vocabulary.token_bytes == plain.token_bytes
    assert use == "added" or vocabulary.roles[use] == token_id
    shared = shared_tokens(plain, vocabulary)
    assert shared.source_ids.tolist() == shared.target_ids.tolist()
    assert token_id in shared.target_ids
    assert plain.roles["eos"] not in shared.target_ids
    assert token_id not in shared_roles(plain, vocabulary), "its row is that of the same text, not of the role"
    text = f"a{spelled} !\n\n the"
    assert unspelled_bytes(vocabulary, text, vocabulary.encode([text])[0]) == 0


def test_a_word_of_a_unigram_model_that_is_also_pad_keeps_its_bytes() -> None:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("[MASK]", -9.0), ("▁the", -3.0), ("▁", -4.0), ("t", -5.0), ("he", -5.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    vocabulary = view(backend, unk_token="<unk>", bos_token="<s>", mask_token="[MASK]", pad_token="▁the")
    assert vocabulary.token_bytes == (None, None, None, b" the", b" ", b"t", b"he")
    assert vocabulary.roles["pad"] == 3


def test_two_tokens_with_one_id_are_refused() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 3}, unk_token="<unk>"))
    backend.add_tokens(["<tool>"])  # the library numbers it by the number of tokens
    with pytest.raises(InputError, match=r"gives the id 3 to '(b|<tool>)' and to '(b|<tool>)'"):
        view(backend, unk_token="<unk>")


# Special tokens that are written in a text


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_a_unigram_json_reads_control_tokens_in_a_text_as_the_sentencepiece_library(byte_fallback: bool) -> None:
    made = io.BytesIO()
    lines = [*WORDS.splitlines(), "a</s>b <s> <unk> <mask> s>a"] * 20
    options = {"model_type": "unigram", "vocab_size": 330 if byte_fallback else 80, "byte_fallback": byte_fallback}
    options |= {"control_symbols": ["<mask>"], "normalization_rule_name": "identity", "hard_vocab_limit": False}
    SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=made, minloglevel=2, **options)
    library = SentencePieceProcessor(model_proto=made.getvalue())
    pieces = [(library.id_to_piece(i), library.get_score(i)) for i in range(library.get_piece_size())]
    backend = Tokenizer(models.Unigram(pieces, 0, byte_fallback))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
    vocabulary = view(backend, **roles)
    texts = ["a</s>b", "<s>a <s>", "the<mask>fox", "<unk> fox", "s><s>a", "<s><s></s>"]
    assert [ids.tolist() for ids in vocabulary.encode(texts)] == library.encode(texts)
    assert vocabulary.spans("a<s>")[-1][2] == len("a<s>")
    assert vocabulary.tokenizer("<s>", add_special_tokens=False)["input_ids"][-1] == 1, "reading changed it"


@pytest.mark.parametrize(
    ("model", "pre", "right"),
    [
        (
            models.WordPiece({"<unk>": 0, "<s>": 1, "<": 2, "##s": 3, "##>": 4, "a": 5}, unk_token="<unk>"),
            pre_tokenizers.WhitespaceSplit(),
            ["a", "<", "##s", "##>"],
        ),
        (
            models.WordLevel({"<unk>": 0, "<s>": 1, "a": 2}, unk_token="<unk>"),
            pre_tokenizers.WhitespaceSplit(),
            ["a", "<unk>"],
        ),
        (
            models.BPE({"<unk>": 0, "<s>": 1, "<": 2, "s": 3, ">": 4, "a": 5, " ": 6}, [], ignore_merges=True),
            pre_tokenizers.Split(" ", "isolated"),
            ["a", " ", "<", "s", ">"],
        ),
        (  # `<s>` is also the first part of a token
            models.BPE(
                {"<unk>": 0, "<s>": 1, "<": 2, "s": 3, ">": 4, "a": 5, " ": 6, "<s>a": 7},
                [("<s>", "a")],
                ignore_merges=True,
            ),
            pre_tokenizers.Split(" ", "isolated"),
            ["a", " ", "<", "s", ">"],
        ),
    ],
)
def test_a_special_token_written_in_a_text_is_text_for_every_model(model, pre, right: list[str]) -> None:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre
    vocabulary = view(backend, unk_token="<unk>", bos_token="<s>")
    (ids,) = vocabulary.encode(["a <s>"])
    assert [vocabulary.raw_token(i) for i in ids] == right
    assert vocabulary.tokenizer("a <s>", add_special_tokens=False)["input_ids"][-1] == 1, "reading changed it"


# Two tokenizers of the same tokens, and files next to a tokenizer


def test_tokenizers_that_differ_only_in_long_numbers_do_not_share_a_cached_text(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    tokenizer = tiny_tokenizer(300)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.backend_tokenizer.train_from_iterator(["in 2024 12345678 "] * 9, trainer)
    tokenizer.save_pretrained(tmp_path / "whole")
    threes = pre_tokenizers.Split(Regex(r" ?\p{N}{1,3}"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([threes, _BYTES])
    tokenizer.save_pretrained(tmp_path / "threes")
    documents = [Document("in 2024, 12345678 birds " * 9, "d", "d")]
    whole, cut = (catalog.load_vocabulary(str(tmp_path / name)) for name in ("whole", "threes"))
    assert whole.fingerprint == cut.fingerprint
    for vocabulary in (whole, cut):
        corpus = Corpus.build(documents, vocabulary)
        assert corpus.ids.tolist() == vocabulary.encode([documents[0].text])[0].tolist()
    assert whole.reading != cut.reading == catalog.load_vocabulary(str(tmp_path / "threes")).reading


@pytest.mark.parametrize("whole_folder", [True, False])
def test_roles_and_template_next_to_a_tokenizer_json_are_read(whole_folder: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    name = str(tmp_path if whole_folder else tmp_path / "tokenizer.json")
    guessed = catalog.load_vocabulary(name)
    assert (guessed.tokenizer.eos_token, guessed.tokenizer.chat_template) == ("</s>", "{{ messages }}")
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<|eot|>", "lstrip": True}}))
    named = catalog.load_vocabulary(name)
    assert (named.tokenizer.eos_token, named.tokenizer.chat_template) == ("<|eot|>", "{{ messages }}")


@pytest.mark.parametrize("gap", [0, 5])
def test_an_added_token_that_transformers_renumbers_is_refused(gap: int, tmp_path: Path) -> None:
    model = json.loads(tiny_tokenizer(300).backend_tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = (" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"])
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    first = len(model["vocab"])
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<b>": first + gap}))
    if gap:
        with pytest.raises(InputError, match=rf"gives '<b>' the id {first + gap}, but transformers reads {first}"):
            catalog.load_tokenizer(str(tmp_path))
    else:
        assert catalog.load_tokenizer(str(tmp_path)).get_vocab()["<b>"] == first


# Texts whose fields say where a document belongs


@pytest.mark.parametrize("name", ["dev", "val", "valid", "Validation", "TEST", "eval", "held-out", "test_sft"])
def test_documents_of_a_held_out_part_are_not_trained_on(name: str, tmp_path: Path) -> None:
    lines = [{"text": f"{part} {n}\n" * 9, "split": part} for part in ("train_sft", name) for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    train_part, held_out = split_documents(read_documents([tmp_path / "a.jsonl"]))
    assert {document.text.split()[0] for document in train_part} == {"train_sft"}
    assert {document.text.split()[0] for document in held_out} == {name}


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "split": null}\n{"text": "b", "split": ""}\n')
    assert [document.split for document in read_documents([tmp_path / "a.jsonl"])] == [None, None]
    (tmp_path / "a.jsonl").write_text('{"text": "a", "split": "fold 3"}')
    with pytest.raises(InputError, match=r"The split of a.jsonl:1 is 'fold 3'; name it 'train' or 'held_out'"):
        read_documents([tmp_path / "a.jsonl"])


def test_the_group_and_the_slice_0_are_like_others(tmp_path: Path) -> None:
    lines = [{"text": f"{g} {n}", "group": g, "slice": 0} for g in range(30) for n in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents = read_documents([tmp_path / "a.jsonl"])
    assert {document.slice for document in documents} == {"0"}
    assert {document.group for document in documents} == {str(g) for g in range(30)}


def test_other_forms_of_a_data_set_are_read_or_named(tmp_path: Path) -> None:
    rows = [{"text": f'line {n}\nsaid "so"', "group": n} for n in range(3)]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, rows)))
    for place in (tmp_path / "a.ndjson", tmp_path):
        assert [document.text for document in read_documents([place])] == [row["text"] for row in rows]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved" / "train")
    for place in (tmp_path / "saved" / "train", tmp_path / "saved"):
        with pytest.raises(InputError, match=r"saved/train' is a data set that `save_to_disk` wrote.* as Parquet"):
            read_documents([place])


@pytest.mark.parametrize(("value", "kind"), [(b"bytes", "bytes"), (["a", "b"], "list"), ({"en": "a"}, "dict")])
def test_a_parquet_column_without_strings_is_not_skipped(value, kind: str, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(WORDS)
    pd.DataFrame({"text": [None, "a", None]}).to_parquet(tmp_path / "a.parquet")
    assert len(read_documents([tmp_path])) == 2, "rows without a text are left out"
    pd.DataFrame({"text": [None, value]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rf"a.parquet' row 2 has a {kind} in the column 'text'; write a string"):
        read_documents([tmp_path])


# Tokenizers trained like another


def test_training_like_a_chat_tokenizer_keeps_the_marks_of_its_template() -> None:
    tokenizer = tiny_tokenizer(300, template="<|user|>{{ messages }}\n<tool_call>")
    tokenizer.add_tokens(["<|user|>", "<tool_call>", "<other>", "\n"])
    made = train([WORDS * 9], 290, Vocabulary.from_tokenizer(tokenizer, "chat"))
    assert len(made) <= 290
    assert made.tokenize("<|user|>fox\n<tool_call>")[::5] == ["<|user|>", "<tool_call>"]
    assert "<other>" not in made.get_vocab()


def test_training_like_a_wordpiece_keeps_its_mark() -> None:
    backend = Tokenizer(models.WordPiece({"<unk>": 0, "a": 1, "@@b": 2}, unk_token="<unk>"))
    backend.model.continuing_subword_prefix = "@@"
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece(prefix="@@")
    backend.add_special_tokens(["<unk>"])
    made = Vocabulary.from_tokenizer(train([WORDS * 9], 90, view(backend, unk_token="<unk>")), "made")
    assert made.decode(made.encode(["the foxing"])[0]) == "the foxing"


def test_a_slice_that_a_tokenizer_drops_does_not_stop_training(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordPiece({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    view(backend, unk_token="<unk>").tokenizer.save_pretrained(tmp_path / "like")
    parts = [("train", "prose", WORDS * 9), ("held_out", "prose", WORDS), ("held_out", "blank", "\n \n")]
    lines = [json.dumps({"text": text, "split": split, "slice": name}) for split, name, text in parts]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    options = TrainTokenizerSettings(text=(str(tmp_path / "a.jsonl"),), size=90, like=str(tmp_path / "like"))
    assert [one["slice"] for one in train_tokenizer(options, tmp_path / "made")["slices"]] == ["prose", "blank"]


def test_what_cannot_be_trained_or_extended_is_refused() -> None:
    pieces = [("<unk>", 0.0), ("▁a", -1.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    backend = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    with pytest.raises(InputError, match="has byte tokens for unknown characters, which the trainers"):
        train([WORDS * 9], 300, view(backend, unk_token="<unk>"))
    suffixed = trained(pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder(), end_of_word_suffix="</w>")
    with pytest.raises(InputError, match="is no plain BPE tokenizer"):
        extend(suffixed, [WORDS * 9], 5)
