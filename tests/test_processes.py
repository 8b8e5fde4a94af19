"""Tuning on two processes, as real processes on one machine (gloo)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from tiny import WORDS, save_tiny

from tokalign_lab.errors import InputError
from tokalign_lab.model.load import load_model
from tokalign_lab.runs import control
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.kinds import run_kind
from tokalign_lab.runs.process import launcher
from tokalign_lab.runs.worker import RunContext

ROOT = Path(__file__).parent.parent

# In float32; gradients are averaged over processes in another order than over the rows of one batch.
TOLERANCE = 1e-5
WAIT_S = 600.0  # enough on a busy machine


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number}. {WORDS}" for number in range(40)), encoding="utf-8")
    return {
        "recipe": "papers",  # two stages; a sharded model keeps no best step and has no --head-floor
        "model": str(save_tiny(tmp_path / "tiny")),
        "text": [str(text)],
        "steps": 6,
        "sequence_length": 16,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate_stage1": 1e-2,
        "save_every": 2,
        "evaluate_bytes": 200,
        "held_out_share": 0.2,
        "prompts": [],
        "device": "cpu",
    }


def tuned_here(settings: dict[str, Any], folder: Path) -> RunFolder:
    """Tune in this process, which has torch already: the reference for several processes."""
    run = RunFolder.create(folder, "adapt", settings)
    run_kind("adapt", settings, RunContext(run, resume=False))
    return run


def losses(run: RunFolder) -> list[float]:
    return [event["loss"] for event in run.curve()]


def same_weights(first: Path, second: Path) -> None:
    one, two = (load_model(str(folder / "model"), device="cpu").state_dict() for folder in (first, second))
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(("recipe", "k"), [("papers", None), ("recover", 0), ("papers", 8)])
def test_two_processes_equal_one_with_the_same_global_batch(
    settings: dict[str, Any], tmp_path: Path, recipe: str, k: int | None
) -> None:
    """A teacher runs live if `k` is 0; if it is None, there is no teacher."""
    settings["recipe"], parts = recipe, ["loss"]
    if k is not None:
        settings |= {"teacher": str(save_tiny(tmp_path / "teacher", "gemma3", seed=5)), "distillation_top_k": k}
        settings |= {"distillation_share": 0.6, "cross_documents": False}
        parts += ["next_token", "divergence"]
    one = tuned_here(settings, tmp_path / "one")
    two = control.start("adapt", {**settings, "batch_size": 1, "processes": 2}, tmp_path / "two")
    assert two.wait(timeout=WAIT_S) == "finished", two.log_tail(60)
    for name, tolerance in [*((part, TOLERANCE) for part in parts), ("grad_norm", 1e-4)]:
        first, second = ([event[name] for event in run.curve()] for run in (one, two))
        assert second == pytest.approx(first, rel=tolerance), name
    same_weights(one.path, two.path)
    events, _ = two.events()
    assert [event["step"] for event in events if event["kind"] == "step"] == [1, 2, 3, 4, 5, 6], (
        "each step is reported once"
    )
    assert {event["tokens"] for event in events if event["kind"] == "step"} == {64 * step for step in range(1, 7)}


def test_two_processes_stop_together_and_resume(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"steps": 400, "processes": 2, "save_every": 1000, "stage1_share": 1.0}
    run = control.start("adapt", settings, tmp_path / "run")
    wait_for_step(run, 4)
    run.request_pause()  # unlike cancel, it has no grace period, which may be too short on a busy machine
    assert run.wait(timeout=WAIT_S) == "paused", run.log_tail()
    reached = len(losses(run))
    (kept,) = (run.path / "checkpoints").glob("stage1/checkpoint-*/.checksums.json")
    assert kept.parent.name == f"checkpoint-{reached}", "finished steps are kept"
    run.resume()
    wait_for_step(run, reached + 4)
    assert [event["step"] for event in run.events()[0] if event["kind"] == "resumed"] == [reached]
    run.request_cancel()
    assert run.wait(timeout=WAIT_S) == "cancelled", run.log_tail()


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings that shard a model over two CPU processes, by the configuration for eight GPUs in configs/."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "fsdp_on_cpu"))
    whole = yaml.safe_load((ROOT / "configs" / "gpu8_fsdp.yaml").read_text(encoding="utf-8"))
    config = tmp_path / "fsdp.yaml"
    config.write_text(yaml.safe_dump({**whole, "num_processes": 2, "mixed_precision": "no"}), encoding="utf-8")
    return {"batch_size": 1, "accelerate_config": str(config)}


@pytest.mark.parametrize("kind", ["llama", "tied and taught"])
def test_a_sharded_model_is_tuned_like_an_unsharded_one(
    settings: dict[str, Any], sharded: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    if kind == "tied and taught":
        settings |= {"teacher": str(save_tiny(tmp_path / "teacher", "gemma3", seed=5)), "gradient_checkpointing": True}
        settings["model"] = str(save_tiny(tmp_path / "tied", "llama_tied"))
    one = tuned_here({**settings, "steps": 4}, tmp_path / "one")
    two = control.start("adapt", {**settings, "steps": 4, **sharded}, tmp_path / "two")
    assert two.wait(timeout=WAIT_S) == "finished", two.log_tail(60)
    assert [event["processes"] for event in two.events()[0] if event["kind"] == "device"] == [2]
    assert losses(two) == pytest.approx(losses(one), rel=TOLERANCE)
    measured = [[e["bits_per_byte"] for e in run.events()[0] if e["kind"] == "evaluation"] for run in (one, two)]
    assert measured[1] == pytest.approx(measured[0], rel=TOLERANCE)
    same_weights(one.path, two.path)


def test_a_sharded_model_resumes_after_kills(settings: dict[str, Any], sharded: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"steps": 40, "save_every": 3}
    whole = tuned_here(settings, tmp_path / "whole")
    settings |= sharded
    run = control.start("adapt", settings, tmp_path / "run")
    wait_for_step(run, 8)
    first = psutil.Process(run.info()["pid"])
    (second,) = (process for process in first.parent().children() if process != first)
    second.kill()
    assert run.wait(timeout=WAIT_S) in ("failed", "lost"), "the first process does not continue alone"
    run.resume()
    wait_for_step(run, 20)
    os.killpg(run.info()["pid"], signal.SIGKILL)
    assert run.wait(timeout=WAIT_S) == "lost"
    run.resume()
    assert run.wait(timeout=WAIT_S) == "finished", run.log_tail(60)
    after_one, after_both = [event["step"] for event in run.events()[0] if event["kind"] == "resumed"]
    assert 6 <= after_one < 20
    assert 18 <= after_both < 40
    assert losses(run) == pytest.approx(losses(whole), rel=TOLERANCE)
    same_weights(whole.path, run.path)


def wait_for_step(run: RunFolder, step: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while len(losses(run)) < step:
        assert time.monotonic() < deadline, run.log_tail(60)
        time.sleep(0.02)


def test_invalid_launcher_settings_are_refused(tmp_path: Path) -> None:
    assert launcher({}) == launcher({"processes": 1}) == []
    for wrong in (0, 1.5, "two", True):
        with pytest.raises(InputError, match=r"processes (is|must be)"):
            control.start("adapt", {"model": "m", "text": ["t"], "processes": wrong}, tmp_path / "run")
    with pytest.raises(InputError, match="no accelerate configuration 'nowhere'"):
        control.start("adapt", {"model": "m", "text": ["t"], "accelerate_config": "nowhere"}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_accelerate_reads_the_configurations() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    files = sorted((ROOT / "configs").glob("*.yaml"))
    assert [file.name for file in files] == ["gpu8.yaml", "gpu8_fsdp.yaml", "nodes2_fsdp.yaml"]
    for file in files:
        config = load_config_from_file(str(file))
        assert config.num_processes == 8 * config.num_machines
        assert ("FSDP" in str(config.distributed_type)) == ("fsdp" in file.name)
