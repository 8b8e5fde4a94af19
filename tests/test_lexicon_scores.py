"""Scores of a lexicon: by hand, low for bad lexicons, high for good ones; their intervals and groups."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import WORDS, tiny_vocabulary
from typer.testing import CliRunner

from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.cli import app
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.breakdown import BANDS, bands_of, breakdown, held_out_by_group, scripts_of
from tokalign_lab.evaluation.held_out import HeldOutPrecision, held_out_precision
from tokalign_lab.evaluation.interval import of_mean, of_ratio, of_share
from tokalign_lab.evaluation.lexicon_scores import LexiconScores, bleu1, score_lexicon
from tokalign_lab.spelling import script_of
from tokalign_lab.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("hypothesis", "reference", "score"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([3, 1, 2], [1, 2, 3], 1.0),  # order does not count in unigrams
        ([1, 1, 1, 1], [1, 2, 3, 4], 1 / 4),  # clipped: 1 counts once
        ([1, 1, 2, 9], [1, 1, 1, 2], 3 / 4),
        ([1, 2], [1, 2, 3, 4], math.exp(1 - 4 / 2)),  # all tokens right, but half as long
        ([1, 9], [1, 2, 3, 4], 0.5 * math.exp(1 - 4 / 2)),
        ([1, 2, 3, 4], [1, 2], 2 / 4),  # too long: lower precision, no penalty
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
    documents = split_documents(read_documents(["default"], max_bytes=600_000))[1][:40]
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


@pytest.fixture(scope="module")
def good(anchored: Alignment, held_out: TokenizedPair) -> LexiconScores:
    return score_lexicon(anchored.lexicon, held_out, max_documents=12)


@pytest.fixture(scope="module")
def bad(small_pair: TokenizedPair, held_out: TokenizedPair) -> LexiconScores:
    return score_lexicon(map_to_most_frequent(small_pair), held_out, max_documents=12)


def test_a_lexicon_of_a_tokenizer_with_itself_loses_nothing(held_out: TokenizedPair) -> None:
    pair = tokenize_pair(held_out.source, held_out.source, held_out.documents)
    lexicon = align(pair, "pieces").lexicon
    scores = score_lexicon(lexicon, pair, encoder=None)
    assert scores.bleu1 == {"target_to_source": 1.0, "source_to_target": 1.0}
    assert scores.coverage_text == pytest.approx({"identical": 1.0, "role": 0.0})
    assert scores.hubs is None
    assert not {"sentence_score", "bert_score"} & scores.to_dict().keys()
    assert (breakdown(lexicon, pair)["value"] == 1).all()


def test_a_good_lexicon_scores_high_and_a_mapping_to_one_token_low(
    good: LexiconScores, bad: LexiconScores, small_pair: TokenizedPair
) -> None:
    # The tokenizers split words differently, so BLEU-1 is well below 1 even with identical tokens.
    assert min(good.bleu1.values()) > 0.5
    assert bad.bleu1["target_to_source"] < 0.15
    assert bad.bleu1["source_to_target"] < 0.15
    assert min(good.sentence_score.values()) > 0.8
    assert max(bad.sentence_score.values()) < 0.3
    assert min(good.bert_score.values()) > 0.75
    assert max(bad.bert_score.values()) < 0.5
    assert bad.hubs == {"most_chosen": 1.0, "distinct": 1 / small_pair.target.size}
    assert good.hubs["most_chosen"] < 0.3
    assert good.documents == good.sentences == 12


def test_every_mean_has_n_and_bounds(good: LexiconScores) -> None:
    measures = ("bleu1", "sentence_score", "bert_precision", "bert_recall", "bert_score")
    for measure in measures:
        for direction in ("target_to_source", "source_to_target"):
            interval = good.intervals[measure][direction]
            assert interval.n == 12
            assert 0 <= interval.low < interval.mean < interval.high <= 1
    assert good.bert_score == {name: one.mean for name, one in good.intervals["bert_score"].items()}
    # F1 of a document is between its precision and its recall; the same holds for the means.
    precision, recall, f1 = (good.intervals[name]["target_to_source"].mean for name in measures[2:])
    assert min(precision, recall) - 0.01 <= f1 <= max(precision, recall)
    assert good.intervals["coverage_text"]["identical"].low < good.coverage_text["identical"]
    assert json.loads(json.dumps(good.to_dict())) == good.to_dict()


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
    for texts in (["Hello."], ["", ""]):
        short = tokenize_pair(small_pair.source, small_pair.target, [Document(text, "t", "t") for text in texts])
        with pytest.raises(InputError, match="No held-out document has 10 tokens"):
            score_lexicon(lexicon, short, encoder=None)
    turned = tokenize_pair(small_pair.target, small_pair.source, small_pair.documents)
    for measure in (score_lexicon, breakdown):
        with pytest.raises(InputError, match="made for the source tokenizer"):
            measure(lexicon, turned)


def test_documents_are_sampled_from_the_whole_text(small_pair: TokenizedPair) -> None:
    scores = score_lexicon(align(small_pair, "mean").lexicon, small_pair, encoder=None, max_documents=7)
    assert scores.documents == 7


@pytest.fixture(scope="module")
def precision(small_pair: TokenizedPair) -> HeldOutPrecision:
    return held_out_precision(small_pair, "anchored", max_tokens=200)


def test_held_out_shared_tokens_are_found_far_above_chance(
    small_pair: TokenizedPair, precision: HeldOutPrecision
) -> None:
    tokalign = held_out_precision(small_pair, "tokalign-normalised", max_tokens=200)
    assert precision.p_at_1 > 0.6
    assert precision.p_at_10 > precision.p_at_1
    assert tokalign.p_at_1 > 100 * tokalign.chance
    assert precision.p_at_1 > tokalign.p_at_1
    assert precision.n >= 100
    assert held_out_precision(small_pair, "anchored", max_tokens=200) == precision


def test_held_out_shared_tokens_are_searched_from_both_sides_and_reported_by_group(
    small_pair: TokenizedPair, precision: HeldOutPrecision
) -> None:
    hidden = precision.hidden
    source, target = small_pair.source, small_pair.target
    for source_id, target_id in zip(hidden.source_ids, hidden.target_ids, strict=True):
        assert source.token_bytes[source_id] == target.token_bytes[target_id]
    assert precision.p_at_1 == np.mean(hidden.target_ranks == 1)
    assert precision.intervals["p_at_1"]["source_to_target"].mean == np.mean(hidden.source_ranks == 1) > 0.6
    assert precision.intervals["p_at_1"]["target_to_source"].low < precision.p_at_1
    groups = held_out_by_group(precision, small_pair)
    for (measure, direction, _), rows in groups.groupby(["measure", "direction", "kind"]):
        assert rows["n"].sum() == precision.n
        whole = precision.intervals[measure][direction].mean
        assert (rows["n"] * rows["value"]).sum() / precision.n == pytest.approx(whole)
    assert json.loads(json.dumps(precision.to_dict()))["intervals"]["p_at_10"]["source_to_target"]["n"] == precision.n


def test_held_out_precision_reports_why_it_cannot_be_measured(small_pair: TokenizedPair) -> None:
    with pytest.raises(InputError, match="'pieces' ranks no candidates"):
        held_out_precision(small_pair, "pieces")
    tiny = tokenize_pair(small_pair.source, small_pair.target, [Document("a few words only here", "t", "t")])
    with pytest.raises(InputError, match="too few to hide"):
        held_out_precision(tiny, "anchored")
    with pytest.raises(InputError, match="model"):
        held_out_precision(small_pair, "tokalign++-hidden")


def test_the_command_prints_scores_held_out_precision_and_groups(tmp_path: Path, anchored: Alignment) -> None:
    anchored.lexicon.save(tmp_path / "l.parquet")
    arguments = ["score", str(tmp_path / "l.parquet"), "--text", "default", "--max-bytes", "90000", "--twins"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["encoder"] == "minilm"
    assert 0.6 < result["bert_score"]["target_to_source"] < 1
    assert result["held_out"]["p_at_1"] > 0.5
    assert result["held_out"]["n"] == sum(
        row["n"]
        for row in result["twins_by_group"]
        if (row["measure"], row["direction"], row["kind"]) == ("p_at_1", "source_to_target", "script")
    )
    assert {row["measure"] for row in result["breakdown"]} == {"coverage", "coverage_of_text", "unigram_match"}


def test_groups_add_up_to_the_clipped_precision_of_the_text(anchored: Alignment, held_out: TokenizedPair) -> None:
    groups = breakdown(anchored.lexicon, held_out, seed=1)
    mapping, written, wanted = anchored.lexicon.source_of(), held_out.target_corpus, held_out.source_corpus
    matched = sum(
        (Counter(i for i in mapping[written[d]].tolist() if i >= 0) & Counter(wanted[d].tolist())).total()
        for d in range(len(written))
    )
    forward = groups[(groups["measure"] == "unigram_match") & (groups["direction"] == "target_to_source")]
    for kind in ("script", "band", "origin"):
        rows = forward[forward["kind"] == kind]
        assert rows["n"].sum() == len(written.ids)
        assert (rows["n"] * rows["value"]).sum() == pytest.approx(matched)
    covered = groups[(groups["measure"] == "coverage") & (groups["kind"] == "script")]
    assert covered["n"].to_numpy().sum() == held_out.target.size + held_out.source.size
    assert groups.drop_duplicates(["measure", "direction", "kind", "group"]).shape == groups.shape


def test_groups_show_differences_that_the_mean_hides(anchored: Alignment, held_out: TokenizedPair) -> None:
    groups = breakdown(anchored.lexicon, held_out)
    forward = groups[(groups["measure"] == "unigram_match") & (groups["direction"] == "target_to_source")]
    forward = forward.set_index(["kind", "group"])
    scripts, bands, origins = (forward.loc[kind] for kind in ("script", "band", "origin"))
    assert scripts.loc["digits", "value"] == 1  # both split numbers into digits
    assert scripts.loc["Latin", "low"] > scripts.loc["Hangul", "high"]
    assert origins.loc["identical", "value"] > origins.loc["aligned", "value"]
    assert list(bands.index) == [band for band in BANDS if band in bands.index]


def test_the_interval_of_a_group_needs_more_than_one_document() -> None:
    vocabulary = tiny_vocabulary(300)
    documents = [Document("The quick brown fox", "a", "t"), Document("lazy dog 7 + 7", "b", "t")]
    pair = tokenize_pair(vocabulary, vocabulary, documents)
    groups = breakdown(align(pair, "pieces").lexicon, pair)
    rows = groups[(groups["measure"] == "unigram_match") & (groups["kind"] == "script")].set_index("group")
    assert rows.loc["digits", "low"].isna().all()
    assert rows.loc["Latin", "low"].notna().all()


@pytest.mark.parametrize(
    ("token", "script"),
    [
        (" the", "Latin"),
        ("é2", "Latin"),
        ("Ｗ", "Latin"),
        ("при", "Cyrillic"),
        ("東京", "Han"),
        ("です", "Hiragana"),
        ("ー", "Katakana"),
        ("한국", "Hangul"),
        ("ﾊﾝ", "Katakana"),
        ("ि", "Devanagari"),  # a single vowel sign
        ("2024", "digits"),
        ("٣", "digits"),
        (" \n\t", "whitespace"),
        ("\x00", "whitespace"),
        (" ->", "symbols"),
        ("👩", "symbols"),
        ("\u0301", "symbols"),  # an accent belongs to no script
        ("", "whitespace"),
    ],
)
def test_the_script_of_a_token(token: str, script: str) -> None:
    assert script_of(token.encode()) == script


def test_parts_of_characters_and_special_tokens_have_no_script(sp32k_vocabulary: Vocabulary) -> None:
    assert script_of("東".encode()[:2]) == "bytes"
    scripts = scripts_of(sp32k_vocabulary)
    assert set(scripts[sp32k_vocabulary.is_control]) == {"special"}
    assert (scripts == "bytes").sum() == 128  # <0x80> to <0xFF>


def test_bands() -> None:
    counts = np.array([0, 1, 9, 10, 99, 100, 999, 1000, 10**6])
    assert bands_of(counts).tolist() == [BANDS[i] for i in (0, 1, 1, 2, 2, 3, 3, 4, 4)]


def test_an_interval_is_as_wide_as_the_normal_approximation() -> None:
    rng = np.random.default_rng(3)
    hits = rng.random(400) < 0.3
    spread = 1.96 * math.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    units = of_ratio(hits[:, None], np.ones((400, 1)))[0]
    for interval in (of_share(int(hits.sum()), 400), of_mean(hits), units):
        assert interval.mean == hits.mean()
        assert interval.n == 400
        assert interval.high - interval.mean == pytest.approx(spread, rel=0.2)
        assert interval.mean - interval.low == pytest.approx(spread, rel=0.2)
    assert of_mean(hits, seed=5) == of_mean(hits, seed=5) != of_mean(hits, seed=6)


def test_one_document_or_token_has_no_interval() -> None:
    lone = of_mean(np.array([0.25]))
    assert str(lone) == "0.250, n = 1"
    assert lone.to_dict() == {"mean": 0.25, "low": None, "high": None, "n": 1}
    assert str(of_share(1, 1)) == "1.000, n = 1"
    hits, of = np.array([[3, 2], [1, 0]]), np.array([[4, 4], [4, 0]])
    both, one = of_ratio(hits, of)
    assert both.low < both.high
    assert str(one) == "0.500, n = 4"


def test_tokens_of_one_document_are_resampled_together() -> None:
    by_document = np.repeat([[0.0], [10.0]], 20, axis=0)  # 40 documents of 10 tokens with equal values in each
    together = of_ratio(by_document, np.full((40, 1), 10))[0]
    apart = of_share(200, 400)
    assert together.n == apart.n == 400
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 5))
def test_bounds_are_within_the_range_of_the_values(values: list[float], seed: int) -> None:
    interval = of_mean(np.array(values), seed)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert min(values) - 1e-9 <= interval.mean <= max(values) + 1e-9


@pytest.fixture(scope="module")
def tiny_pair() -> TokenizedPair:
    documents = [Document(WORDS[i * 9 :] + "12 → 東京", str(i), "t") for i in range(4)]
    return tokenize_pair(tiny_vocabulary(320), tiny_vocabulary(290), documents)


@settings(max_examples=25)
@given(data=st.data())
def test_scores_of_any_lexicon_are_in_range(data: st.DataObject, tiny_pair: TokenizedPair) -> None:
    source, target = tiny_pair.source, tiny_pair.target
    rows = LexiconRows(target.size)
    rows.fill(np.arange(target.size), "mean")
    places = st.tuples(st.integers(0, target.size - 1), st.integers(0, source.size - 1))
    for target_id, source_id in data.draw(st.lists(places, max_size=200)):
        rows.copy(target_id, source_id, "aligned")
    table = rows.to_table(source, target, np.zeros(source.size), np.zeros(target.size))
    provenance = make_provenance(source, target, recipe="drawn", parameters={}, seed=0)
    lexicon = Lexicon(table, reverse_of(rows, source.size), provenance)
    scores = score_lexicon(lexicon, tiny_pair, encoder=None)
    shares = [*scores.bleu1.values(), *scores.coverage_types.values(), *scores.coverage_text.values()]
    assert all(0 <= share <= 1 for share in shares)
    assert sum(scores.coverage_text.values()) == pytest.approx(1)
    values = breakdown(lexicon, tiny_pair)[["value", "low", "high"]].to_numpy()
    known = values[np.isfinite(values)]
    assert known.min() >= 0
    assert known.max() <= 1 + 1e-12
