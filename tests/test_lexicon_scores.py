"""Scores of a lexicon: worked by hand, low for what is bad, high for what is right."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tokalign_lab.alignment.lexicon import Lexicon, LexiconRows, make_provenance, reverse_of
from tokalign_lab.alignment.recipes import align
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document, part_of, read_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.held_out import held_out_precision
from tokalign_lab.evaluation.lexicon_scores import bleu1, score_lexicon
from tokalign_lab.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("hypothesis", "reference", "score"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([3, 1, 2], [1, 2, 3], 1.0),  # order does not count in unigrams
        ([1, 1, 1, 1], [1, 2, 3, 4], 1 / 4),  # clipped: 1 counts once
        ([1, 1, 2, 9], [1, 1, 1, 2], 3 / 4),
        ([1, 2], [1, 2, 3, 4], math.exp(1 - 4 / 2)),  # all right but half as long
        ([1, 9], [1, 2, 3, 4], 0.5 * math.exp(1 - 4 / 2)),
        ([1, 2, 3, 4], [1, 2], 2 / 4),  # too long: precision pays, no penalty
        ([7, 8], [1, 2], 0.0),
        ([-1, -1], [1, 2], 0.0),  # rows without a source are lost
        ([], [1, 2], 0.0),
        ([1, 2], [], 0.0),
        ([], [], 0.0),
    ],
)
def test_bleu_by_hand(hypothesis: list[int], reference: list[int], score: float) -> None:
    assert bleu1(hypothesis, reference) == pytest.approx(score)


@pytest.fixture(scope="module")
def held_out(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> TokenizedPair:
    documents = part_of(read_documents(["default"], max_bytes=600_000), "held_out")[:40]
    return tokenize_pair(smollm_vocabulary, sp32k_vocabulary, documents)


def map_to_most_frequent(pair: TokenizedPair) -> Lexicon:
    rows = LexiconRows(pair.target.size)
    most = int(pair.source_corpus.counts(pair.source.size).argmax())
    for target_id in range(pair.target.size):
        rows.copy(target_id, most, "aligned")
    counts = np.zeros(pair.source.size), np.zeros(pair.target.size)
    provenance = make_provenance(pair.source, pair.target, recipe="worst", parameters={}, seed=0)
    table = rows.to_table(pair.source, pair.target, *counts)
    return Lexicon(table, reverse_of(rows, pair.source.size), provenance)


def test_a_lexicon_of_a_tokenizer_with_itself_loses_nothing(held_out: TokenizedPair) -> None:
    pair = tokenize_pair(held_out.source, held_out.source, held_out.documents)
    scores = score_lexicon(align(pair, "pieces").lexicon, pair, encoder=None)
    assert scores.bleu1 == {"target_to_source": 1.0, "source_to_target": 1.0}
    assert scores.coverage_text == pytest.approx({"identical": 1.0, "role": 0.0})
    assert scores.hubs is None
    assert "sentence_score" not in scores.to_dict()


def test_a_good_lexicon_scores_high_and_one_that_maps_all_to_one_low(
    small_pair: TokenizedPair, held_out: TokenizedPair
) -> None:
    good = score_lexicon(align(small_pair, "anchored").lexicon, held_out, max_documents=12)
    bad = score_lexicon(map_to_most_frequent(small_pair), held_out, max_documents=12)
    # Spelled alike is not cut alike: even identical tokens leave BLEU-1 well below 1.
    assert min(good.bleu1.values()) > 0.5
    assert bad.bleu1["target_to_source"] < 0.15
    assert bad.bleu1["source_to_target"] < 0.15
    assert min(good.sentence_score.values()) > 0.8
    assert max(bad.sentence_score.values()) < 0.3
    assert bad.hubs == {"most_chosen": 1.0, "distinct": 1 / small_pair.target.size}
    assert good.hubs["most_chosen"] < 0.3
    assert good.documents == good.sentences == 12


def test_coverage_adds_up_and_is_plain_json(small_pair: TokenizedPair, held_out: TokenizedPair) -> None:
    scores = score_lexicon(align(small_pair, "pieces").lexicon, held_out, encoder=None)
    assert sum(scores.coverage_types.values()) == pytest.approx(1)
    assert sum(scores.coverage_text.values()) == pytest.approx(1)
    shared = scores.coverage_types["identical"]
    assert shared == pytest.approx(0.6835, abs=0.002)  # 21,873 of 32,000
    assert scores.coverage_text["identical"] > shared
    assert json.loads(json.dumps(scores.to_dict())) == scores.to_dict()


def test_too_short_documents_and_foreign_lexicons_are_refused(small_pair: TokenizedPair) -> None:
    lexicon = align(small_pair, "mean").lexicon
    short = tokenize_pair(small_pair.source, small_pair.target, [Document("Hello.", "t", "t")])
    with pytest.raises(InputError, match="No held-out document has 10 tokens"):
        score_lexicon(lexicon, short, encoder=None)
    turned = tokenize_pair(small_pair.target, small_pair.source, small_pair.documents)
    with pytest.raises(InputError, match="made for the source tokenizer"):
        score_lexicon(lexicon, turned, encoder=None)


def test_documents_are_taken_from_all_over_the_text(small_pair: TokenizedPair) -> None:
    scores = score_lexicon(align(small_pair, "mean").lexicon, small_pair, encoder=None, max_documents=7)
    assert scores.documents == 7


def test_hidden_twins_are_found_far_above_chance(small_pair: TokenizedPair) -> None:
    anchored = held_out_precision(small_pair, "anchored", max_tokens=200)
    tokalign = held_out_precision(small_pair, "tokalign", max_tokens=200)
    assert anchored.p_at_1 > 0.6
    assert anchored.p_at_10 > anchored.p_at_1
    assert tokalign.p_at_1 > 100 * tokalign.chance
    assert anchored.p_at_1 > tokalign.p_at_1
    assert anchored.n >= 100
    assert held_out_precision(small_pair, "anchored", max_tokens=200) == anchored


def test_held_out_precision_says_what_it_cannot_do(small_pair: TokenizedPair) -> None:
    with pytest.raises(InputError, match="'pieces' ranks no candidates"):
        held_out_precision(small_pair, "pieces")
    with pytest.raises(InputError, match="between 0 and 1"):
        held_out_precision(small_pair, "anchored", share=1.5)
    tiny = tokenize_pair(small_pair.source, small_pair.target, [Document("a few words only here", "t", "t")])
    with pytest.raises(InputError, match="too few to hide"):
        held_out_precision(tiny, "anchored")
