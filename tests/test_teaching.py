"""A teacher in a tuning run, on tiny models: its inputs, its cache, and interrupted runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import WORDS, save_tiny, tiny_model, tiny_tokenizer, tiny_vocabulary
from typer.testing import CliRunner

from tokalign_lab.adaptation import teaching, train
from tokalign_lab.adaptation.data import Mix, OrderedBlocks, PackedBlocks
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.teacher_cache import TeacherCache
from tokalign_lab.adaptation.teacher_text import write_text
from tokalign_lab.adaptation.teaching import is_distilled
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.cli import app
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document, read_documents, split_documents
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import Head
from tokalign_lab.model.load import load_model
from tokalign_lab.settings.kinds import WritingSettings

SMALL: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "sequence_length": 16,
    "evaluate_bytes": 300,
    "save_every": 2,
    "held_out_share": 0.2,
    "learning_rate_stage1": 1e-2,
    "learning_rate_stage2": 1e-2,
    "prompts": [],
    "seed": 1,
}
EVERYTHING: dict[str, Any] = {
    "gradient_accumulation_steps": 3,
    "cross_documents": False,
    "mix": {"prose": 2.0},
    "temperature": 2.0,
    "distillation_share": 0.5,
    "distillation_weight": 0.7,
    "distillation_temperature": 2.0,
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    prose, code = tmp_path / "text.txt", tmp_path / "code.py"
    whole = "".join(f"{number}. {WORDS}" for number in range(40))
    prose.write_text(whole, encoding="utf-8")
    code.write_text(whole[:1500], encoding="utf-8")
    return [str(prose), str(code)]


@pytest.fixture
def student(tmp_path: Path) -> str:
    return str(save_tiny(tmp_path / "student"))


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """A teacher of another architecture, with more rows than its tokenizer has tokens (padding)."""
    folder = save_tiny(tmp_path / "teacher", "gemma3")
    tiny_model("gemma3", load_vocabulary(str(folder)).size + 20, seed=7).save_pretrained(folder)
    return str(folder)


class Events(list[dict[str, Any]]):
    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self if event["kind"] == kind]

    def each(self, name: str) -> list[float]:
        return [event[name] for event in self.of("step")]


def run(model: str, texts: list[str], folder: Path, *more: dict[str, Any], **options: Any) -> Events:
    events = Events()
    settings = dict(SMALL)
    for values in more:
        settings |= values
    train.adapt(model, texts, AdaptSettings.from_dict(settings), folder, emit=events.append, device="cpu", **options)
    return events


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(str(folder / "model"), device="cpu").state_dict()


# --- the loss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 16])
def test_a_teacher_that_equals_the_student_has_no_gradient(
    k: int, student: str, texts: list[str], tmp_path: Path
) -> None:
    one = {"steps": 1, "stage1_share": 0.0}
    alone = run(student, texts, tmp_path / "alone", one)
    taught = run(student, texts, tmp_path / "taught", one, {"teacher": student, "distillation_top_k": k})
    assert taught.each("divergence") == pytest.approx([0.0], abs=1e-5 if k else 1e-7)
    assert taught.each("loss") == pytest.approx(alone.each("loss"), rel=1e-5)
    assert taught.each("grad_norm") == pytest.approx(alone.each("grad_norm"), rel=1e-3 if k else 1e-6)
    before, after = weights_of(tmp_path / "alone"), weights_of(tmp_path / "taught")
    moved = load_model(student, device="cpu").state_dict()
    for name, weight in before.items():
        assert not torch.equal(weight, moved[name]), name
        if not k:
            assert torch.allclose(weight, after[name], rtol=0, atol=1e-6), name


@pytest.mark.parametrize("more", [{}, EVERYTHING, {**EVERYTHING, "distillation_direction": "reverse"}])
def test_events_have_both_parts_of_the_loss(
    more: dict[str, Any], student: str, teacher: str, texts: list[str], tmp_path: Path
) -> None:
    events = run(student, texts, tmp_path / "run", more, {"teacher": teacher})
    weight = more.get("distillation_weight", 1.0) * more.get("distillation_temperature", 1.0) ** 2
    assert len(events.of("step")) == 6
    for event in events.of("step"):
        assert event["divergence"] > 0
        assert event["loss"] == pytest.approx(event["next_token"] + weight * event["divergence"], rel=1e-5)


def test_without_a_teacher_no_teacher_is_mentioned(student: str, texts: list[str], tmp_path: Path) -> None:
    events = run(student, texts, tmp_path / "run")
    assert not any({"next_token", "divergence"} & event.keys() for event in events)
    card = json.loads((tmp_path / "run" / "model" / "tokalign.json").read_text())["training"]
    assert not [name for name in card if "teacher" in name or "distil" in name]


def test_a_share_of_0_equals_direct_tuning(student: str, teacher: str, texts: list[str], tmp_path: Path) -> None:
    alone = run(student, texts, tmp_path / "alone")
    none = run(student, texts, tmp_path / "none", {"teacher": teacher, "distillation_share": 0.0})
    kept = {"teacher": teacher, "distillation_share": 0, "distillation_top_k": 4}
    run(student, texts, tmp_path / "kept", kept)
    assert none.each("divergence") == [0.0] * 6
    assert none.each("loss") == pytest.approx(alone.each("loss"), rel=1e-6)
    for name, weight in weights_of(tmp_path / "alone").items():
        assert torch.equal(weight, weights_of(tmp_path / "none")[name]), name
        assert torch.equal(weight, weights_of(tmp_path / "kept")[name]), name


def held_out_divergence(student: Path, teacher: str, texts: list[str]) -> float:
    """Return KL(teacher || student) in nats per token on the held-out text, from the models' own logits."""
    vocabulary = load_vocabulary(teacher)
    _, held_out = split_documents(read_documents(texts, seed=1), 0.2, 1)
    teaching_model, learnt = load_model(teacher, device="cpu"), load_model(str(student), device="cpu")
    found = []
    with torch.no_grad():
        for ids in vocabulary.encode([document.text for document in held_out]):
            for start in range(0, len(ids) - 16, 16):
                inputs = torch.from_numpy(ids[start : start + 16].astype(np.int64))[None]
                log_t, log_s = (
                    model(input_ids=inputs).logits[0, :, : vocabulary.size].log_softmax(-1)
                    for model in (teaching_model, learnt)
                )
                found.append((log_t.exp() * (log_t - log_s)).sum(-1).mean().item())
    return float(np.mean(found))


