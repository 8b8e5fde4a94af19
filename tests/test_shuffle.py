from __future__ import annotations

import numpy as np
import pytest

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.shuffle import shuffled
from tokalign_lab.alignment.recipes import align
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import Document
from tokalign_lab.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def lexicon(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> Lexicon:
    pair = tokenize_pair(smollm_vocabulary, sp32k_vocabulary, [Document("One line.", "a", "a")])
    return align(pair, "pieces").lexicon


def test_a_share_of_0_gives_the_same_lexicon(lexicon: Lexicon) -> None:
    same = shuffled(lexicon, 0.0)
    assert np.array_equal(same.source_of(), lexicon.source_of())
    assert np.array_equal(same.target_of(), lexicon.target_of())


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_about_the_given_share_of_rows_gets_another_source(lexicon: Lexicon, share: float) -> None:
    before = lexicon.source_of().copy()
    made = shuffled(lexicon, share, seed=1)
    assert (made.source_of() != before).mean() == pytest.approx(share, abs=0.02)
    assert sorted(made.source_of()) == sorted(before)  # permuted without loss
    assert np.array_equal(lexicon.source_of(), before)  # the original does not change
    weights = made.table["weights"].to_list()
    assert [len(w) for w in weights] == [len(s) for s in made.table["sources"]]
    back = lexicon.target_of() >= 0
    assert (made.target_of() != lexicon.target_of())[back].mean() == pytest.approx(share, abs=0.02)
