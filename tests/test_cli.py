"""The command line as used by other programs: exit codes, and the last line of standard output."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model
from typer.testing import CliRunner

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.cli import app
from tokalign_lab.doctor import examine
from tokalign_lab.documents import n_bytes, read_documents, split_documents
from tokalign_lab.vocabulary import Vocabulary

LINES = "The cat sat on the mat and looked at the dog.\ndef add(a, b):\n    return a + b\n"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object, cwd: Path | None = None) -> Done:
    """Run a command in this process, because importing torch for each one would take minutes."""
    with contextlib.chdir(cwd or "."):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def run_json(*arguments: object, cwd: Path | None = None) -> dict[str, Any]:
    done = run(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, smollm_vocabulary: Vocabulary) -> Path:
    """A folder with a small text and a tiny random model with SmolLM2's vocabulary (for the mechanics only)."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(LINES * 200, encoding="utf-8")
    tiny_model("llama_tied", smollm_vocabulary.size).save_pretrained(folder / "tiny")
    smollm_vocabulary.tokenizer.save_pretrained(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def lexicon(work: Path) -> Path:
    result = run_json("align", "tiny", "sp32k", "--text", "text.txt", "--out", "l.parquet", "--seed", "1", cwd=work)
    assert result["target_size"] == 32_000
    assert sum(result["origins"].values()) == 32_000
    assert result["recipe"] == "anchored"  # the default recipe
    return work / "l.parquet"


def test_align_takes_the_options_overlap_and_one_to_one(work: Path) -> None:
    options = ("--recipe", "tokalign-vanilla", "--overlap", "bytes", "--one-to-one")
    result = run_json("align", "tiny", "sp32k", "--text", "text.txt", "--out", "one.parquet", *options, cwd=work)
    assert result["origins"]["identical"] == 21_873  # by bytes; the recipe's default is by string
    table = Lexicon.load(work / "one.parquet").table
    assert table["source_id"][table["origin"] == "aligned"].is_unique


@pytest.fixture(scope="module")
def rearranged(work: Path, lexicon: Path) -> Path:
    """A padded model, so that later commands see more rows than tokens."""
    result = run_json("rearrange", "tiny", lexicon, "--out", "moved", "--pad-to-multiple-of", "1001", cwd=work)
    assert result["vocab_size"] == 32_032
    assert result["streamed"] is True
    return work / "moved"


def test_overlap() -> None:
    result = run_json("overlap", "pythia", "qwen2")
    assert result["raw"] == {"count": 40_827, "share": pytest.approx(0.2692, abs=5e-5)}
    assert result["target_size"] == 151_646
    assert result["bytes"]["count"] == 40_827


def test_results_are_on_stdout_and_errors_on_stderr() -> None:
    command = [sys.executable, "-m", "tokalign_lab", "overlap", "gpt2", "sp32k", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout)["target_size"] == 32_000
    command[4:6] = ["gpt2", "nobody"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nobody" in done.stderr


def test_assets_are_listed_with_size_and_licence() -> None:
    rows = {row["name"]: row for row in run_json("assets", "list")["assets"]}
    assert rows["smollm2-135m"]["licence"] == "Apache-2.0"
    assert rows["smollm2-135m"]["cached"] is True
    names = "smollm2-135m gemma-3-270m minilm pythia qwen2 llama3 sp32k tekken gpt2 gemma3 deepseek default"
    assert set(names.split()) <= set(rows)


def test_a_cached_asset_is_found_without_a_network() -> None:
    (path,) = run_json("assets", "get", "sp32k")["paths"].values()
    assert (Path(path) / "tokenizer.json").is_file()


def test_a_lexicon_is_scored(work: Path, lexicon: Path) -> None:
    result = run_json("score", lexicon, "--text", "text.txt", cwd=work)
    for direction in ("target_to_source", "source_to_target"):
        assert 0.5 < result["bleu1"][direction] <= 1
        assert 0.5 < result["sentence_score"][direction] <= 1.0001
    assert sum(result["coverage_types"].values()) == pytest.approx(1)
    kept = Lexicon.load(lexicon).provenance["scores"]  # for the card of a model made from it
    assert kept["bleu1"] == result["bleu1"]
    assert set(kept) == {"bleu1", "sentence_score", "bert_score", "documents", "sentences", "encoder"}


def test_bits_per_byte_count_every_byte(work: Path, rearranged: Path) -> None:
    result = run_json("bpb", rearranged, "--text", "text.txt", cwd=work)
    held_out = split_documents(read_documents([work / "text.txt"]))[1]
    assert result["bytes"] == n_bytes(held_out)
    assert 0.03 < result["bytes"] / (len(LINES) * 200) <= 0.05  # cut at a line end
    assert result["bits_per_byte"] > 0


def test_a_run_is_adapted_listed_and_watched(work: Path, rearranged: Path) -> None:
    size = ("--batch-size", "2", "--sequence-length", "16", "--seed", "3")
    result = run_json("adapt", rearranged, "--text", "text.txt", "--run", "runs/a", "--steps", "4", *size, cwd=work)
    assert result["state"] == "finished"
    folder = work / "runs" / "a"
    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert info["state"] == "finished"
    assert isinstance(info["pid"], int)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["kind"] == "step"]
    assert [(event["step"], event["stage"]) for event in steps] == [(1, 2), (2, 2), (3, 2), (4, 2)]  # no first stage
    assert all(event["loss"] > 0 for event in steps)
    assert [row["name"] for row in run_json("runs", "list", cwd=work)["runs"]] == ["a"]
    assert run_json("runs", "watch", "a", cwd=work)["steps"] == 4
    assert run("runs", "resume", "a", cwd=work).returncode == 2  # finished: nothing to resume
    assert (folder / "model" / "config.json").is_file()
    more = ("--gradient-accumulation-steps", "2", "--mix", "prose=2", "--documents-apart", "--device", "cpu")
    made = run_json(
        "adapt", rearranged, "--text", "text.txt", "--run", "runs/c", "--steps", "2", *more, "--prepare", cwd=work
    )
    assert made["state"] == "queued"
    settings = json.loads((work / "runs" / "c" / "run.json").read_text(encoding="utf-8"))["settings"]
    assert settings["mix"] == {"prose": 2.0}
    assert settings["cross_documents"] is False
    again = run("adapt", rearranged, "--text", "text.txt", "--run", "runs/a", "--steps", "4", cwd=work)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr


def test_a_run_is_cancelled_and_resumed(work: Path, rearranged: Path) -> None:
    size = ("--batch-size", "1", "--sequence-length", "16")
    begun = run_json(
        "adapt", rearranged, "--text", "text.txt", "--run", "runs/b", "--steps", "4000", *size, "--detach", cwd=work
    )
    assert begun["state"] == "running"
    assert run_json("runs", "pause", "b", cwd=work)["state"] == "paused"
    assert run_json("runs", "resume", "b", "--detach", cwd=work)["state"] == "running"
    assert run_json("runs", "cancel", "b", cwd=work)["state"] == "cancelled"
    again = run_json("runs", "again", "b", "--set", "steps=2", "--name", "short", cwd=work)
    assert (again["state"], again["steps"], again["title"]) == ("finished", 2, "short")
    assert "no setting 'stps'" in run("runs", "again", "b", "--set", "stps=2", cwd=work).stderr
    assert run_json("runs", "rename", "b", "long", cwd=work)["title"] == "long"
    run_json("runs", "delete", "long", cwd=work)
    assert run_json("runs", "trash", cwd=work)["runs"] == ["long"]
    assert run_json("runs", "restore", cwd=work)["name"] == "b"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("overlap", "pythia", "qwen7"), "qwen2"),
        (("overlap", "pythia", "no/such/folder/at/all"), "no/such/folder"),
        (("align", "pythia", "qwen2", "--text", "nowhere.txt", "--out", "x.parquet"), "nowhere.txt"),
        (("align", "pythia", "qwen2", "--text", "text.txt", "--out", "x.json"), ".parquet"),
        (("align", "pythia", "qwen2", "--text", "text.txt", "--out", "x.parquet", "--recipe", "magic"), "magic"),
        (("align", "pythia", "qwen2", "--text", "text.txt", "--out", "x.parquet", "--overlap", "words"), "'words'"),
        (("align", "pythia", "qwen2", "--text", "text.txt", "--out", "x.parquet", "--recipe", "omp"), "source model"),
        (("align", "pythia", "qwen2", "--text", "text.txt", "--out", "x.parquet", "--one-to-one"), "one-to-one"),
        (("align", "pythia", "qwen2", "--text", "text.txt", "--out", "x.parquet", "--model", "tiny"), "reads no model"),
        (("score", "none.parquet", "--text", "text.txt"), "no lexicon"),
        (("diagnose", "none.parquet", "--text", "text.txt"), "--text has no effect without --moved"),
        (("compare", "none.parquet", "none.parquet", "--seed", "1"), "--seed has no effect without --text"),
        (("evaluate", "tiny", "--max-bytes", "9"), "--max-bytes has no effect without --text"),
        (("export", "tiny", "--gguf", "m.gguf", "--private"), "--private has no effect without --push-to-hub"),
        (("bpb", "nobody", "--text", "text.txt"), "nobody"),
        (("adapt", "tiny", "--text", "text.txt", "--run", "r", "--steps", "0"), "steps"),
        (("adapt", "tiny", "--text", "nowhere", "--run", "r", "--steps", "2"), "nowhere"),
        (("adapt", "tiny", "--text", "text.txt", "--run", "r", "--steps", "2", "--mix", "de"), "as de=2"),
        (("adapt", "tiny", "--text", "text.txt", "--run", "r", "--steps", "2", "--temperature", "0.5"), "temperature"),
        (("adapt", "tiny", "--text", "text.txt", "--run", "r", "--steps", "2", "--processes", "0"), "processes"),
        (("adapt", "tiny", "--text", "text.txt", "--run", "r", "--learning-rate-stage1", "1e-3"), "--stage1-share"),
        (("adapt", "nobody", "--text", "text.txt", "--run", "r", "--steps", "2"), "nobody"),
        (("runs", "watch", "nobody"), "no run named"),
        (("check", "nobody"), "nobody"),
        (("assets", "get", "smollm"), "smollm2-135m"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(work: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments, "--json", cwd=work)
    assert done.returncode == 2
    assert message in json.loads(done.stdout.splitlines()[-1])["error"]
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (work / "r").exists()
    assert not (work / "x.parquet").exists()


def test_a_lexicon_of_another_pair_is_refused(work: Path, lexicon: Path) -> None:
    done = run("rearrange", "tiny", lexicon, "--out", "other", "--target", "gpt2", cwd=work)
    assert done.returncode == 2
    assert "align this pair again" in done.stderr


def test_invalid_output_is_reported_before_the_work(work: Path, lexicon: Path) -> None:
    (work / "full").mkdir()
    (work / "full" / "file").touch()
    done = run("rearrange", "tiny", lexicon, "--out", "full", cwd=work)
    assert done.returncode == 2
    assert "not empty" in done.stderr


def test_several_texts_may_follow_one_option(work: Path, lexicon: Path) -> None:
    (work / "more.txt").write_text(LINES * 100, encoding="utf-8")
    result = run_json("bpb", "tiny", "--text", "text.txt", "more.txt", cwd=work)
    both = read_documents([work / "text.txt", work / "more.txt"])
    assert result["bytes"] == n_bytes(split_documents(both)[1])


def test_doctor_names_device_packages_and_assets() -> None:
    result = run_json("doctor")
    assert "CPU" in result["system"]["device"] or "GiB" in result["system"]["device"]
    assert {"torch", "transformers", "tokenizers"} <= {row["package"] for row in result["packages"]}
    assert {"name": "sp32k", "cached": True} in result["assets"]


def test_doctor_examines_an_installation_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokalign_lab.device", None)  # makes its import fail, as without torch
    assert examine()["system"]["device"] == "unknown (torch is not installed)"