def test_distillation_reduces_the_divergence_on_held_out_text(
    student: str, teacher: str, texts: list[str], tmp_path: Path
) -> None:
    long = {"steps": 40, "save_every": 100}
    run(teacher, texts, tmp_path / "read", long, {"steps": 60})  # trained on such text, as real teachers are
    teaching_model = str(tmp_path / "read" / "model")
    run(student, texts, tmp_path / "direct", long)
    run(student, texts, tmp_path / "taught", long, {"teacher": teaching_model})
    before = held_out_divergence(Path(student), teaching_model, texts)
    direct, taught = (
        held_out_divergence(tmp_path / name / "model", teaching_model, texts) for name in ("direct", "taught")
    )
    assert taught < direct < before


# --- which sequences ------------------------------------------------------------------------------------------


def test_the_draw_is_by_seed_and_position() -> None:
    drawn = {share: [is_distilled(i, share, 3) for i in range(2000)] for share in (0.0, 0.3, 0.6, 1.0)}
    assert not any(drawn[0.0])
    assert all(drawn[1.0])
    assert np.mean(drawn[0.3]) == pytest.approx(0.3, abs=0.03)
    assert all(more for less, more in zip(drawn[0.3], drawn[0.6], strict=True) if less)
    assert [is_distilled(i, 0.3, 4) for i in range(2000)] != drawn[0.3]


def test_items_name_the_block_of_their_predictions() -> None:
    vocabulary = tiny_vocabulary(280)
    streams = []
    for n in (3, 5):
        corpus = Corpus.build([Document(f"{i} {n} {WORDS}", str(i), str(i)) for i in range(n)], vocabulary)
        streams.append(PackedBlocks(corpus, vocabulary, 16))
    mix = Mix(streams, [0.5, 0.5], 0)
    assert len(mix) == len(streams[0]) + len(streams[1])
    data = OrderedBlocks(mix, 7, 60, taught=lambda position: position % 3 == 0)
    seen = set()
    for index in range(60):
        number = int(data[index]["taught"])
        assert (number >= 0) == ((7 + index) % 3 == 0)
        if number >= 0:
            seen.add(data.block_at(index)[0])
            assert torch.equal(torch.from_numpy(mix.block(number)[0]), data[index]["input_ids"])
    assert seen == {0, 1}
    with pytest.raises(IndexError):
        mix.block(len(mix))


