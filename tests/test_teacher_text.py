"""Text written by a teacher: prompts from the train part, the same text after an interrupt, a file for `adapt`."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import WORDS, save_tiny, tiny_model, tiny_vocabulary
from typer.testing import CliRunner

from tokalign_lab.adaptation import teacher_text as module
from tokalign_lab.adaptation.teacher_text import write_text
from tokalign_lab.cli import app
from tokalign_lab.documents import Document, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.settings.kinds import WritingSettings

VOCABULARY = tiny_vocabulary(300, bos="<s>")
TRAIN = [Document(f"{number}. {WORDS}", f"train{number}", f"g{number}", "prose", "train") for number in range(30)]
HELD_OUT = [Document("Kept back, é.\r\n", "held", "h", "de", "held_out")]
SMALL = WritingSettings(documents=20, prompt_tokens=6, new_tokens=10, seed=4)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model("llama", VOCABULARY.size)


def write(model: torch.nn.Module, out: Path, settings: WritingSettings = SMALL, **options) -> list[dict]:
    write_text(model, VOCABULARY, TRAIN, HELD_OUT, settings, out, **options)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_each_document_is_a_prompt_and_the_teachers_continuation(model, tmp_path: Path) -> None:
    lines = write(model, tmp_path / "t.jsonl")
    written = [line for line in lines if line["split"] == "train"]
    assert len(written) == 20
    texts = {document.name: document.text for document in TRAIN}
    for line in written:
        original = texts[line["provenance"]["prompt"].split("@")[0]]
        prompt = VOCABULARY.decode(VOCABULARY.encode([original])[0][:6])
        assert line["text"].startswith(prompt)
        assert not original.startswith(line["text"])
        assert line["slice"] == "prose"
        assert {"teacher": "tiny-300", "temperature": 1.0, "seed": 4}.items() <= line["provenance"].items()
    assert len({line["provenance"]["prompt"] for line in written}) == 20


def test_the_held_out_part_is_copied_unchanged(model, tmp_path: Path) -> None:
    write(model, tmp_path / "t.jsonl")
    train, held_out = split_documents(read_documents([tmp_path / "t.jsonl"]))
    assert held_out == HELD_OUT
    assert len(train) == 20


def test_two_processes_do_not_write_one_file(model, tmp_path: Path) -> None:
    def second(share: float, message: str) -> None:
        if share < 1:
            with pytest.raises(InputError, match="Another process writes"):
                write_text(model, VOCABULARY, TRAIN, HELD_OUT, SMALL, tmp_path / "t.jsonl")

    assert len(write(model, tmp_path / "t.jsonl", progress=second)) == 21
    assert [file.name for file in tmp_path.iterdir()] == ["t.jsonl"]


def test_every_line_is_flushed_before_the_file_gets_its_name(model, tmp_path: Path, monkeypatch) -> None:
    flushed: list[int] = []
    replace = os.replace

    def rename(before: Path, after: Path) -> None:
        if after == tmp_path / "t.jsonl":
            assert flushed[-1] == before.stat().st_size
        replace(before, after)

    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_size))
    monkeypatch.setattr(os, "replace", rename)
    assert len(write(model, tmp_path / "t.jsonl")) == 21


def test_greedy_text_is_the_most_likely_text(model, tmp_path: Path) -> None:
    greedy = WritingSettings(documents=9, prompt_tokens=6, new_tokens=3, temperature=0)
    first = write(model, tmp_path / "t.jsonl", greedy)[0]
    original = next(d.text for d in TRAIN if d.name == first["provenance"]["prompt"].split("@")[0])
    ids = [VOCABULARY.roles["bos"], *VOCABULARY.encode([original])[0][:6].tolist()]
    with torch.no_grad():
        for _ in range(3):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    if VOCABULARY.roles["eos"] in ids:
        ids = ids[: ids.index(VOCABULARY.roles["eos"])]
    assert first["text"] == VOCABULARY.decode(ids).rstrip("\ufffd")


def test_samples_follow_the_whole_distribution_whatever_the_model_s_own_settings(model, tmp_path: Path) -> None:
    model.generation_config.top_k = 1  # would make every sample the greedy one
    sampled = write(model, tmp_path / "a.jsonl")
    greedy = write(
        model,
        tmp_path / "b.jsonl",
        replace(SMALL, temperature=0),
    )
    assert sum(a["text"] != b["text"] for a, b in zip(sampled[:20], greedy[:20], strict=True)) > 10


def test_a_seed_gives_the_same_text_and_leaves_other_random_numbers_alone(model, tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = write(model, tmp_path / "a.jsonl")
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert write(model, tmp_path / "b.jsonl") == first
    other = write(model, tmp_path / "c.jsonl", replace(SMALL, seed=5))
    assert [line["text"] for line in other] != [line["text"] for line in first]


class Stop(BaseException):
    pass


def test_interrupted_work_resumes_and_gives_the_same_file(model, tmp_path: Path, monkeypatch) -> None:
    whole = write(model, tmp_path / "whole.jsonl")
    calls = iter(range(100))

    def interrupt() -> None:
        if next(calls) == 2:
            raise Stop

    with pytest.raises(Stop):
        write(model, tmp_path / "cut.jsonl", interrupt=interrupt)
    assert not (tmp_path / "cut.jsonl").exists()
    with open(tmp_path / ".cut.jsonl.part", "a") as file:
        file.write('{"text": "torn')
    batches: list[int] = []
    made = module._continue

    def counted(*arguments) -> list[str]:
        batches.append(arguments[-1])
        return made(*arguments)

    monkeypatch.setattr(module, "_continue", counted)
    assert write(model, tmp_path / "cut.jsonl") == whole
    assert batches == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.jsonl", "whole.jsonl"]


def test_other_settings_start_from_the_beginning(model, tmp_path: Path) -> None:
    def interrupt() -> None:
        if (tmp_path / ".t.jsonl.part").stat().st_size:
            raise Stop

    with pytest.raises(Stop):
        write(model, tmp_path / "t.jsonl", interrupt=interrupt)
    other = WritingSettings(documents=10, prompt_tokens=6, new_tokens=4, seed=4)
    assert write(model, tmp_path / "t.jsonl", other) == write(model, tmp_path / "u.jsonl", other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"documents": 0}, "documents is 0"),
        ({"documents": 1, "new_tokens": 0}, "new_tokens is 0"),
        ({"documents": 1, "temperature": -0.5}, "temperature is -0.5"),
    ],
)
def test_invalid_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WritingSettings(**values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (WritingSettings(documents=31, prompt_tokens=6, new_tokens=4), "fewer than the 31"),
        (WritingSettings(documents=1, prompt_tokens=40, new_tokens=40), "at most 64 tokens"),
    ],
)
def test_text_that_cannot_be_generated_is_refused_in_one_sentence(
    model, settings, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write(model, tmp_path / "t.jsonl", settings)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_text_that_can_be_read(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text("".join(f"{i}. {WORDS}" for i in range(200)), encoding="utf-8")
    out = tmp_path / "taught.jsonl"
    given = ["generate", str(folder), "--text", str(tmp_path / "text.txt"), "--out", str(out), "--documents", "3"]
    done = CliRunner().invoke(app, [*given, "--prompt-tokens", "5", "--new-tokens", "4", "--json"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    train, held_out = split_documents(read_documents([out]))
    assert len(train) == 3
    assert result["bytes"] == sum(len(document.text.encode()) for document in train)
    _, kept_back = split_documents(read_documents([tmp_path / "text.txt"]))
    assert [document.text for document in held_out] == [document.text for document in kept_back]
    assert CliRunner().invoke(app, [*given[:-3], "x.txt", "--documents", "3"]).exit_code == 2
