"""A diagnosis distinguishes good lexicons from bad ones and shows evidence; invalid input ends in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from test_lexicon_scores import map_to_most_frequent
from tiny import WORDS, tiny_model, tiny_tokenizer, tiny_vocabulary
from typer.testing import CliRunner

from tokalign_lab import catalog
from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.export import export_rows
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.alignment.lexicon.shuffle import shuffled
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.cli import app
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.diagnosis import Diagnosis, diagnose
from tokalign_lab.evaluation.finding import MOST_IDS
from tokalign_lab.evaluation.row_findings import untrained_rows
from tokalign_lab.spelling import script_of
from tokalign_lab.vocabulary import Vocabulary, shared_tokens


def made_of(rows: LexiconRows, source: Vocabulary, target: Vocabulary, counts: np.ndarray | None = None) -> Lexicon:
    counts = np.zeros(target.size) if counts is None else counts
    table = rows.to_table(source, target, np.zeros(source.size), counts)
    provenance = make_provenance(source, target, recipe="by hand", parameters={}, seed=0)
    return Lexicon(table, reverse_of(rows, source.size), provenance)


def chosen(source: Vocabulary, target: Vocabulary, sources: np.ndarray) -> Diagnosis:
    """Diagnose a lexicon whose first targets are aligned with these sources."""
    rows = LexiconRows(target.size)
    rows.fill(np.flatnonzero(~target.is_hole), "mean")
    for target_id, source_id in enumerate(sources.tolist()):
        rows.copy(target_id, source_id, "aligned")
    return diagnose(made_of(rows, source, target), source, target)


@pytest.fixture(scope="module")
def alignments(small_pair: TokenizedPair, anchored: Alignment) -> dict[str, Alignment]:
    return {"anchored": anchored, "tokalign": align(small_pair, "tokalign")}


@pytest.fixture(scope="module")
def diagnoses(alignments: dict[str, Alignment], small_pair: TokenizedPair) -> dict[str, Diagnosis]:
    return {
        recipe: diagnose(made.lexicon, small_pair.source, small_pair.target, (made.source_vectors, made.target_vectors))
        for recipe, made in alignments.items()
    }


def test_a_tokenizer_aligned_with_itself_is_good(small_pair: TokenizedPair) -> None:
    source = small_pair.source
    pair = tokenize_pair(source, source, small_pair.documents)
    found = diagnose(align(pair, "pieces").lexicon, source, source)
    assert found.verdict == "good"
    assert found.reasons == []
    assert all(finding.advice == "" for finding in found.findings)


def test_mapping_all_to_the_most_frequent_is_poor_and_the_hub_is_named(small_pair: TokenizedPair) -> None:
    found = diagnose(map_to_most_frequent(small_pair), small_pair.source, small_pair.target)
    assert found.verdict == "poor"
    hubs = found.finding("hubs")
    assert hubs.severity == found.finding("one source for many").severity == "poor"
    assert hubs.values["distinct"] == 1
    assert hubs.values["largest_in_degree"] == small_pair.target.size
    assert hubs.examples == [f"{small_pair.source.label(_most_frequent(small_pair))} × 32,000"]
    assert hubs.evidence in found.reasons
    assert found.findings[0].severity == "poor"


def _most_frequent(pair: TokenizedPair) -> int:
    return int(pair.source_corpus.counts(pair.source.size).argmax())


def test_our_lexicon_is_usable_and_remaining_problems_are_reported(diagnoses: dict[str, Diagnosis]) -> None:
    ours = diagnoses["anchored"]
    assert ours.verdict == "usable"
    for name in ("hubs", "margins", "mutual choice", "one source for many", "rows without a source", "scripts"):
        assert ours.finding(name).severity == "ok", name
    space = ours.finding("white space")  # the source joins a line end with the spaces after it, the target does not
    assert (space.severity, space.values["target_tokens"], space.values["source_tokens"]) == ("warn", 4, 3)
    assert ours.finding("digits").severity == "ok"
    assert ours.finding("coverage").values["partner_of_text"] > 0.9


def test_the_papers_script_shows_its_hubs_and_random_rows(diagnoses: dict[str, Diagnosis]) -> None:
    ours, papers = diagnoses["anchored"], diagnoses["tokalign"]
    assert papers.verdict == "poor"
    assert papers.finding("rows without a source").severity == "poor"
    for name in ("hubs", "mutual choice", "one source for many", "scripts"):
        assert papers.finding(name).severity != "ok", name
    assert papers.finding("hubs").values["top_three"] > 1.5 * ours.finding("hubs").values["top_three"]
    assert papers.finding("vector neighbours").values["share"] < ours.finding("vector neighbours").values["share"] / 2


def test_thresholds_for_hubs_separate_the_matrices_of_the_papers(
    smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
) -> None:
    n, rng = 5000, np.random.default_rng(0)
    # Pythia -> LLaMA3, scaled down: 24.1, 15.4 and 13.2 % on three sources; 6.3 % of the possible sources are used.
    crowded = np.concatenate([np.repeat([100, 101, 102], [1205, 770, 660]), 200 + np.arange(n - 2635) % 312])
    # Pythia -> Qwen2: 57.4 % of the possible sources are used.
    even = 200 + rng.permutation(np.arange(n) % int(0.574 * n))
    assert chosen(smollm_vocabulary, sp32k_vocabulary, crowded).finding("hubs").severity == "poor"
    assert chosen(smollm_vocabulary, sp32k_vocabulary, even).finding("hubs").severity == "ok"


def test_everything_is_plain_json_and_every_warning_recommends_an_action(diagnoses: dict[str, Diagnosis]) -> None:
    for found in diagnoses.values():
        values = found.to_dict()
        assert json.loads(json.dumps(values)) == values
        for finding in found.findings:
            assert (finding.severity == "ok") == (finding.advice == ""), finding.name
            assert finding.evidence.endswith(".")


def test_random_rows_are_poor_where_the_text_uses_them(small_pair: TokenizedPair) -> None:
    for recipe in ("random", "mean", "random-permutation"):
        found = diagnose(align(small_pair, recipe).lexicon, small_pair.source, small_pair.target)
        nothing = found.finding("rows without a source")
        assert (found.verdict, nothing.severity) == ("poor", "poor")
        assert 0.05 < nothing.values["share_of_text"] < 0.3


def test_an_imported_lexicon_has_no_text_counts(tmp_path: Path, alignments: dict[str, Alignment]) -> None:
    source, target = catalog.load_vocabulary("smollm2-135m"), catalog.load_vocabulary("sp32k")
    export_rows(alignments["anchored"].lexicon, tmp_path / "align_matrix.json")
    found = diagnose(Lexicon.from_json(tmp_path / "align_matrix.json", source, target), source, target)
    assert "of the text" not in found.finding("coverage").evidence
    assert "mutual choice" not in {finding.name for finding in found.findings}
    assert found.finding("hubs").values["aligned"] > 30_000


def test_too_little_text_is_reported_with_its_rare_tokens(
    small_pair: TokenizedPair, diagnoses: dict[str, Diagnosis], alignments: dict[str, Alignment]
) -> None:
    text = diagnoses["anchored"].finding("amount of text")
    copied = alignments["anchored"].lexicon.table["origin"].isin(("identical", "role")).sum()
    assert (text.severity, text.values["needing"]) == ("warn", 32_000 - copied)
    assert 0.05 < text.values["seen_share"] < 0.5
    counts = small_pair.target_corpus.counts(small_pair.target.size)
    assert text.target_ids
    assert all(counts[i] < 5 for i in text.target_ids)
    assert counts[text.target_ids[0]] == 4  # the most frequent first


def test_scripts_that_text_or_source_lack_are_named(
    smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary
) -> None:
    rows = LexiconRows(sp32k_vocabulary.size)
    rows.fill(np.arange(sp32k_vocabulary.size), "mean")
    english = [i for i, token in enumerate(sp32k_vocabulary.token_bytes) if token and token.strip().isalpha()]
    counts = np.zeros(sp32k_vocabulary.size, np.int64)
    counts[[i for i in english if (sp32k_vocabulary.token_bytes[i] or b"").isascii()]] = 10
    found = diagnose(made_of(rows, smollm_vocabulary, sp32k_vocabulary, counts), smollm_vocabulary, sp32k_vocabulary)
    text = found.finding("scripts the text lacks")
    assert text.severity == "warn"
    assert {"Cyrillic", "Han", "Hangul"} <= set(text.values["scripts"])
    assert "Latin" not in text.values["scripts"]
    assert found.finding("scripts the source lacks").severity == "ok"  # the text has none of them
    counts[:] = 1
    found = diagnose(made_of(rows, smollm_vocabulary, sp32k_vocabulary, counts), smollm_vocabulary, sp32k_vocabulary)
    assert found.finding("scripts the text lacks").values["tokens"] >= 0
    source = found.finding("scripts the source lacks")
    assert source.severity == "warn"
    assert "Latin" not in source.values["scripts"]
    assert [script_of(sp32k_vocabulary.token_bytes[i] or b"") in source.values["scripts"] for i in source.target_ids]


def test_findings_list_their_tokens(diagnoses: dict[str, Diagnosis], alignments: dict[str, Alignment]) -> None:
    table = alignments["tokalign"].lexicon.table
    papers = diagnoses["tokalign"]
    nothing = papers.finding("rows without a source").target_ids
    assert set(table["origin"].iloc[nothing]) == {"permuted"}
    assert len(nothing) == MOST_IDS
    used = table["target_count"].iloc[nothing].tolist()
    assert used == sorted(used, reverse=True)
    hubs = table.iloc[papers.finding("hubs").target_ids]
    assert hubs["source_id"].nunique() == 3
    assert set(hubs["origin"]) == {"aligned"}
    margins = table["margin"].iloc[papers.finding("margins").target_ids].tolist()
    assert margins == sorted(margins)
    assert papers.finding("vector neighbours").target_ids
    for found in diagnoses.values():
        for finding in found.findings:
            assert finding.target_ids or finding.severity == "ok" or not finding.examples, finding.name


def test_digits_that_are_split_differently_are_a_warning(smollm_vocabulary: Vocabulary) -> None:
    gpt2 = catalog.load_vocabulary("gpt2")
    digits = chosen(smollm_vocabulary, gpt2, np.zeros(0, np.int64)).finding("digits")
    assert digits.severity == "warn"
    assert digits.values["source_tokens"] == 10 > digits.values["target_tokens"]


def test_chat_tokens_without_a_source_are_named() -> None:
    source = tiny_vocabulary(300)
    tokenizer = tiny_tokenizer(300, bos="<|turn|>", template="{{ '<|turn|>' }}{{ messages[0]['content'] }}")
    target = Vocabulary.from_tokenizer(tokenizer, "chat")
    special = chosen(source, target, np.zeros(0, np.int64)).finding("special tokens")
    assert special.severity == "warn"
    assert special.values == {"unmatched": 2, "roles": ["bos", "eos"], "chat": ["<|turn|>"]}


def padded_model(vocabulary: Vocabulary, untrained: list[int], zero: list[int]) -> torch.nn.Module:
    """Make a model with 20 padding rows, tokens that share the row of padding, and rows of zeros."""
    model = tiny_model("llama", vocabulary.size + 20)
    noise = torch.Generator().manual_seed(1)
    hidden = model.get_output_embeddings().weight.shape[1]
    with torch.no_grad():
        unused = [*range(vocabulary.size, vocabulary.size + 20), *untrained]
        somewhere = torch.randn(hidden, generator=noise)
        model.get_output_embeddings().weight[unused] = somewhere + 0.01 * torch.randn(
            len(unused), hidden, generator=noise
        )
        model.get_input_embeddings().weight[zero] = 0
    return model


def test_rows_built_from_padding_untrained_and_zero_rows_are_found() -> None:
    source, target = tiny_vocabulary(300), tiny_vocabulary(290)
    model = padded_model(source, untrained=[50, 60], zero=[70])
    found = untrained_rows(source, model.get_output_embeddings().weight)
    # Bytes that never occur in UTF-8 count as unused, but have random rows here: only the other rows are found.
    assert np.flatnonzero(found).tolist() == [50, 60, *range(source.size, source.size + 20)]

    rows = LexiconRows(target.size)
    rows.fill(np.arange(target.size), "mean")
    for target_id in range(target.size):
        rows.copy(target_id, 80 + target_id % 200, "identical")
    rows.copy(5, 50, "aligned")
    rows.mix(6, [60, 61], [0.7, 0.3], "aligned")
    rows.mix(7, [60, 61], [0.2, 0.8], "aligned")  # mostly from trained rows
    rows.copy(8, 70, "aligned")
    lexicon = made_of(rows, source, target)
    without = diagnose(lexicon, source, target)
    assert {"zero rows", "untrained rows"}.isdisjoint(finding.name for finding in without.findings)
    found = diagnose(lexicon, source, target, model=model)
    assert found.finding("untrained rows").values["tokens"] == 2
    assert found.finding("zero rows").values["tokens"] == 1
    assert found.finding("padding rows").severity == "ok"
    rows.sources[9] = np.array([source.size + 3], np.int32)
    found = diagnose(made_of(rows, source, target), source, target, model=model)
    assert found.finding("padding rows").values["tokens"] == 1
    assert found.finding("padding rows").severity == "warn"
    counts = np.ones(target.size, np.int64)
    counts[8] = 1000
    assert diagnose(made_of(rows, source, target, counts), source, target, model=model).verdict == "poor"


def test_random_rows_are_not_reported_as_untrained(smollm_vocabulary: Vocabulary) -> None:
    vocabulary = tiny_vocabulary(300)
    assert vocabulary.id_of_bytes(b"\xc0") is not None  # unused in UTF-8, but its row is as random as the others
    assert not untrained_rows(vocabulary, tiny_model("llama", 300).get_output_embeddings().weight).any()
    assert untrained_rows(smollm_vocabulary, torch.zeros(smollm_vocabulary.size, 2)) is None  # it has no such bytes


def test_vectors_and_models_of_other_tokenizers_are_refused(
    alignments: dict[str, Alignment], small_pair: TokenizedPair
) -> None:
    source, target = small_pair.source, small_pair.target
    made = alignments["anchored"]
    with pytest.raises(InputError, match="made for the source tokenizer"):
        diagnose(made.lexicon, target, source)
    with pytest.raises(InputError, match="source vectors are not of the tokenizer"):
        diagnose(made.lexicon, source, target, vectors=(made.target_vectors, made.source_vectors))
    with pytest.raises(InputError, match="The model has 300 rows"):
        diagnose(made.lexicon, source, target, model=tiny_model("llama", 300))


def test_the_command_prints_verdict_and_evidence(tmp_path: Path, small_pair: TokenizedPair) -> None:
    path = tmp_path / "bad.parquet"
    map_to_most_frequent(small_pair).save(path)
    plain = CliRunner().invoke(app, ["diagnose", str(path)])
    assert plain.exit_code == 0
    assert plain.stdout.splitlines()[0].endswith(": poor")
    assert "poor  hubs: 32,000 aligned tokens chose 1 different source" in plain.stdout
    as_json = CliRunner().invoke(app, ["diagnose", str(path), "--json"])
    assert json.loads(as_json.stdout.splitlines()[-1])["verdict"] == "poor"


def test_the_command_checks_the_converted_model(tmp_path: Path) -> None:
    moved, path, text = tmp_path / "moved", tmp_path / "l.parquet", tmp_path / "text.txt"
    tokenizer = tiny_tokenizer(300, bos="<s>")
    tokenizer.save_pretrained(moved)
    vocabulary = Vocabulary.from_tokenizer(tokenizer, str(moved))
    tiny_model("llama", vocabulary.size).save_pretrained(moved)
    rows = LexiconRows(vocabulary.size)
    rows.fill(np.flatnonzero(~vocabulary.is_hole), "mean")
    made_of(rows, vocabulary, vocabulary).save(path)
    text.write_text(WORDS * 40, encoding="utf-8")
    done = CliRunner().invoke(app, ["diagnose", str(path), "--moved", str(moved), "--text", str(text), "--json"])
    findings = {one["name"]: one for one in json.loads(done.stdout.splitlines()[-1])["findings"]}
    assert {"lengths of new rows", "wrong predictions"} <= findings.keys()
    assert findings["breaker tokens"]["severity"] == "ok"
    assert findings["breaker tokens"]["values"]["contexts"] > 0
    for size, code in ((300, 0), (290, 2)):  # a chat model also keeps its control tokens; another tokenizer
        other = tmp_path / f"other-{size}"
        shutil.copytree(moved, other)
        added = tiny_tokenizer(size, bos="<s>")
        added.add_tokens(["<kept>"], special_tokens=True)
        added.save_pretrained(other)
        found = CliRunner().invoke(app, ["diagnose", str(path), "--moved", str(other), "--text", str(text)])
        assert found.exit_code == code
        assert ("has another tokenizer" in found.stderr) == (code == 2)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "other parquet"])
def test_a_damaged_lexicon_ends_in_one_sentence(damage: str, tmp_path: Path, small_pair: TokenizedPair) -> None:
    import pandas as pd

    path = tmp_path / "l.parquet"
    if damage == "cut":
        map_to_most_frequent(small_pair).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "other parquet":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    elif damage != "missing":
        path.write_text("" if damage == "empty" else "no lexicon at all", encoding="utf-8")
    for command in (["diagnose"], ["score", "--text", "default"]):
        done = CliRunner().invoke(app, [command[0], str(path), *command[1:]])
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        assert "l.parquet" in done.stderr


def test_shared_tokens_with_the_row_of_another_are_found(
    small_pair: TokenizedPair, alignments: dict[str, Alignment]
) -> None:
    source, target = small_pair.source, small_pair.target
    whole = alignments["anchored"].lexicon
    assert diagnose(whole, source, target).finding("shared tokens").values["astray"] == 0
    spoiled = shuffled(whole, 0.3)
    found = diagnose(spoiled, source, target)
    assert (found.verdict, found.finding("shared tokens").severity) == ("poor", "poor")
    moved = set(np.flatnonzero(spoiled.table["source_id"] != whole.table["source_id"]).tolist())
    assert set(found.finding("shared tokens").target_ids) <= moved
    share = found.finding("shared tokens").values["astray"] / found.finding("shared tokens").values["shared"]
    assert 0.2 < share < 0.3  # a few shuffled rows get their own source again, and roles are not shuffled


def test_pairs_edited_by_hand_are_no_finding(small_pair: TokenizedPair) -> None:
    source, target = small_pair.source, small_pair.target
    shared = shared_tokens(source, target)
    rows = LexiconRows(target.size)
    for target_id, source_id in zip(shared.target_ids.tolist(), shared.source_ids.tolist(), strict=True):
        rows.copy(target_id, source_id, "identical")
    first, second = shared.target_ids[:2].tolist()
    rows.copy(first, int(shared.source_ids[1]), "edited")
    rows.copy(second, int(shared.source_ids[0]), "identical")
    assert diagnose(made_of(rows, source, target), source, target).finding("shared tokens").target_ids == [second]