# --- live and kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apart", [False, True])
def test_cached_predictions_give_at_most_the_live_loss(
    apart: bool, student: str, teacher: str, texts: list[str], tmp_path: Path
) -> None:
    # One step, so that both have the same student. The live loss includes the divergence among tokens outside of the
    # top k, which is never negative.
    one = {"steps": 1, "teacher": teacher, "cross_documents": not apart}
    live = run(student, texts, tmp_path / "live", one).each("divergence")[0]
    all_but_one = load_vocabulary(teacher).size - 1
    found = [
        run(student, texts, tmp_path / str(k), one, {"distillation_top_k": k}).each("divergence")[0]
        for k in (2, 64, all_but_one)
    ]
    assert found[0] < found[1] < live
    assert found[2] == pytest.approx(live, rel=2e-3)  # nothing is omitted; float16 rounds


def test_only_the_blocks_of_the_run_are_cached_and_read_once(
    student: str, teacher: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"teacher": teacher, "distillation_share": 0.5, "distillation_top_k": 4}
    events = run(student, texts, tmp_path / "run", more)
    assert events.of("progress")[-2]["message"] == "the teacher's predictions are kept (100 %)"
    (folder,) = (tmp_path / "cache" / "teacher").iterdir()
    asked = [i for i in range(12) if is_distilled(i, 0.5, 1)]
    assert 0 < len(asked) < 12
    assert len(TeacherCache(folder).numbers) == len(asked)
    monkeypatch.setattr("tokalign_lab.adaptation.teacher_cache._write", None)  # writing it again would fail
    again = run(student, texts, tmp_path / "again", more, {"learning_rate_stage1": 1e-3})
    assert again.each("divergence")[0] == events.each("divergence")[0]


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    ("k", "killed_after", "more"), [(0, 4, {}), (8, 1, {}), (0, 1, EVERYTHING), (8, 4, EVERYTHING)]
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    k: int, killed_after: int, more: dict[str, Any], teacher: str, texts: list[str], tmp_path: Path
) -> None:
    student = str(save_tiny(tmp_path / "gpt2", "gpt2"))  # with dropout
    more = {**more, "teacher": teacher, "distillation_top_k": k}
    whole = run(student, texts, tmp_path / "whole", more)
    first = Events()

    def emit(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] > killed_after:
            raise Stop
        first.append(event)

    settings = AdaptSettings.from_dict({**SMALL, **more})
    with pytest.raises(Stop):
        train.adapt(student, texts, settings, tmp_path / "cut", emit=emit, device="cpu")
    second = run(student, texts, tmp_path / "cut", more, resume=True)
    for name in ("loss", "next_token", "divergence"):
        steps = {event["step"]: event[name] for event in [*first.of("step"), *second.of("step")]}
        assert steps == {event["step"]: event[name] for event in whole.of("step")}, name
    after = weights_of(tmp_path / "cut")
    for name, weight in weights_of(tmp_path / "whole").items():
        assert torch.equal(weight, after[name]), name


