from __future__ import annotations

import json
import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokalign_lab import catalog
from tokalign_lab.errors import InputError
from tokalign_lab.spelling import Spelling, visible
from tokalign_lab.token_table import TokenTable
from tokalign_lab.vocabulary import Vocabulary, overlap, shared_roles, shared_tokens


@pytest.fixture(scope="module")
def pythia() -> Vocabulary:
    return catalog.load_vocabulary("pythia")


@pytest.fixture(scope="module")
def qwen2() -> Vocabulary:
    return catalog.load_vocabulary("qwen2")


@pytest.fixture(scope="module")
def gpt2() -> Vocabulary:
    return catalog.load_vocabulary("gpt2")


def wordpiece(tokens: list[str]) -> Vocabulary:
    model = models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", cls_token="[CLS]")
    return Vocabulary.from_tokenizer(tokenizer, "wordpiece")


def byte_level(extra: dict[str, int], **special: str) -> Vocabulary:
    """Make a byte-level vocabulary of the 256 bytes and some more tokens at given ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)} | extra
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **special), "bytes")


def test_the_papers_overlap_of_pythia_and_qwen2(pythia: Vocabulary, qwen2: Vocabulary) -> None:
    found = overlap(pythia, qwen2)
    assert found.raw_count == 40_827  # TokAlign table 5 and data/Vocab_count
    assert round(100 * found.raw_share, 2) == 26.92
    assert found.bytes_count == found.raw_count  # both write bytes in the same way


def test_bytes_find_shared_tokens_that_strings_miss(pythia: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    found = overlap(pythia, sp32k_vocabulary)
    assert found.bytes_count > 2 * found.raw_count
    space_the = sp32k_vocabulary.tokenizer.get_vocab()["▁the"]
    newline = sp32k_vocabulary.tokenizer.get_vocab()["<0x0A>"]
    pairs = dict(zip(*_ids(shared_tokens(pythia, sp32k_vocabulary)), strict=True))
    assert pythia.raw_token(pairs[space_the]) == "Ġthe"
    assert pythia.raw_token(pairs[newline]) == "Ċ"
    assert sp32k_vocabulary.token_bytes[newline] == b"\n"


def _ids(shared) -> tuple[list[int], list[int]]:
    return shared.target_ids.tolist(), shared.source_ids.tolist()


def test_accented_tokens_are_shared_whatever_their_spelling(smollm_vocabulary, sp32k_vocabulary) -> None:
    shared = shared_tokens(smollm_vocabulary, sp32k_vocabulary)
    accented = {
        sp32k_vocabulary.token_bytes[t].decode(): (
            smollm_vocabulary.raw_token(s),
            sp32k_vocabulary.raw_token(t),
        )
        for s, t in zip(shared.source_ids, shared.target_ids, strict=True)
        if len(sp32k_vocabulary.token_bytes[t]) > 1 and not sp32k_vocabulary.token_bytes[t].isascii()
    }
    assert accented["é"] == ("Ã©", "é")
    assert len(accented) > 100


def test_roles_match_by_function(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    matched = shared_roles(smollm_vocabulary, sp32k_vocabulary)
    for role in ("bos", "eos"):
        assert matched[sp32k_vocabulary.roles[role]] == smollm_vocabulary.roles[role]


def test_bos_comes_before_pad_where_one_id_has_both_roles() -> None:
    source = byte_level({"<s>": 256, "</s>": 257, "<pad>": 258}, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    target = byte_level({"<x>": 256}, bos_token="<x>", pad_token="<x>")
    assert shared_roles(source, target) == {256: 256}


def test_eos_replaces_a_missing_bos_of_the_source() -> None:
    source = byte_level({"<end>": 256}, eos_token="<end>")
    target = byte_level({"<s>": 256, "</s>": 257}, bos_token="<s>", eos_token="</s>")
    assert shared_roles(source, target) == {256: 256, 257: 256}


def test_ids_without_a_token_are_holes_and_do_not_shift_others() -> None:
    vocabulary = byte_level({"late": 300})
    assert vocabulary.size == 301
    assert vocabulary.is_hole.sum() == 44
    assert vocabulary.raw_token(299) == ""
    assert overlap(vocabulary, vocabulary).target_size == 257


def test_whitespace_runs_stay_distinct(sp32k_vocabulary: Vocabulary, smollm_vocabulary: Vocabulary) -> None:
    for vocabulary in (sp32k_vocabulary, smollm_vocabulary):
        runs = [vocabulary.id_of_bytes(run) for run in (b" ", b"  ", b"    ", b"\n", b"\t")]
        assert None not in runs
        assert len(set(runs)) == len(runs)


def test_a_used_token_comes_before_a_byte_fallback_token(sp32k_vocabulary: Vocabulary) -> None:
    assert sp32k_vocabulary.raw_token(sp32k_vocabulary.id_of_bytes(b"A")) == "A"
    assert sp32k_vocabulary.raw_token(sp32k_vocabulary.id_of_bytes(b"\xe4")) == "<0xE4>"


def test_wordpiece_tokens_are_bytes_too() -> None:
    vocabulary = wordpiece(["[UNK]", "[CLS]", "the", "##ing", ",", "你"])
    assert vocabulary.token_bytes == (None, None, b" the", b"ing", b",", "你".encode())


def test_a_tokenizer_without_unk_has_no_unk_role() -> None:
    assert "unk" not in byte_level({}).roles


def test_text_that_looks_like_a_special_token_stays_text(sp32k_vocabulary: Vocabulary) -> None:
    (ids,) = sp32k_vocabulary.encode(["a</s>b"])
    assert not sp32k_vocabulary.is_control[ids].any()
    assert sp32k_vocabulary.decode(ids) == "a</s>b"


def test_no_special_tokens_are_added(sp32k_vocabulary: Vocabulary) -> None:
    (ids,) = sp32k_vocabulary.encode(["Hello"])
    assert ids.tolist() == [sp32k_vocabulary.tokenizer.get_vocab()["▁Hello"]]
    (ids,) = sp32k_vocabulary.encode([""])
    assert len(ids) == 0


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_spans_tile_any_text(gpt2: Vocabulary, text: str) -> None:
    spans = gpt2.spans(text)
    assert b"".join(text.encode()[start:end] for _, start, end in spans) == text.encode()
    assert all(gpt2.token_bytes[i] == text.encode()[start:end] for i, start, end in spans)


def test_spans_of_sentencepiece_exclude_the_dummy_prefix(sp32k_vocabulary: Vocabulary) -> None:
    spans = sp32k_vocabulary.spans("Hello 你")
    assert spans[0][1:] == (0, 5)
    assert spans[-1][2] == len("Hello 你".encode())


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (b" the", "␣the"),
        (b"\n", "↵"),
        (b"\t\r", "⇥␍"),
        (b"\xe4\xbd", "<E4 BD>"),
        (b" \xe4", "␣<E4>"),
        (b"\x00", "<U+0000>"),
    ],
)
def test_labels_can_be_read(token: bytes, shown: str) -> None:
    assert visible(token) == shown


def test_different_tokenizers_have_different_fingerprints(smollm_vocabulary: Vocabulary, tmp_path) -> None:
    smollm_vocabulary.tokenizer.save_pretrained(tmp_path)
    assert catalog.load_vocabulary(str(tmp_path)).fingerprint == smollm_vocabulary.fingerprint
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    first, second = [token for token in vocabulary if vocabulary[token] in (1000, 1001)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    assert catalog.load_vocabulary(str(tmp_path)).fingerprint != smollm_vocabulary.fingerprint


def test_a_tokenizer_is_read_once_and_then_found_in_the_cache(
    tmp_path, monkeypatch, smollm_vocabulary: Vocabulary
) -> None:
    folder = tmp_path / "tokenizer"
    smollm_vocabulary.tokenizer.save_pretrained(folder)
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    read = catalog.load_vocabulary(str(folder))
    monkeypatch.setattr(TokenTable, "of", lambda *_: pytest.fail("it was read again"))
    found = catalog.load_vocabulary(str(folder))
    for field in ("token_bytes", "roles", "kind", "algorithm", "fingerprint", "size"):
        assert getattr(found, field) == getattr(read, field) == getattr(smollm_vocabulary, field), field
    for field in ("is_control", "is_hole", "is_byte_fallback"):
        assert np.array_equal(getattr(found, field), getattr(smollm_vocabulary, field)), field
    assert [found.raw_token(i) for i in range(found.size)] == [read.raw_token(i) for i in range(read.size)]
    assert "tokenizer" not in vars(found), "the cached table needs no tokenizer"
    text = "def f(x):\n    return x  # naïve 東京 </s>"
    assert found.decode(found.encode([text])[0]) == text


def test_cached_tables_of_another_tokenizer_or_damaged_ones_are_not_used(
    tmp_path, monkeypatch, smollm_vocabulary: Vocabulary
) -> None:
    folder, cache = tmp_path / "tokenizer", tmp_path / "cache"
    smollm_vocabulary.tokenizer.save_pretrained(folder)
    monkeypatch.setenv("TOKALIGN_CACHE", str(cache))
    catalog.load_vocabulary(str(folder))
    (kept,) = (cache / "vocabularies").glob("*/tokens.json.xz")
    kept.write_bytes(kept.read_bytes()[:1000])
    assert catalog.load_vocabulary(str(folder)).fingerprint == smollm_vocabulary.fingerprint
    found = catalog.load_vocabulary(str(folder))  # from the file, which is valid again
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(settings | {"pad_token": "<|im_start|>"}), encoding="utf-8")
    assert catalog.load_vocabulary(str(folder)).roles["pad"] != smollm_vocabulary.roles.get("pad")
    with pytest.raises(InputError, match="have changed since"):
        found.encode(["text"])


def test_tokens_of_any_bytes_are_stored(tmp_path) -> None:
    raw = ("\ud800", "<s>", None, "", "▁é", "▁b")  # a lone surrogate, a special token, a hole, an empty string
    table = TokenTable(raw, (0, 1), frozenset({5}), Spelling("plain"), {"bos": 1}, "BPE", "f")
    table.save(tmp_path / "tokens.json.xz")
    found = TokenTable.load(tmp_path / "tokens.json.xz")
    assert found == table
    assert found.token_bytes == (None, None, None, b"", "▁é".encode(), "▁b".encode())
    assert found.is_control.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("content", [b"", b"no xz", lzma.compress(b"{}"), lzma.compress(b"[1]")])
def test_another_file_is_not_used_as_a_token_table(tmp_path, content: bytes) -> None:
    (tmp_path / "tokens.json.xz").write_bytes(content)
    assert TokenTable.load(tmp_path / "tokens.json.xz") is None
    assert TokenTable.load(tmp_path) is None


def test_an_unknown_overlap_ends_in_a_sentence(sp32k_vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="'bytes', 'raw' or 'none'"):
        shared_tokens(sp32k_vocabulary, sp32k_vocabulary, by="strings")


def test_a_byte_token_that_writes_text_is_the_token_that_the_other_tokenizer_writes() -> None:
    """Gemma has a token for a newline besides `<0x0A>`, which it never writes; sp32k (as Llama) has only `<0x0A>`."""
    gemma, sp32k = catalog.load_vocabulary("gemma3"), catalog.load_vocabulary("sp32k")
    newline, mark = (sp32k.id_of_raw(token) for token in ("<0x0A>", "<0x21>"))
    assert newline in sp32k.encode(["a\nb"])[0]
    (written,) = gemma.encode(["\n"])[0]
    assert gemma.id_of_token(sp32k, newline) == written != gemma.id_of_raw("<0x0A>")
    assert gemma.id_of_token(sp32k, mark) == gemma.id_of_raw("<0x21>"), "both write `!` with another token"
    assert sp32k.id_of_token(gemma, written) == newline
