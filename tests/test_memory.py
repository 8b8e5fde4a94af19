"""The memory of tuning, estimated before it begins: the estimate, the limit, and the proposed settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import run
from tiny import save_tiny

from tokalign_lab.adaptation import memory
from tokalign_lab.adaptation.memory import GB, ModelSize, check_memory, device_memory, tuning_memory
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.model.load import load_model
from tokalign_lab.runs.folder import RunFolder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def smollm() -> ModelSize:
    return ModelSize.of("smollm2-135m")


def need(size: ModelSize, **settings: Any) -> float:
    return tuning_memory(size, AdaptSettings(**settings)).bytes


def test_the_size_of_a_model_is_that_of_its_weights(smollm: ModelSize) -> None:
    assert smollm == ModelSize(weights=134_515_008, row_weights=49_152 * 576, layers=30, hidden=576, inner=1536)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "bloom", "gemma3", "phi3", "gpt_neox"])
def test_every_kind_of_model_has_a_size(kind: str, tmp_path: Path) -> None:
    size = ModelSize.of(str(save_tiny(tmp_path, kind)))
    model = load_model(str(tmp_path), device=CPU)
    assert size.weights == sum(one.numel() for one in model.parameters())
    assert 0 < size.row_weights <= size.weights
    assert min(size.layers, size.hidden, size.inner) > 0


def test_a_model_that_is_not_a_causal_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dance"}')
    with pytest.raises(InputError, match="cannot be loaded"):
        ModelSize.of(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "measured"),
    [  # benchmarks/tuning_memory.py
        ({"batch_size": 4, "sequence_length": 128}, 3.6),
        ({"batch_size": 8, "sequence_length": 256}, 6.3),
        ({"batch_size": 2, "sequence_length": 1024, "gradient_checkpointing": True}, 4.0),
    ],
)
def test_the_estimate_is_within_a_factor_of_two_of_the_measurement(
    smollm: ModelSize, settings: dict[str, Any], measured: float
) -> None:
    assert measured / 2 < need(smollm, **settings) / GB < measured * 2


def test_larger_batches_and_sequences_take_more_memory(smollm: ModelSize) -> None:
    plain = need(smollm)
    assert need(smollm, batch_size=8) > plain
    assert need(smollm, gradient_accumulation_steps=8) == plain
    assert need(smollm, gradient_checkpointing=True) < plain
    assert need(smollm, stage1_share=1.0) < plain - 8 * (smollm.weights - smollm.row_weights)
    assert tuning_memory(smollm, AdaptSettings(), helper_weights=10**9).bytes == plain + 4e9
    assert tuning_memory(smollm, AdaptSettings(), sharded=True).bytes < plain - 15 * smollm.weights


def test_settings_that_do_not_fit_are_refused_and_the_proposed_ones_fit() -> None:
    settings = AdaptSettings(batch_size=512, sequence_length=2048)
    with pytest.raises(InputError, match=r"needs about 19\d\d GB of memory, but the bound is 20 GB") as raised:
        check_memory("smollm2-135m", settings, CPU, limit=20)
    numbers = re.search(r"batch_size (\d+) and gradient_accumulation_steps (\d+) take", str(raised.value))
    assert numbers is not None
    batch, accumulated = int(numbers[1]), int(numbers[2])
    assert batch * accumulated == 512
    fits = AdaptSettings(batch_size=batch, gradient_accumulation_steps=accumulated, sequence_length=2048)
    check_memory("smollm2-135m", fits, CPU, limit=20)
    with pytest.raises(InputError, match="needs about"):  # two processes need twice as much
        check_memory("smollm2-135m", fits, CPU, limit=20, processes=2)
    with pytest.raises(InputError, match="batch_size 1, gradient_checkpointing and gradient_accumulation_steps 512"):
        check_memory("smollm2-135m", settings, CPU, limit=3.8)
    with pytest.raises(InputError, match="without any text it needs"):
        check_memory("smollm2-135m", settings, CPU, limit=2)
    check_memory("smollm2-135m", settings, CPU, limit=10_000)


def test_the_memory_limit_of_a_container_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = device_memory(CPU)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    for part in ("", "memory"):  # both versions of cgroups
        (tmp_path / part).mkdir(exist_ok=True)
    names = [tmp_path / "memory.max", tmp_path / "memory" / "memory.limit_in_bytes"]
    for file in names:
        file.write_text("max\n" if file is names[0] else str(2**63 - 4096))
    assert device_memory(CPU) >= whole
    for file in names:
        file.write_text("123456789\n")
    assert device_memory(CPU) == 123456789


def test_the_command_refuses_before_a_run_is_made(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A line of text.\n" * 200)
    command = ["adapt", "smollm2-135m", "--text", "text.txt", "--run", "run"]
    command += ["--batch-size", "512", "--sequence-length", "2048", "--memory", "20"]
    done = run(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "batch_size 4 and gradient_accumulation_steps 128" in done.stderr
    assert not (tmp_path / "run").exists()
    # A prepared run may run on a larger machine.
    done = run(*command, "--prepare", cwd=tmp_path)
    assert done.returncode == 0
    prepared = RunFolder(tmp_path / "run")
    assert prepared.info()["settings"]["memory"] == 20
    prepared.start(timeout=300)
    assert prepared.wait(timeout=300) == "failed"
    assert prepared.info()["bad_input"]
    assert "the bound is 20 GB" in prepared.info()["error"]