def test_a_run_stopped_while_the_teacher_reads_resumes(
    student: str, teacher: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokalign_lab.adaptation.teacher_cache._BATCH_TOKENS", {"cpu": 16})
    more = {"teacher": teacher, "distillation_top_k": 4}
    events = Events()

    def interrupt() -> None:
        if len(events.of("progress")) == 3:
            raise Stop

    settings = AdaptSettings.from_dict({**SMALL, **more})
    with pytest.raises(Stop):
        train.adapt(student, texts, settings, tmp_path / "run", events.append, interrupt, device="cpu")
    assert not events.of("step")
    second = run(student, texts, tmp_path / "run", more, resume=True)
    assert second.each("step") == [1, 2, 3, 4, 5, 6]
    assert second.of("progress")[0]["message"] != "the teacher reads the text (0 %)"


# --- messages and errors ------------------------------------------------------------------------------------


def test_the_card_names_teacher_and_settings(student: str, teacher: str, texts: list[str], tmp_path: Path) -> None:
    run(student, texts, tmp_path / "run", {"teacher": teacher, "distillation_share": 0.5})
    card = json.loads((tmp_path / "run" / "model" / "tokalign.json").read_text())["training"]
    assert card["teacher"] == teacher
    assert (card["distillation_share"], card["distillation_direction"]) == (0.5, "forward")
    text = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"| teacher | {teacher} |" in text
    assert "| distillation_temperature | 1.0000 |" in text


def test_a_teacher_with_another_tokenizer_is_refused_before_any_work(
    student: str, texts: list[str], tmp_path: Path
) -> None:
    other = str(save_tiny(tmp_path / "other", size=280))
    with pytest.raises(InputError, match="needs one vocabulary; rearrange the student"):
        run(student, texts, tmp_path / "run", {"teacher": other})
    assert not (tmp_path / "run").exists()
    given = ["adapt", student, "--text", texts[0], "--steps", "2", "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*given, "--teacher", other])
    assert done.exit_code == 2
    assert "needs one vocabulary" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_command_passes_the_teacher_settings(student: str, teacher: str, texts: list[str], tmp_path: Path) -> None:
    given = ["adapt", student, "--text", texts[0], "--steps", "2", "--run", str(tmp_path / "run"), "--prepare"]
    given += ["--teacher", teacher, "--distillation-weight", "2", "--distillation-temperature", "3"]
    given += ["--distillation-direction", "reverse", "--distillation-share", "0.25", "--distillation-top-k", "16"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.stderr
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["teacher"] == teacher
    assert {name: value for name, value in settings.items() if name.startswith("distillation_")} == {
        "distillation_weight": 2.0,
        "distillation_temperature": 3.0,
        "distillation_direction": "reverse",
        "distillation_share": 0.25,
        "distillation_top_k": 16,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher": 3}, "teacher must be a text"),
        ({"teacher": "t", "distillation_weight": -1}, "distillation weight is -1"),
        ({"teacher": "t", "distillation_temperature": 0}, "distillation temperature is 0"),
        ({"teacher": "t", "distillation_direction": "sideways"}, "no direction 'sideways'"),
        ({"teacher": "t", "distillation_share": 1.5}, "distillation_share is 1.5"),
        ({"teacher": "t", "distillation_top_k": -1}, "distillation_top_k is -1"),
        ({"distillation_share": 0.5}, "distillation_share is 0.5, but there is no teacher"),
    ],
)
def test_invalid_settings_are_refused_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdaptSettings.from_dict(values)


def test_settings_with_a_teacher_round_trip_through_json() -> None:
    settings = AdaptSettings.from_dict({"teacher": "t", "distillation_direction": "reverse", "distillation_weight": 2})
    assert AdaptSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_sequences_longer_than_the_teachers_context_are_refused(student: str, texts: list[str], tmp_path: Path) -> None:
    vocabulary = load_vocabulary(student)
    for kind in ("opt", "gpt2"):
        tiny_model(kind, vocabulary.size).save_pretrained(tmp_path / kind)
        tiny_tokenizer(300).save_pretrained(tmp_path / kind)
    with pytest.raises(InputError, match="'opt' cannot keep the documents"):
        run(student, texts, tmp_path / "run", {"teacher": str(tmp_path / "opt"), "cross_documents": False})
    longer = load_model(student, device="cpu")
    longer.config.max_position_embeddings = 128
    longer.save_pretrained(tmp_path / "longer")
    tiny_tokenizer(300).save_pretrained(tmp_path / "longer")
    with pytest.raises(InputError, match="is 65, but the teacher reads at most 64"):
        run(
            str(tmp_path / "longer"),
            texts,
            tmp_path / "run",
            {"teacher": str(tmp_path / "gpt2"), "sequence_length": 65},
        )


def test_a_student_with_an_unknown_kind_of_head_is_refused(
    student: str, teacher: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Head, "_probe", lambda self: False)
    with pytest.raises(InputError, match=r"it cannot be taught\. Let it learn from text"):
        run(student, texts, tmp_path / "run", {"teacher": teacher})


def test_a_teacher_is_computed_in_the_run_s_own_dtype(
    student: str, teacher: str, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watching(teaching.Teaching):
        def __init__(self, settings: AdaptSettings, vocab_size: int, source: Any) -> None:
            super().__init__(settings, vocab_size, source)
            seen.append({weight.dtype for weight in source.model.parameters()})

    monkeypatch.setattr(teaching, "Teaching", Watching)
    for bf16 in (False, True):
        events = run(student, texts, tmp_path / str(bf16), {"teacher": teacher, "bf16": bf16, "steps": 2})
        assert all(np.isfinite(events.each("divergence")))
    assert seen == [{torch.float32}, {torch.bfloat16}]


# --- sentence level -------------------------------------------------------------------------------------------


def test_text_of_a_teacher_keeps_the_held_out_part(student: str, texts: list[str], tmp_path: Path) -> None:
    teaching_model, vocabulary = load_model(student, device="cpu"), load_vocabulary(student)
    parts = split_documents(read_documents(texts, seed=1), 0.2, 1)
    out = tmp_path / "written.jsonl"
    write_text(
        teaching_model, vocabulary, *parts, WritingSettings(documents=4, prompt_tokens=8, new_tokens=20, seed=1), out
    )
    direct = run(student, texts, tmp_path / "direct").of("evaluation")
    written = run(student, [str(out)], tmp_path / "written").of("evaluation")
    for name in ("bits_per_byte", "bytes", "by_slice"):
        assert written[0][name] == direct[0][name], name
    assert written[-1]["bits_per_byte"] != direct[-1]["bits_per_byte"]
