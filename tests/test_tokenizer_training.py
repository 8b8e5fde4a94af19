"""New tokenizers: old ids and bytes stay, every text round-trips, every new token is reachable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import run, run_json
from tiny import tiny_model, tiny_tokenizer, tiny_vocabulary
from transformers import AutoTokenizer

from tokalign_lab import catalog, pipeline
from tokalign_lab.alignment.recipes import align
from tokalign_lab.catalog.texts import udhr_documents
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.save_tokenizer import TEXTS, save_tokenizer
from tokalign_lab.settings.kinds import ExtendTokenizerSettings, TrainTokenizerSettings
from tokalign_lab.tokenizer_training import END_OF_TEXT, extend, train
from tokalign_lab.vocabulary import Vocabulary

UDHR = {made["slice"]: made["text"] for made in udhr_documents()}
LANGUAGES = ("tr", "el", "th", "en")
ADD = 100


@pytest.fixture(scope="module")
def extended(smollm_vocabulary: Vocabulary) -> Vocabulary:
    return Vocabulary.from_tokenizer(extend(smollm_vocabulary, [UDHR["tr"]], ADD), "extended")


def spelled(vocabulary: Vocabulary, ids: Sequence[int]) -> bytes:
    return b"".join(vocabulary.token_bytes[i] or b"" for i in ids)


# --- extend -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "language"), [("smollm2-135m", "tr"), ("sp32k", "th")])
def test_old_tokens_stay_and_every_text_round_trips(name: str, language: str, tmp_path: Path) -> None:
    before = catalog.load_vocabulary(name)
    save_tokenizer(extend(before, [UDHR[language]], ADD), tmp_path / "new")
    after = catalog.load_vocabulary(str(tmp_path / "new"))
    assert after.size == before.size + ADD
    assert [after.raw_token(i) for i in range(before.size)] == [before.raw_token(i) for i in range(before.size)]
    assert after.token_bytes[: before.size] == before.token_bytes
    assert np.flatnonzero(after.is_control).tolist() == np.flatnonzero(before.is_control).tolist()
    assert after.roles == before.roles
    assert after.tokenizer.chat_template == before.tokenizer.chat_template
    texts = [*TEXTS, *(UDHR[one] for one in LANGUAGES)]
    for text, old, new in zip(texts, before.encode(texts), after.encode(texts), strict=True):
        assert spelled(after, new) == spelled(before, old)
        assert after.decode(new) == before.decode(old), text[:40]
        assert len(new) <= len(old)
    assert len(after.encode([UDHR[language]])[0]) < 0.8 * len(before.encode([UDHR[language]])[0])
    if before.tokenizer.chat_template:
        chat = [{"role": "user", "content": "Hi"}]
        assert after.tokenizer.apply_chat_template(chat) == before.tokenizer.apply_chat_template(chat)


def test_special_tokens_after_the_vocabulary_keep_their_ids(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(300)  # as in Qwen's, added tokens that are not in the model of the tokenizer
    tokenizer.add_special_tokens({"pad_token": "<|pad|>", "additional_special_tokens": ["<|im_start|>"]})
    before = Vocabulary.from_tokenizer(tokenizer, "tiny")
    save_tokenizer(extend(before, [UDHR["el"]], ADD), tmp_path / "new")
    after = catalog.load_vocabulary(str(tmp_path / "new"))
    assert after.size == before.size + ADD
    assert [after.raw_token(i) for i in range(before.size)] == [before.raw_token(i) for i in range(before.size)]
    assert after.is_control[: before.size].tolist() == before.is_control.tolist()
    assert after.roles == before.roles


def test_each_new_token_is_the_only_token_of_its_text(extended: Vocabulary, smollm_vocabulary: Vocabulary) -> None:
    new = range(smollm_vocabulary.size, extended.size)
    whole = {
        i: token.decode()
        for i in new
        if (token := extended.token_bytes[i] or b"").decode(errors="ignore").encode() == token
    }
    assert len(whole) > 0.9 * ADD
    encoded = extended.encode(list(whole.values()))
    assert [ids.tolist() for ids in encoded] == [[i] for i in whole]


def test_every_new_merge_makes_a_new_token(extended: Vocabulary, smollm_vocabulary: Vocabulary) -> None:
    model = json.loads(extended.tokenizer.backend_tokenizer.to_str())["model"]
    known = {smollm_vocabulary.raw_token(i) for i in range(smollm_vocabulary.size)}
    merged = {left + right for left, right in model["merges"]}
    assert merged - known == {extended.raw_token(i) for i in range(smollm_vocabulary.size, extended.size)}


def test_characters_that_were_spelled_byte_by_byte_come_first(sp32k_vocabulary: Vocabulary) -> None:
    assert sp32k_vocabulary.id_of_bytes("ๆ".encode()) is None
    extended = Vocabulary.from_tokenizer(extend(sp32k_vocabulary, ["กๆ นๆ มๆ\n" * 20], 2), "x")
    assert extended.token_bytes[32_000] == "ๆ".encode()
    assert extended.id_of_raw("\n") is None  # a single byte would save no token


def test_the_rows_of_old_tokens_do_not_change() -> None:
    before = tiny_vocabulary(400)
    after = Vocabulary.from_tokenizer(extend(before, [UDHR["en"]], ADD), "more")
    pair = tokenize_pair(before, after, [Document(UDHR["en"], "en", "en", "en")])
    model = tiny_model("llama_tied", before.size)
    moved = rearrange(model, align(pair).lexicon, before, after)
    for side in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(one, side)().weight for one in (model, moved))
        assert torch.equal(new[: before.size], old)
        assert new[before.size :].abs().sum(dim=1).min() > 0


# --- train ------------------------------------------------------------------------------------------------------


def test_a_tokenizer_is_trained_from_scratch() -> None:
    made = Vocabulary.from_tokenizer(train([UDHR[one] for one in LANGUAGES], 600), "new")
    assert made.size == 600
    assert made.roles == {role: made.id_of_raw(END_OF_TEXT) for role in ("bos", "eos", "pad")}
    for text, ids in zip(TEXTS, made.encode(TEXTS), strict=True):
        assert spelled(made, ids) == text.encode()


def test_a_tokenizer_like_another_keeps_its_special_tokens_and_template(smollm_vocabulary: Vocabulary) -> None:
    made = Vocabulary.from_tokenizer(train([UDHR["tr"]], 500, smollm_vocabulary), "new")
    assert made.size == 500
    names = [{one.raw_token(i) for i in np.flatnonzero(one.is_control)} for one in (made, smollm_vocabulary)]
    assert names[0] == names[1]
    assert {role: made.raw_token(i) for role, i in made.roles.items()} == {
        role: smollm_vocabulary.raw_token(i) for role, i in smollm_vocabulary.roles.items()
    }
    assert made.tokenizer.chat_template == smollm_vocabulary.tokenizer.chat_template
    assert len(made.encode(["1234"])[0]) == 4  # digits are split one by one


# --- the commands -----------------------------------------------------------------------------------------------


def test_the_commands_write_a_tokenizer_that_other_commands_accept(
    tmp_path: Path, smollm_vocabulary: Vocabulary
) -> None:
    (tmp_path / "tr.txt").write_text(UDHR["tr"], encoding="utf-8")
    common = ("--text", "tr.txt", "--held-out-share", "0.2")
    made = run_json("tokenizer", "extend", "smollm2-135m", *common, "--add", 50, "--out", "more", cwd=tmp_path)
    assert (made["size"], made["added"]) == (smollm_vocabulary.size + 50, 50)
    (row,) = made["slices"]
    assert row["saved"] == pytest.approx(1 - row["tokens"] / row["tokens_before"])
    assert row["saved"] > 0.1
    assert AutoTokenizer.from_pretrained(tmp_path / "more").vocab_size >= 49_152
    shared = run_json("overlap", "smollm2-135m", "more", cwd=tmp_path)
    assert shared["bytes"]["count"] == smollm_vocabulary.size
    made = run_json("tokenizer", "train", *common, "--size", 400, "--out", "new", cwd=tmp_path)
    assert made["size"] == made["added"] == 400
    assert made["slices"][0]["bytes_per_token"] > 1.5
    shown = run("tokenizer", "train", *common, "--size", 300, "--out", "newer", cwd=tmp_path).stdout
    assert "bytes per token" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--size", "100"), "--size is 100, but added tokens and single bytes take 257"),
        (("train", "--size", "900", "--like", "sp32k"), "sp32k is a SentencePiece BPE"),
        (("train", "--size", "900", "--like", "nobody"), "nobody"),
        (("extend", "minilm", "--add", "5"), "minilm is no plain BPE tokenizer"),
        (("extend", "sp32k", "--add", "0"), "--add is 0"),
        (("extend", "sp32k", "--add", "5", "--out", "text.txt"), "text.txt"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three\n" * 20)
    out = () if "--out" in arguments else ("--out", "out")
    done = run("tokenizer", *arguments, "--text", "text.txt", *out, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_huge_vocabulary_size_is_limited_by_the_text() -> None:
    """The trainers reserve memory for the requested size, and abort the process if there is not enough."""
    made, base = train([UDHR["en"]], 10**12), tiny_vocabulary(300)
    assert END_OF_TEXT in made.get_vocab()
    assert 300 < len(made) < 257 + len(UDHR["en"].encode())
    assert base.size < len(extend(base, [UDHR["en"]], 10**12)) < base.size + len(UDHR["en"].encode())


def test_a_text_with_more_characters_than_the_size_is_refused() -> None:
    with pytest.raises(InputError, match="--size is 300, but added tokens and single characters take more"):
        train([UDHR["zh"], UDHR["en"]], 300, catalog.load_vocabulary("minilm"))


def test_a_tokenizer_with_settings_of_its_training_is_a_base_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_tokenizer(300)
    base.add_tokens(["fox", "bird"])  # no special tokens
    base.backend_tokenizer.model.dropout = 0.5
    base.backend_tokenizer.enable_truncation(4)
    base.save_pretrained(tmp_path / "base")
    (tmp_path / "text.txt").write_text(UDHR["tr"])
    text = {"text": (str(tmp_path / "text.txt"),)}
    extending = ExtendTokenizerSettings(tokenizer=str(tmp_path / "base"), add=20, **text)
    training = TrainTokenizerSettings(like=str(tmp_path / "base"), size=400, **text)
    sizes = [
        pipeline.extend_tokenizer(extending, tmp_path / "more")["size"],
        pipeline.train_tokenizer(training, tmp_path / "new")["size"],
    ]
    assert sizes == [len(base) + 20, 400]
    for name in ("more", "new"):
        made = AutoTokenizer.from_pretrained(tmp_path / name)
        assert made.decode(made(UDHR["tr"])["input_ids"]) == UDHR["tr"]
    monkeypatch.setattr("tokalign_lab.model.save_tokenizer.difference_of", lambda *_: "its tokens have other ids")
    with pytest.raises(InputError, match="another tokenizer of the folder: its tokens"):
        save_tokenizer(made, tmp_path)


def test_text_without_repetition_is_refused(smollm_vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match="No pair of tokens occurs 5 times"):
        extend(smollm_vocabulary, ["Only once."], 10)
