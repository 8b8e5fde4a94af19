"""Merge histories agree with the tokenizers themselves, which apply their merges in Rust."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import tiny_vocabulary
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tokalign_lab.merges import Merge, TokenHistories
from tokalign_lab.vocabulary import Vocabulary


def made(model: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)), "made")


@pytest.mark.parametrize("name", ["smollm_vocabulary", "sp32k_vocabulary"])
def test_merges_end_in_the_token_if_the_tokenizer_produces_it(name: str, request: pytest.FixtureRequest) -> None:
    vocabulary: Vocabulary = request.getfixturevalue(name)
    histories, merge = TokenHistories(vocabulary), vocabulary.tokenizer.backend_tokenizer.model.tokenize
    built = 0
    for token_id in range(0, vocabulary.size, 37):
        history = histories.of(token_id)
        if history.merges:
            built += 1
            assert [token.id for token in merge(vocabulary.raw_token(token_id))] == [token_id]
            assert history.reason == ""
            assert history.merges[-1].left + history.merges[-1].right == vocabulary.token_bytes[token_id]
    assert built > vocabulary.size / 37 / 2


def test_merges_are_in_the_order_of_their_ranks(smollm_vocabulary: Vocabulary) -> None:
    token_id = smollm_vocabulary.id_of_bytes(b" tokenizer")
    assert token_id is not None
    merges = TokenHistories(smollm_vocabulary).of(token_id).merges
    assert merges[0] == Merge(b" ", b"t", 1)
    assert merges[-1] == Merge(b" token", b"izer", 45_868)
    assert len(merges) == len(" tokenizer") - 1


def test_continuation_and_end_of_word_marks_stay_with_their_characters() -> None:
    tokens = ["a", "##b", "##c</w>", "##b</w>", "ab", "abc</w>", "##bc</w>", "</w>"]
    merges = [("a", "##b"), ("ab", "##c</w>"), ("##b", "##c</w>")]
    model = models.BPE(
        {token: i for i, token in enumerate(tokens)}, merges, continuing_subword_prefix="##", end_of_word_suffix="</w>"
    )
    histories = TokenHistories(made(model))
    assert histories.of(5).merges == (Merge(b"a", b"b", 1), Merge(b"ab", b"c", 2))
    assert histories.of(6).merges == (Merge(b"b", b"c", 3),)
    assert histories.of(7).merges == ()


@pytest.mark.parametrize(
    ("whole_words", "use"), [(True, "only a word that equals it becomes"), (False, "no text becomes")]
)
def test_a_token_that_merges_do_not_reach_is_reported(whole_words: bool, use: str) -> None:
    model = models.BPE({"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, [("a", "b")], ignore_merges=whole_words)
    history = TokenHistories(made(model)).of(4)
    assert history.merges == (Merge(b"a", b"b", 1),)
    assert history.reason == f"The merges end at ab + c, so {use} this token."


def test_algorithms_without_merges_are_explained() -> None:
    unigram = TokenHistories(made(models.Unigram([("<unk>", 0.0), ("ab", -2.5)], unk_id=0)))
    assert "This token's is -2.50." in unigram.of(1).reason
    wordpiece = TokenHistories(made(models.WordPiece({"[UNK]": 0, "ab": 1}, unk_token="[UNK]")))
    assert wordpiece.of(1).reason == "WordPiece has no merges: at each place it takes the longest token that fits."


def test_single_characters_and_added_tokens_have_no_merges(sp32k_vocabulary: Vocabulary) -> None:
    tiny = tiny_vocabulary(290)
    histories = TokenHistories(tiny)
    letter = tiny.id_of_bytes(b"a")
    assert letter is not None
    assert "training began with it" in histories.of(letter).reason
    assert "An added token" in histories.of(tiny.roles["eos"]).reason
    newline = sp32k_vocabulary.id_of_raw("<0x0A>")
    assert newline is not None
    assert "A single byte" in TokenHistories(sp32k_vocabulary).of(newline).reason
