"""`advise`: its measurements on real tokenizers, a real model and text, and its rules on given speeds."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import run, run_json
from tiny import tiny_model, tiny_vocabulary, vocabulary_of_unknowns

from tokalign_lab import catalog
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import Document, n_bytes, read_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.advice import LEAST_BYTES, LEAST_SAVED, Advice, Sizes, TextCounts, advise, count_text
from tokalign_lab.evaluation.measured_moves import MeasuredMove, all_moves, expected_loss
from tokalign_lab.evaluation.step_time import StepTime, time_step
from tokalign_lab.model import sizes
from tokalign_lab.model.load import load_outline
from tokalign_lab.model.sizes import check_memory, weights_and_bytes
from tokalign_lab.vocabulary import Vocabulary

ROOT = Path(__file__).parent.parent
SOURCE = "smollm2-135m"


def documents(*slices: str) -> list[Document]:
    """Return about 60 kB of each slice of the default text."""
    return [one for name in slices for one in _of_slice(name)]


def _of_slice(name: str) -> list[Document]:
    found, size = [], 0
    for document in read_documents(["default"], max_bytes=6_000_000):
        if document.slice == name and size < 60_000:
            found.append(replace(document, text=document.text[:20_000]))
            size += n_bytes(found[-1:])
    return found


def step(source: float, target: float, spread: float = 0.0) -> StepTime:
    """Return times in which a generation step takes these seconds with each head."""
    around = [(one * (1 - spread), one, one * (1 + spread)) for one in (source, target)]
    return StepTime(0.0, source, target, *around, steps=2, device="none", dtype="float32")


def judged(text: TextCounts, target: str, times: StepTime, context: int | None = 8192) -> Advice:
    return advise(SOURCE, target, text, times, Sizes(1, 1, 1, 1), context)


@pytest.fixture(scope="module")
def gemma_text(smollm_vocabulary: Vocabulary) -> TextCounts:
    return count_text(tokenize_pair(smollm_vocabulary, catalog.load_vocabulary("gemma3"), documents("ja", "prose")))


@pytest.fixture(scope="module")
def sp32k_prose(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> TextCounts:
    return count_text(tokenize_pair(smollm_vocabulary, sp32k_vocabulary, documents("prose")))


# --- counts -----------------------------------------------------------------------------------------------------


def test_counts_are_those_of_both_tokenizers(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    texts = documents("ja", "prose")
    found = count_text(tokenize_pair(smollm_vocabulary, sp32k_vocabulary, texts))
    ours = {name: [one.text for one in texts if one.slice == name] for name in ("ja", "prose")}
    spelled = {token for token in smollm_vocabulary.token_bytes if token is not None}
    for one in found.slices:
        ids = np.concatenate(sp32k_vocabulary.encode(ours[one.slice]))
        assert one.n_bytes == sum(len(text.encode()) for text in ours[one.slice])
        assert one.source_tokens == sum(map(len, smollm_vocabulary.encode(ours[one.slice])))
        assert one.target_tokens == len(ids)
        new = [sp32k_vocabulary.token_bytes[i] for i in ids if sp32k_vocabulary.token_bytes[i] not in spelled]
        assert (one.new_tokens, one.new_bytes) == (len(new), sum(len(token or b"") for token in new))
    shown = set(np.concatenate(sp32k_vocabulary.encode([one.text for one in texts])).tolist())
    text_tokens = {i for i, token in enumerate(sp32k_vocabulary.token_bytes) if token is not None}
    assert found.unseen == len(text_tokens - shown)
    assert found.all.target_tokens == sum(one.target_tokens for one in found.slices)


def test_text_that_the_target_cannot_spell_is_no_gain() -> None:
    texts = [Document("Люди рождаются свободными. " * 100, "a", "a")]
    found = count_text(tokenize_pair(tiny_vocabulary(300), vocabulary_of_unknowns(), texts))
    assert found.all.target_tokens > found.all.unspelled_bytes > 0.9 * found.all.n_bytes
    assert "has no token for" in judged(found, "unknowns", step(1.0, 1.0)).reason


def test_an_extension_covers_nine_tenths_of_new_token_occurrences(gemma_text: TextCounts) -> None:
    place = next(i for i, one in enumerate(gemma_text.slices) if one.slice == "ja")
    counts = np.sort(gemma_text.of_target[place][gemma_text.is_new])[::-1]
    number = gemma_text.most_used_new(["ja"])
    assert counts[:number].sum() >= 0.9 * counts.sum() > counts[: number - 1].sum()


def test_too_little_text_is_refused(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    few = [Document("A few words.", "a", "a")]
    with pytest.raises(InputError, match=r"no slice of at least 1,000 bytes.*give more text\.$"):
        count_text(tokenize_pair(smollm_vocabulary, sp32k_vocabulary, few))


# --- rules ------------------------------------------------------------------------------------------------------


def test_a_swap_that_saves_no_tokens_is_advised_against(sp32k_prose: TextCounts) -> None:
    advice = judged(sp32k_prose, "sp32k", step(1.0, 0.1))  # a faster head alone does not justify a swap
    assert advice.verdict == "do not swap"
    assert sp32k_prose.slices[0].saved < 0  # docs/results/compression.md: 7 % more tokens in English prose
    assert "more tokens are needed" in advice.reason


def test_a_swap_pays_where_speed_gains_more_than_quality_loses(gemma_text: TextCounts) -> None:
    advice = judged(gemma_text, "gemma3", step(1.0, 1.0))
    by_slice = {one.counts.slice: one for one in advice.slices}
    assert by_slice["ja"].verdict == "pays"  # a third of the tokens, 1.5 times the bits
    assert by_slice["prose"].verdict == "does not pay"
    assert advice.verdict == "swap for some"
    assert "ja" in advice.reason
    gained = 8192 * (by_slice["ja"].counts.n_bytes / by_slice["ja"].counts.target_tokens)
    gained -= 8192 * (by_slice["ja"].counts.n_bytes / by_slice["ja"].counts.source_tokens)
    assert by_slice["ja"].context_gained == round(gained)
    assert judged(gemma_text, "gemma3", step(1.0, 1.0), context=None).total.context_gained is None


def test_one_slice_that_pays_is_enough_to_advise_a_swap(smollm_vocabulary: Vocabulary) -> None:
    pair = tokenize_pair(smollm_vocabulary, catalog.load_vocabulary("gemma3"), documents("ja"))
    assert judged(count_text(pair), "gemma3", step(1.0, 1.0)).verdict == "swap"


def test_tokens_saved_with_a_slow_head_suggest_an_extension(gemma_text: TextCounts) -> None:
    advice = judged(gemma_text, "gemma3", step(1.0, 4.0))
    assert advice.verdict == "extend"
    assert f"{gemma_text.most_used_new(['ja']):,} added tokens" in advice.reason


def test_tokens_saved_by_shared_tokens_alone_suggest_no_change(gemma_text: TextCounts) -> None:
    all_shared = replace(gemma_text, is_new=np.zeros_like(gemma_text.is_new))
    advice = judged(all_shared, "gemma3", step(1.0, 4.0))
    assert advice.verdict == "do not swap"
    assert "no new token there" in advice.reason


def test_a_speedup_that_equals_the_loss_within_its_spread_may_pay(gemma_text: TextCounts) -> None:
    ja = next(one for one in gemma_text.slices if one.slice == "ja")
    loss = expected_loss(SOURCE, "gemma3", "ja", recovered=True)
    surely, hardly = ja.factor / loss.high, ja.factor / loss.low
    cases = ((0.0, 0.99 * surely, "pays"), (0.1, 0.99 * surely, "may pay"), (0.0, 1.01 * hardly, "does not pay"))
    for spread, times, verdict in cases:
        advice = judged(gemma_text, "gemma3", step(1.0, times, spread))
        assert next(one for one in advice.slices if one.counts.slice == "ja").verdict == verdict


def test_a_slice_with_little_text_decides_nothing(smollm_vocabulary: Vocabulary) -> None:
    short = replace(documents("ja")[0], text=documents("ja")[0].text[:100])
    texts = [*documents("prose"), short]
    found = count_text(tokenize_pair(smollm_vocabulary, catalog.load_vocabulary("gemma3"), texts))
    advice = judged(found, "gemma3", step(1.0, 1.0))
    assert {one.counts.slice: one.verdict for one in advice.slices}["ja"] == "too little text"
    assert advice.verdict == "do not swap"


# --- measured losses --------------------------------------------------------------------------------------------


def test_the_packaged_measurements_are_those_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    sys.modules.pop("measured_moves", None)
    import measured_moves

    kept = (ROOT / "tokalign_lab/data/measured_moves.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in kept] == measured_moves.collect()
    raw = (ROOT / "benchmarks/results/recovery.jsonl").read_text(encoding="utf-8").splitlines()
    measured = [line.values() for line in map(json.loads, raw) if "settings" in line]
    printed = {round(value, 4) for values in measured for value in values if isinstance(value, float)}
    for move in all_moves():
        assert (ROOT / move.page).is_file()
        if move.page.endswith("recovery.md"):
            assert {move.start, move.control, move.end} - {None} <= printed


def test_the_nearest_measurement_is_used() -> None:
    ja = expected_loss(SOURCE, "gemma3", "ja", recovered=True)
    assert (ja.basis, ja.this_pair, ja.n, ja.tokens) == ("this pair, this slice", True, 4, (10_000, 30_000))
    assert ja.low == pytest.approx(1.7171 / 1.2949, abs=2e-4)  # benchmarks/results/recovery.jsonl
    assert ja.high == pytest.approx(1.7395 / 1.2949, abs=2e-4)
    assert expected_loss(SOURCE, "gemma3", "ko", recovered=True).basis == "this pair, other slices"
    other = expected_loss(SOURCE, "gpt2", "ja", recovered=True)
    assert (other.basis, other.this_pair, other.n) == ("other pairs, this slice", False, 8)
    assert expected_loss("mine", "yours", "ko", recovered=True).basis == "other pairs, other slices"


def test_a_range_covers_all_runs_found() -> None:
    runs = [MeasuredMove("r", "p", "a", "b", "prose", n, 1.0, 1.0 + n, 1.0, None) for n in (1, 3)]
    found = expected_loss("a", "b", "prose", recovered=False, moves=runs)
    assert (found.low, found.high, found.tokens) == (2.0, 4.0, (1, 3))


# --- sizes and times --------------------------------------------------------------------------------------------


def test_weights_after_the_swap_are_those_of_the_model_that_was_made() -> None:
    outline = load_outline(SOURCE)
    assert weights_and_bytes(outline)[0] == 134_515_008
    new = {name: weights_and_bytes(outline, catalog.load_vocabulary(name).size)[0] for name in ("sp32k", "gemma3")}
    assert {name: round(count / 1e6, 4) for name, count in new.items()} == {
        "sp32k": 143.0675,
        "gemma3": 408.1933,
    }  # docs/results/compression.md, counted in the saved models


def test_a_model_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 1_000_000

    monkeypatch.setattr(sizes.psutil, "virtual_memory", Little)
    with pytest.raises(
        InputError, match=r"'smollm2-135m' and the new head take 0\.\d GB .* but 0\.0 GB are free on cpu"
    ):
        check_memory(SOURCE, load_outline(SOURCE), 32_000, torch.device("cpu"))


def test_a_model_without_a_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama_tied", 300)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    with pytest.raises(InputError, match="'mine' has no output head"):
        check_memory("mine", model, 300, torch.device("cpu"))


def test_a_step_is_timed_with_the_body_and_both_heads() -> None:
    model = tiny_model("llama_tied", 300).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = time_step(model, rows=200_000, steps=8)
    assert found.target_head > found.source_head > 0
    assert found.body > 0
    assert found.source[0] <= found.source[1] <= found.source[2]
    assert found.target[1] > found.source[1]  # 200,000 rows are 700 times as many
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- the command ------------------------------------------------------------------------------------------------


def test_the_verdicts_of_the_command_follow_from_its_figures(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": one.text, "slice": one.slice, "name": one.name}, ensure_ascii=False)
        for one in documents("ja", "prose")
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result = run_json("advise", SOURCE, "sp32k", "--text", tmp_path / "mine.jsonl")
    verdicts = []
    for one in result["slices"]:
        low, middle, high = one["faster"]
        assert middle == pytest.approx(one["target_bytes_per_second"] / one["source_bytes_per_second"])
        assert low <= middle <= high
        loss = one["loss_recovered"]
        pays, may = low >= loss["high"], high >= loss["low"]
        enough = one["saved"] >= LEAST_SAVED
        verdicts.append("pays" if enough and pays else "may pay" if enough and may else "does not pay")
        assert one["verdict"] == verdicts[-1]
        assert one["n_bytes"] >= LEAST_BYTES
        assert loss["runs"]
        assert math.isfinite(one["loss_right_after"]["high"])
    expected = "swap for some" if "pays" in verdicts else "extend"  # ja saves a third of its tokens, prose none
    assert result["verdict"] == expected
    assert result["sizes"]["source_weights"] == 134_515_008
    shown = run("advise", SOURCE, "sp32k", "--text", tmp_path / "mine.jsonl")
    assert shown.returncode == 0
    for words in ("smollm2-135m -> sp32k", "docs/results/recovery.md", "tokens not in the text"):
        assert words in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nobody", "sp32k", "--text", "default"), "nobody"),
        ((SOURCE, "sp32kk", "--text", "default"), "sp32k"),
        ((SOURCE, "sp32k", "--text", "nowhere.txt"), "nowhere.txt"),
        ((SOURCE, "sp32k", "--text", "default", "--device", "abacus"), "abacus"),
        ((SOURCE, "sp32k", "--text", "default", "--max-bytes", "0"), "max_bytes"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], message: str) -> None:
    done = run("advise", *arguments, "--json")
    assert done.returncode == 2
    assert message in json.loads(done.stdout.splitlines()[-1])["error"]
