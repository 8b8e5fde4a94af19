from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tokalign_lab.vocabulary import Vocabulary, overlap

sys.path.append(str(Path(__file__).parents[1] / "notebooks" / "research"))  # the wheel has no research notebooks
from letters import letter_vocabulary, letters_of

TEXT = "Всё хорошо: naïve 東京 🫠\n\tdef f(x): return x"


@pytest.mark.parametrize("letters", [(), tuple("Всёхорш東京é")])
def test_every_text_round_trips(letters: tuple[str, ...]) -> None:
    vocabulary = letter_vocabulary("letters", letters)
    (ids,) = vocabulary.encode([TEXT])
    assert vocabulary.decode(ids) == TEXT
    assert b"".join(vocabulary.token_bytes[i] for i in ids) == TEXT.encode()


def test_known_characters_are_one_token_and_others_their_bytes() -> None:
    vocabulary = letter_vocabulary("letters", ["東"])
    assert [len(ids) for ids in vocabulary.encode(["東", "京", "x", " "])] == [1, 3, 1, 1]


def test_bytes_share_no_string_and_nearly_every_byte(smollm_vocabulary: Vocabulary) -> None:
    found = overlap(smollm_vocabulary, letter_vocabulary("bytes"))
    assert found.bytes_share > 0.9
    assert found.raw_share < 0.02  # special tokens may be written alike


def test_only_frequent_characters_get_a_token() -> None:
    assert letters_of(["aaaa b", "a  bbb▁▁▁▁▁▁"]) == ["a"]
    assert letters_of(["aaaa b", "a  bbb"], least_count=4) == ["a", "b"]
