"""Comparison of two lexicons: the group of each token, and whether differences on a text are significant."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from test_diagnosis import made_of
from test_lexicon_scores import map_to_most_frequent
from texts import corpus_of
from tiny import tiny_tokenizer, tiny_vocabulary, vocabulary_of_unknowns
from tokenizers import normalizers
from typer.testing import CliRunner

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.recipes import align
from tokalign_lab.cli import app
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document, excerpts
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.comparison import (
    CHANGES,
    FEWEST_DOCUMENTS,
    PairedScore,
    compare_lexicons,
    compare_slices,
    paired_scores,
)
from tokalign_lab.evaluation.compression import LANGUAGES, bytes_per_token, tokens_by_slice
from tokalign_lab.evaluation.lexicon_scores import score_lexicon
from tokalign_lab.vocabulary import Vocabulary

SOURCE, TARGET = tiny_vocabulary(300), tiny_vocabulary(290)


def lexicon_of(partners: dict[int, int], origin: str = "aligned", counts: np.ndarray | None = None) -> Lexicon:
    rows = LexiconRows(TARGET.size)
    rows.fill(np.arange(TARGET.size), "mean")
    for target_id, source_id in partners.items():
        rows.copy(target_id, source_id, origin)
    return made_of(rows, SOURCE, TARGET, counts)


def test_each_token_is_in_one_group_and_the_most_used_comes_first() -> None:
    counts = np.zeros(TARGET.size, np.int64)
    counts[[1, 2, 3, 4]] = [10, 40, 30, 20]
    a = lexicon_of({1: 5, 2: 6, 3: 7}, counts=counts)
    b = lexicon_of({1: 5, 2: 9, 4: 8}, counts=counts)
    found = compare_lexicons(a, b)
    assert list(found.counts) == list(CHANGES)
    assert found.counts == {"same": 1, "changed": 1, "gained": 1, "lost": 1, "neither": TARGET.size - 4}
    assert found.text_shares == {"same": 0.1, "changed": 0.4, "gained": 0.2, "lost": 0.3, "neither": 0.0}
    assert found.table["target_id"].tolist()[:4] == [2, 3, 4, 1]
    assert found.table["change"].tolist()[:4] == ["changed", "lost", "gained", "same"]
    assert found.table[["partner_a", "partner_b"]].to_numpy().tolist()[:3] == [[6, 9], [7, -1], [-1, 8]]
    turned = compare_lexicons(b, a)
    assert (turned.counts["gained"], turned.counts["lost"]) == (1, 1)
    assert turned.table["change"].tolist()[1:3] == ["gained", "lost"]


def test_random_rows_and_rows_of_pieces_have_no_partner() -> None:
    counts = compare_lexicons(lexicon_of({1: 5, 2: 6}, "permuted"), lexicon_of({1: 5, 2: 6})).counts
    assert (counts["same"], counts["gained"]) == (0, 2)


def test_without_text_there_are_no_text_shares() -> None:
    assert compare_lexicons(lexicon_of({1: 2}), lexicon_of({1: 2})).text_shares is None


def test_lexicons_of_different_pairs_are_refused() -> None:
    other = tiny_vocabulary(280)
    rows = LexiconRows(other.size)
    rows.fill(np.arange(other.size), "mean")
    with pytest.raises(InputError, match="different pairs: the target tokenizer is 'tiny-290'"):
        compare_lexicons(lexicon_of({1: 2}), made_of(rows, SOURCE, other))


def held_out(documents: int) -> TokenizedPair:
    """Make documents with the same ids on both sides, so that the identity is a perfect lexicon."""
    random = np.random.default_rng(0)
    ids = [random.integers(10, 250, 40).tolist() for _ in range(documents)]
    corpora = (corpus_of(ids, vocabulary.fingerprint) for vocabulary in (SOURCE, TARGET))
    return TokenizedPair(SOURCE, TARGET, *corpora, [])


def test_the_paired_interval_detects_a_small_consistent_difference() -> None:
    whole = {i: i for i in range(TARGET.size)}
    a = lexicon_of({i: s for i, s in whole.items() if i % 25})  # loses one of 25 tokens
    found = paired_scores(a, lexicon_of(whole), held_out(60))["bleu1"]["target_to_source"]
    assert found.b.mean == pytest.approx(1.0)
    assert found.difference.mean == pytest.approx(found.b.mean - found.a.mean)
    assert 0 < found.difference.low < found.difference.high < 0.1
    assert found.verdict == "B is higher"
    turned = paired_scores(lexicon_of(whole), a, held_out(60))["bleu1"]["target_to_source"]
    assert turned.verdict == "A is higher"
    assert turned.difference.mean == pytest.approx(-found.difference.mean)
    few = paired_scores(a, lexicon_of(whole), held_out(FEWEST_DOCUMENTS - 1))["bleu1"]["target_to_source"]
    assert few.difference.low > 0
    assert few.verdict.startswith("too few documents")


def test_one_document_has_a_difference_without_an_interval() -> None:
    whole = {i: i for i in range(TARGET.size)}
    one = paired_scores(lexicon_of({}), lexicon_of(whole), held_out(1))["bleu1"]["target_to_source"]
    assert one.difference.mean > 0
    assert one.verdict.startswith("too few documents")
    assert one.to_dict()["difference"] == {"mean": one.difference.mean, "low": None, "high": None, "n": 1}
    assert str(PairedScore.from_dict(one.to_dict())) == str(one)  # NaN is not equal to itself


def test_a_lexicon_does_not_differ_from_itself() -> None:
    a = lexicon_of({i: i for i in range(100)})
    found = paired_scores(a, a, held_out(20))["bleu1"]["source_to_target"]
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)
    assert found.verdict == "no significant difference"


def test_too_short_documents_are_refused() -> None:
    pair = held_out(2)
    short = [corpus_of([[1, 2, 3]], vocabulary.fingerprint) for vocabulary in (SOURCE, TARGET)]
    with pytest.raises(InputError, match="10 tokens in both"):
        paired_scores(lexicon_of({1: 1}), lexicon_of({1: 1}), TokenizedPair(pair.source, pair.target, *short, []))


def test_means_on_a_real_text_equal_the_scores(small_pair: TokenizedPair) -> None:
    bad, good = map_to_most_frequent(small_pair), align(small_pair, "pieces").lexicon
    text = tokenize_pair(small_pair.source, small_pair.target, excerpts(small_pair.documents, 2_000, longest=200))
    found = paired_scores(bad, good, text, encoder="minilm")
    assert list(found) == ["bleu1", "sentence_score", "bert_score"]
    scores = score_lexicon(good, text)
    for measure, by_direction in found.items():
        assert by_direction["target_to_source"].verdict == "B is higher"
        for direction, pair in by_direction.items():
            assert pair.b == scores.intervals[measure][direction]
            assert pair.difference.n == pair.a.n == pair.b.n


def test_slices_that_both_have_are_compared() -> None:
    a = {"bits_per_byte": 2.0, "by_slice": {"prose": 1.5, "code": 2.5, "de": 9.0}}
    b = {"bits_per_byte": 1.5, "by_slice": {"code": 1.0, "prose": 2.0}}
    rows = compare_slices(a, b)
    assert [row["slice"] for row in rows] == ["all", "code", "prose"]
    assert [row["difference"] for row in rows] == [-0.5, -1.5, 0.5]


def test_bytes_per_token_by_language(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    one, two = bytes_per_token(smollm_vocabulary), bytes_per_token(sp32k_vocabulary)
    assert list(one) == list(two) == list(LANGUAGES)
    assert one["en"] > 3.5 > 2 > one["ta"] >= 1  # made for English; Tamil is written nearly byte by byte
    assert two["ru"] > one["ru"]
    assert bytes_per_token(vocabulary_of_unknowns())["ru"] < 1, "an unknown token spells nothing"


def test_accents_that_a_tokenizer_joins_are_spelled() -> None:
    text = [Document(normalize("NFD", "Tiếng Việt có dấu. ") * 9, "a", "a")]
    tokenizer = tiny_tokenizer(300)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()  # as of qwen2 and pythia
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "nfc")
    assert tokens_by_slice(vocabulary, text)["prose"][1] == len(vocabulary.encode([text[0].text])[0])


def test_the_command_prints_what_changed(tmp_path: Path) -> None:
    counts = np.ones(TARGET.size, np.int64)
    a, b = lexicon_of({1: 5, 2: 6}, counts=counts), lexicon_of({1: 5, 2: 7}, counts=counts)
    for lexicon, name in ((a, "a"), (b, "b")):
        lexicon.table.loc[2, "target_token"] = "[/INST]"  # looks like markup of the terminal library
        lexicon.save(tmp_path / f"{name}.parquet")
    arguments = ["compare", str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0
    assert "another partner" in plain.stdout
    assert "[/INST]" in plain.stdout
    as_json = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout.splitlines()[-1])
    assert as_json["counts"]["changed"] == 1
    assert as_json["moved"][0]["partner_a"] == SOURCE.label(6)
    missing = CliRunner().invoke(app, ["compare", str(tmp_path / "a.parquet"), "nothing"])
    assert missing.exit_code == 2
    assert missing.stderr.count("\n") == 1
