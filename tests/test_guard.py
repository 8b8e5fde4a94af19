from __future__ import annotations

import math
from pathlib import Path

import pytest

from tokalign_lab import load_model, load_vocabulary
from tokalign_lab.adaptation.guard import Guard, Measured
from tokalign_lab.adaptation.probes import all_probes, answered, ask
from tokalign_lab.runs.folding import view_of
from tokalign_lab.runs.words import status_words


def followed(folder: Path, *measured: tuple[float, float], patience: int = 3) -> Guard:
    guard = Guard(folder, patience)
    for number, (bits, share) in enumerate(measured):
        guard.add(Measured(10 * number, bits, share))
    return guard


def test_the_lowest_bits_are_kept(tmp_path: Path) -> None:
    guard = followed(tmp_path, (2.0, 0.6), (1.8, 0.7), (1.9, 0.7))
    assert (guard.best.step, guard.reason) == (10, "")
    assert guard.verdict == "Step 10 of 20 is kept: it is better on held-out text."


def test_a_step_that_forgets_is_not_kept_and_a_second_one_ends_the_run(tmp_path: Path) -> None:
    guard = followed(tmp_path, (2.0, 0.8), (1.9, 0.9), (1.8, 0.75))
    assert (guard.best.step, guard.reason) == (10, "")
    forgets = (
        "the model forgets more than it learns from this text; it answers 75% of the probes, and it answered 90% at "
        "step 10."
    )
    assert guard.verdict == f"Step 10 of 20 is kept: {forgets}"
    guard.add(Measured(30, 1.7, 0.75))
    assert guard.best.step == 10
    assert guard.reason.startswith(f"Stopped at step 30: {forgets} Step 10 is kept.")


def test_a_few_lost_probes_do_not_discard_a_run_that_learns(tmp_path: Path) -> None:
    guard = followed(tmp_path, (1.843, 57 / 85), (1.706, 52 / 85))  # measured: 50 steps of the default text
    assert (guard.best.step, guard.verdict) == (10, "")


def test_a_step_that_learns_more_than_it_forgets_is_kept(tmp_path: Path) -> None:
    turkish = ((2.113, 0.988), (1.883, 0.847), (1.805, 0.882))  # measured: an extended tokenizer, Turkish text alone
    guard = followed(tmp_path, *turkish)
    assert (guard.best.step, guard.reason) == (20, ""), "11 % of the probes lost, 15 % of bits per byte gained"
    guard.add(Measured(30, 1.8, 0.7))
    assert (guard.best.step, guard.reason) == (20, "")
    guard.add(Measured(40, 1.79, 0.7))
    assert "it answers 70% of the probes, and it answered 99% at step 0. Step 20 is kept." in guard.reason


def test_a_run_without_improvement_ends(tmp_path: Path) -> None:
    guard = followed(tmp_path, (2.0, 0.8), (1.8, 0.8), (1.85, 0.8), (1.799, 0.8), (1.81, 0.8))
    assert (
        guard.reason
        == "Stopped at step 40: held-out text has not improved over the last 3 measurements; step 30 is kept."
    )


def test_without_patience_the_last_step_is_kept_and_nothing_ends_the_run(tmp_path: Path) -> None:
    guard = followed(tmp_path, (2.0, 0.8), (1.8, 0.9), (1.9, 0.1), (1.9, 0.1), (1.9, 0.1), patience=0)
    assert (guard.best.step, guard.reason) == (40, "")


def test_without_probes_held_out_text_decides(tmp_path: Path) -> None:
    guard = followed(tmp_path, (2.0, math.nan), (1.8, math.nan), (1.9, math.nan))
    assert (guard.best.step, guard.reason) == (10, "")


def test_a_resumed_run_continues_from_the_same_measurements(tmp_path: Path) -> None:
    followed(tmp_path, (2.0, 0.8), (1.8, 0.8), (1.7, 0.8))
    again = Guard(tmp_path, 3, step=10)
    assert [one.step for one in again.measured] == [0, 10]
    assert Guard(tmp_path, 3).measured == []


@pytest.fixture(scope="module")
def source():
    return load_model("smollm2-135m", device="cpu"), load_vocabulary("smollm2-135m")


def test_the_source_model_answers_many_probes_and_a_damaged_model_few(source) -> None:
    model, vocabulary = source
    known = answered(model, vocabulary, all_probes())
    assert len(known) >= 70
    assert all(ask(model, vocabulary, known[::-2]))
    assert not model.training
    weight = model.get_input_embeddings().weight
    before = weight.detach().clone()
    weight.data = weight.data.roll(1, dims=0)
    try:
        damaged = ask(model, vocabulary, known[::3])
    finally:
        weight.data = before
    assert sum(damaged) < 0.1 * len(damaged)


def test_a_run_reports_what_it_forgets(tmp_path: Path) -> None:
    reason = "Stopped at step 4: it forgets."
    events = [
        {"kind": "step", "step": 4, "loss": 2.0},
        {"kind": "evaluation", "step": 2, "bits_per_byte": 1.5, "probes_answered": 0.9, "probes_lost": []},
        {"kind": "evaluation", "step": 4, "bits_per_byte": 1.4, "probes_answered": 0.8, "probes_lost": ["Bees make"]},
        {"kind": "kept", "step": 2, "last_step": 4, "reason": reason},
    ]
    view = view_of(events, total_steps=8)
    assert view.answered.column("probes").tolist() == [0.9, 0.8]
    assert (view.lost[4], view.kept) == (("Bees make",), reason)
    words = status_words({"state": "finished"}, view)
    assert words.endswith(f" · {reason}")
