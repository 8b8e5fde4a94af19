"""Two tokenizations of one text are paired where both have read the same bytes, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokalign_lab import catalog
from tokalign_lab.cross_tokenizer.byte_alignment import (
    ByteAlignment,
    Tokens,
    align,
    consecutive,
    special,
    tokenize,
    writes_space_first,
)
from tokalign_lab.vocabulary import Vocabulary

NAMES = ("smollm2-135m", "sp32k", "pythia", "qwen2", "gemma3")
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(" \n\t.,ae\u0301é한글你好й👩‍🚀▁</s>"),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    owner = {"gemma3": "gemma-3-270m"}
    return {
        name: catalog.load_vocabulary(name) for name in NAMES if catalog.cached_path(owner.get(name, name)) is not None
    }


def spelled(vocabulary: Vocabulary, tokens: Tokens, chunk: np.ndarray) -> bytes:
    return b"".join(vocabulary.token_bytes[i] or b"" for i in tokens.ids[chunk[0] : chunk[1]].tolist())


def check(text: str, one: Vocabulary, other: Vocabulary) -> ByteAlignment:
    return check_tokens(text, one, other, tokenize(text, one), tokenize(text, other))


def check_tokens(text: str, one: Vocabulary, other: Vocabulary, first: Tokens, second: Tokens) -> ByteAlignment:
    """Check that pairs ascend and end at the same byte, and that exact chunks join to the bytes of the text."""
    data = text.encode()
    found = align(first, second)
    for side in (first, second):
        assert (np.diff(side.ends, prepend=0) >= 0).all()
        assert len(side) == 0 or 0 <= side.ends[0] <= side.ends[-1] <= len(data)
        assert side.length == len(data)
    assert found.pairs.shape == (len(found), 2)
    assert found.pairs.dtype == np.int64
    assert (np.diff(found.pairs, axis=0) > 0).all()
    assert (first.ends[found.pairs[:, 0]] == second.ends[found.pairs[:, 1]]).all()
    start = 0
    for (mine, yours), chunk, exact in zip(found.pairs, found.chunks, found.exact, strict=True):
        end = int(first.ends[mine])
        assert end == second.ends[yours]
        if exact:
            for vocabulary, tokens, part in ((one, first, chunk[0]), (other, second, chunk[1])):
                written = spelled(vocabulary, tokens, part)
                assert written == data[start:end] or (start == 0 and written == b" " + data[:end])
        start = end
    return found


@settings(max_examples=40)
@given(text=TEXTS)
def test_pairs_of_any_text_end_at_the_same_byte(vocabularies: dict[str, Vocabulary], text: str) -> None:
    names = list(vocabularies)
    assert len(names) >= 2
    tokens = {name: tokenize(text, vocabularies[name]) for name in names}
    for one in names:
        for other in names:
            check_tokens(text, vocabularies[one], vocabularies[other], tokens[one], tokens[other])


@settings(max_examples=40)
@given(text=TEXTS)
def test_every_shared_boundary_is_found(vocabularies: dict[str, Vocabulary], text: str) -> None:
    one, other = vocabularies["smollm2-135m"], vocabularies["sp32k"]
    first, second = tokenize(text, one), tokenize(text, other)
    if first.faithful.all() and second.faithful.all():
        shared = (set(first.ends.tolist()) & set(second.ends.tolist())) - {0}
        assert len(align(first, second)) == len(shared)
        if text and len(first):  # SmolLM2 drops some control characters
            assert first.ends[-1] in shared


@settings(max_examples=40)
@given(text=TEXTS)
def test_a_tokenization_matches_itself_token_by_token(vocabularies: dict[str, Vocabulary], text: str) -> None:
    for name, vocabulary in vocabularies.items():
        tokens = tokenize(text, vocabulary)
        found = align(tokens, tokens)
        assert (found.pairs[:, 0] == found.pairs[:, 1]).all()
        writing = int(((np.diff(tokens.ends, prepend=0) > 0) & tokens.faithful).sum())
        assert len(found) == writing, name


def test_known_pairs(vocabularies: dict[str, Vocabulary]) -> None:
    one, other = vocabularies["smollm2-135m"], vocabularies["sp32k"]
    text = "Tokenizers disagree."
    first, second = tokenize(text, one), tokenize(text, other)
    ends = [text.encode()[: int(first.ends[i])].decode() for i, _ in align(first, second).pairs]
    cut = lambda tokens: {text[:end] for end in tokens.ends.tolist()}  # noqa: E731
    assert ends == sorted(cut(first) & cut(second), key=len)
    assert ends[-1] == text
    assert check(text, one, other).exact.all()


def test_the_dummy_space_of_sentencepiece_is_not_part_of_the_text(vocabularies: dict[str, Vocabulary]) -> None:
    sp32k = vocabularies["sp32k"]
    assert writes_space_first(sp32k)
    assert not writes_space_first(vocabularies["smollm2-135m"])
    for text in ("The end", " The end", "  The end", "你好", "\nThe"):
        tokens = tokenize(text, sp32k)
        assert tokens.ends[-1] == len(text.encode())
        assert tokens.faithful.all()
        assert check(text, vocabularies["smollm2-135m"], sp32k).exact.all()
    alone = tokenize("鿃", sp32k)  # written as ▁ and three bytes
    assert alone.ends.tolist() == [0, 1, 2, 3]
    pairs = align(alone, tokenize("鿃", vocabularies["smollm2-135m"])).pairs
    assert pairs[-1, 0] == 3
    assert 0 not in pairs[:, 0], "the ▁ is not part of the text"


def test_characters_may_be_cut_in_the_middle(vocabularies: dict[str, Vocabulary]) -> None:
    one, other = vocabularies["smollm2-135m"], vocabularies["pythia"]
    text = "鿃鿃"
    found = check(text, one, other)
    inside = [int(tokenize(text, one).ends[i]) for i, _ in found.pairs]
    assert inside[-1] == 6
    assert any(end % 3 for end in inside)


def test_text_that_a_tokenizer_changes_is_not_paired(vocabularies: dict[str, Vocabulary]) -> None:
    qwen2, smollm = vocabularies["qwen2"], vocabularies["smollm2-135m"]
    text = "one cafe\u0301 two cafe\u0301 three four"  # NFC makes é of it
    found = check(text, smollm, qwen2)
    tokens = tokenize(text, smollm)
    ends = [text.encode()[: int(tokens.ends[i])].decode(errors="replace") for i, _ in found.pairs]
    assert "one" in ends
    assert "one cafe\u0301" not in ends, "qwen2 wrote other bytes here"
    assert "one cafe\u0301 two" in ends, "after it, both have read the same text again"
    assert ends[-1] == text
    exact = dict(zip(ends, found.exact.tolist(), strict=True))
    assert exact["one"]
    assert not exact["one cafe\u0301 two"]
    assert exact[text]


def test_a_tokenizer_that_lowercases_strips_and_has_unknown_characters() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    words = Vocabulary.from_tokenizer(fast, "words")
    tokens = tokenize("one Two xyz three", words)
    assert tokens.ids.tolist() == [1, 2, 0, 3]
    assert tokens.ends.tolist() == [3, 7, 11, 17]
    assert tokens.faithful.tolist() == [True, False, False, True]
    assert tokens.whole.tolist() == [True, False, False, True], "each word's token includes the space before it"
    letters = consecutive(np.arange(17), np.ones(17, dtype=np.int64))
    found = align(tokens, letters)
    assert found.pairs.tolist() == [[0, 2], [3, 16]]
    assert found.exact.tolist() == [True, False]


def test_special_tokens_are_separate_positions() -> None:
    text = consecutive(np.array([5, 6]), np.array([2, 2]))
    one = Tokens.joined([special(1, 1), text, special(2, 1), special(1, 1), text])
    both = Tokens.joined([special(9, 1), text, special(9, 2), text])  # one token is eos and bos
    assert one.ends.tolist() == [1, 3, 5, 6, 7, 9, 11]
    assert align(one, both).pairs.tolist() == [[0, 0], [1, 1], [2, 2], [4, 3], [5, 4], [6, 5]]
    without = Tokens.joined([special(8, 0), text])
    assert align(without, Tokens.joined([text])).pairs.tolist() == [[1, 0], [2, 1]]


def test_dropped_characters_do_not_shift_later_pairs(vocabularies: dict[str, Vocabulary]) -> None:
    one, other = vocabularies["smollm2-135m"], vocabularies["sp32k"]
    assert len(tokenize("\x16", one)) == 0, "SmolLM2 has no token for it"
    both = [Tokens.joined([tokenize("\x16", v), special(1, 1), tokenize("end", v)]) for v in (one, other)]
    found = align(*both)
    assert [int(both[0].ends[i]) for i, _ in found.pairs] == [2, 5]
    assert not found.exact[0]
    assert found.exact[1]
    assert check("a\x16 end", one, other).exact.tolist()[-1] is False


def test_an_empty_text_has_no_pairs(vocabularies: dict[str, Vocabulary]) -> None:
    nothing = tokenize("", vocabularies["sp32k"])
    found = align(nothing, nothing)
    assert len(found) == len(found.chunks) == 0
