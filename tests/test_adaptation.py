from __future__ import annotations

import json
import logging
import math
import shutil
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cases_models import BIG, multimodal
from tiny import CONFIGS, WORDS, expect_words, save_tiny, tiny_model, tiny_tokenizer, tiny_vocabulary
from transformers import LlamaForCausalLM

from tokalign_lab.adaptation import train
from tokalign_lab.adaptation.checkpoints import begin, check_folder, latest_checkpoint, remove_all
from tokalign_lab.adaptation.coverage import new_tokens
from tokalign_lab.adaptation.data import Mix, OrderedBlocks, PackedBlocks, check_apart, mixed
from tokalign_lab.adaptation.divergence import Diverged, LossWatch
from tokalign_lab.adaptation.events import continue_text
from tokalign_lab.adaptation.probes import Probe, ask
from tokalign_lab.adaptation.recipes import RECIPES
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.stages import plan_stages, set_trainable
from tokalign_lab.adaptation.trainer import OrderedTrainer
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.head import Head
from tokalign_lab.model.load import load_model
from tokalign_lab.model.save import save_model
from tokalign_lab.vocabulary import Vocabulary

SMALL = AdaptSettings.from_dict(
    {
        "recipe": "papers",  # two stages
        "steps": 8,
        "batch_size": 2,
        "sequence_length": 16,
        "evaluate_bytes": 300,
        "save_every": 3,
        "held_out_share": 0.2,
        "seed": 1,
    }
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number}. {WORDS}" for number in range(40)), encoding="utf-8")
    return str(path)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


class Events(list[dict[str, Any]]):
    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self if event["kind"] == kind]


def run(model: Path, text: str, folder: Path, settings: AdaptSettings = SMALL, **options: Any) -> Events:
    events = Events()
    train.adapt(str(model), [text], settings, folder, emit=events.append, device="cpu", **options)
    return events


# --- what is trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_stage_1_trains_exactly_the_embedding_and_the_head(kind: str) -> None:
    model = tiny_model(kind, 60)
    names = set_trainable(model, 1)
    own = {id(weight) for weight in model.get_input_embeddings().parameters()}
    own |= {id(weight) for weight in model.get_output_embeddings().parameters()}
    assert {id(weight) for name, weight in model.named_parameters() if name in names} == own
    if kind in ("llama", "qwen2", "phi"):
        assert "lm_head.weight" in names, "upstream's name filter leaves this one frozen"
    model(input_ids=torch.arange(10).unsqueeze(0), labels=torch.arange(10).unsqueeze(0)).loss.backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == (name in names), name
    assert len(set_trainable(model, 2)) == len(list(model.named_parameters()))


def test_frozen_weights_stay_bit_equal_and_the_others_change(model_folder: Path, text: str, tmp_path: Path) -> None:
    settings = AdaptSettings(
        steps=3,
        stage1_share=1.0,
        batch_size=2,
        sequence_length=16,
        evaluate_bytes=200,
        weight_decay=0.5,
        learning_rate_stage1=1e-2,
        held_out_share=0.2,
    )
    run(model_folder, text, tmp_path / "run", settings)
    before = load_model(str(model_folder), device="cpu").state_dict()
    after = load_model(str(tmp_path / "run" / "model"), device="cpu").state_dict()
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same == (name not in ("model.embed_tokens.weight", "lm_head.weight")), name


def test_stages_divide_the_steps_and_an_empty_stage_is_skipped() -> None:
    whole = plan_stages(AdaptSettings(steps=5, stage1_share=0.5))
    assert [(stage.number, stage.first_step, stage.steps) for stage in whole] == [(1, 0, 2), (2, 2, 3)]
    assert [stage.number for stage in plan_stages(AdaptSettings(steps=5))] == [2]
    assert [stage.number for stage in plan_stages(AdaptSettings(steps=5, stage1_share=1))] == [1]


# --- data -----------------------------------------------------------------------------------------------------


def packed(texts: list[str], length: int, bos: str | None = None) -> tuple[PackedBlocks, np.ndarray]:
    vocabulary = tiny_vocabulary(280, bos=bos)
    corpus = Corpus.build([Document(t, str(n), str(n)) for n, t in enumerate(texts)], vocabulary)
    before = [vocabulary.roles["bos"]] if bos else []
    stream = np.concatenate([[*before, *ids, vocabulary.roles["eos"]] for ids in vocabulary.encode(texts)])
    return PackedBlocks(corpus, vocabulary, length), stream


@pytest.mark.parametrize("bos", [None, "<s>"])
@pytest.mark.parametrize("length", [2, 7, 50])
def test_blocks_are_the_documents_end_to_end(length: int, bos: str | None) -> None:
    blocks, stream = packed([WORDS, "", "a", WORDS[:30]], length, bos)
    assert len(blocks) == len(stream) // length
    assert np.array_equal(np.concatenate([blocks[i] for i in range(len(blocks))]), stream[: len(blocks) * length])


def test_the_order_is_seeded_covers_the_text_and_continues() -> None:
    blocks, _ = packed([WORDS * 3], 8)
    n = len(blocks)
    mix = Mix([blocks], [1.0], seed=4)
    whole = [OrderedBlocks(mix, 0, 3 * n).block_at(i)[1] for i in range(3 * n)]
    for epoch in range(3):
        assert sorted(whole[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert whole[:n] != whole[n : 2 * n]
    later = OrderedBlocks(mix, n - 2, n)
    assert [later.block_at(i)[1] for i in range(n)] == whole[n - 2 : 2 * n - 2]
    other = OrderedBlocks(Mix([blocks], [1.0], seed=5), 0, n)
    assert [other.block_at(i)[1] for i in range(n)] != whole[:n]


def test_a_part_of_the_blocks_lists_exactly_the_ids_in_it() -> None:
    blocks, _ = packed([WORDS * 3, "Zwölf Boxkämpfer"], 8)
    mix, n = Mix([blocks], [1.0], seed=4), len(blocks)
    whole, part = OrderedBlocks(mix, 0, n), OrderedBlocks(mix, n - 2, 4)
    read = np.concatenate([part[i]["input_ids"].numpy() for i in range(4)])
    assert part.ids(280).tolist() == sorted(set(read.tolist()))
    assert len(part.ids(280)) < len(whole.ids(280))


SIZES = {"prose": 60, "de": 6, "code": 20}


def three_slices() -> tuple[Corpus, list[Document], Vocabulary]:
    vocabulary = tiny_vocabulary(280)
    texts = [(name, f"{number} {name} {WORDS}") for name, n in SIZES.items() for number in range(n)]
    documents = [Document(text, str(n), str(n), name) for n, (name, text) in enumerate(texts)]
    return Corpus.build(documents, vocabulary), documents, vocabulary


@pytest.mark.parametrize(("weights", "temperature"), [({}, 1.0001), ({"de": 3.0}, 1.0), ({"prose": 0.0}, 2.0), ({}, 5)])
def test_a_mix_draws_slices_by_weight_and_temperature(weights: dict[str, float], temperature: float) -> None:
    corpus, documents, vocabulary = three_slices()
    mix = mixed(corpus, documents, vocabulary, 16, 3, weights, temperature)
    kept = sorted(name for name in SIZES if weights.get(name, 1) > 0)
    tokens = {name: sum(len(corpus[i]) + 1 for i, d in enumerate(documents) if d.slice == name) for name in kept}
    raw = np.array([weights.get(name, 1.0) * tokens[name] ** (1 / temperature) for name in kept])
    drawn = np.bincount([OrderedBlocks(mix, 0, 6000).block_at(i)[0] for i in range(6000)], minlength=len(kept)) / 6000
    assert drawn == pytest.approx(raw / raw.sum(), abs=0.025)


def test_a_mix_resumes_at_its_position_and_uses_each_slice_evenly() -> None:
    corpus, documents, vocabulary = three_slices()
    whole = OrderedBlocks(mixed(corpus, documents, vocabulary, 16, 3, {"de": 2.0}), 0, 3000)
    order = [whole.block_at(i) for i in range(3000)]
    later = OrderedBlocks(mixed(corpus, documents, vocabulary, 16, 3, {"de": 2.0}), 1500, 1500)
    assert [later.block_at(i) for i in range(1500)] == order[1500:]
    for stream in range(3):
        times = np.bincount([block for drawn, block in order if drawn == stream])
        assert times.max() - times.min() <= 1, "no block repeats before all others have occurred"
    other = OrderedBlocks(mixed(corpus, documents, vocabulary, 16, 4, {"de": 2.0}), 0, 3000)
    assert [other.block_at(i) for i in range(3000)] != order


def test_an_impossible_mix_is_refused() -> None:
    corpus, documents, vocabulary = three_slices()
    with pytest.raises(InputError, match=r"slice 'fr', but the text has code, de, prose"):
        mixed(corpus, documents, vocabulary, 16, 0, {"fr": 1.0})
    with pytest.raises(InputError, match="leave at least one"):
        mixed(corpus, documents, vocabulary, 16, 0, dict.fromkeys(SIZES, 0.0))
    with pytest.raises(InputError, match=r"Slice 'de' of the mix is too small"):
        mixed(corpus, documents, vocabulary, 2000, 0, {"de": 2.0})


@pytest.mark.parametrize("bos", [None, "<s>"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma3", "phi", "qwen2"])
def test_separate_documents_in_a_block_have_the_loss_that_they_have_alone(kind: str, bos: str | None) -> None:
    vocabulary = tiny_vocabulary(280, bos=bos)
    texts = ["a fox", "rain and bread", "the dog sings"]
    corpus = Corpus.build([Document(text, text, text) for text in texts], vocabulary)
    marks = [[vocabulary.roles["bos"]] if bos else [], [vocabulary.roles["eos"]]]
    alone = [torch.tensor([[*marks[0], *ids, *marks[1]]]) for ids in vocabulary.encode(texts)]
    length = sum(ids.shape[1] for ids in alone)
    model = tiny_model(kind, vocabulary.size)
    check_apart(model)
    (row,) = OrderedBlocks(Mix([PackedBlocks(corpus, vocabulary, length)], [1.0], 0), 0, 1, apart=True)
    packed = model(**{name: value.unsqueeze(0) for name, value in row.items()}, use_cache=False).loss.detach()
    costs = [model(input_ids=ids, labels=ids).loss.detach() * (ids.shape[1] - 1) for ids in alone]
    assert float(packed) == pytest.approx(float(sum(costs)) / sum(ids.shape[1] - 1 for ids in alone), rel=1e-5)


def test_a_model_that_cannot_separate_documents_is_refused() -> None:
    with pytest.raises(InputError, match="'opt' cannot keep the documents"):
        check_apart(tiny_model("opt", 60))


def test_the_bytes_of_a_block_are_counted() -> None:
    vocabulary = tiny_vocabulary(280)
    corpus = Corpus.build([Document(WORDS, "a", "a")], vocabulary)
    n = len(corpus[0])
    data = OrderedBlocks(Mix([PackedBlocks(corpus, vocabulary, n)], [1.0], 0), 0, 2)
    lengths = np.array([len(token or b"") for token in vocabulary.token_bytes])
    assert data.n_bytes(0, 2, lengths) == 2 * len(WORDS.encode())


def test_a_text_shorter_than_one_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="fewer than one sequence of 5000"):
        packed([WORDS], 5000)


# --- a run ----------------------------------------------------------------------------------------------------


def test_events_describe_the_whole_run(model_folder: Path, text: str, tmp_path: Path) -> None:
    settings = AdaptSettings(**{**SMALL.to_dict(), "evaluate_every": 3, "prompts": ("The quick",), "sample_tokens": 4})
    events = run(model_folder, text, tmp_path / "run", settings)
    steps = events.of("step")
    assert [event["step"] for event in steps] == list(range(1, 9))
    assert [event["stage"] for event in steps] == [1] * 4 + [2] * 4
    for event in steps:
        assert event["loss"] > 0
        assert event["grad_norm"] > 0
        assert event["tokens_per_second"] > 0
        assert event["tokens"] == event["step"] * 32
        assert 0 < event["bytes_per_second"] / event["tokens_per_second"] < 20
        assert event["memory_bytes"] > 1_000_000
        assert event["seconds_left"] >= 0
    assert steps[-1]["seconds_left"] == 0
    assert max(event["learning_rate"] for event in steps[:4]) == pytest.approx(6.4e-4)
    assert max(event["learning_rate"] for event in steps[4:]) == pytest.approx(5e-5)
    measured = events.of("evaluation")
    assert [event["step"] for event in measured] == [0, 3, 4, 6, 8]
    assert all(math.isfinite(event["bits_per_byte"]) for event in measured)
    assert [event["step"] for event in events.of("sample")] == [0, 3, 4, 6, 8]
    card = json.loads((tmp_path / "run" / "model" / "tokalign.json").read_text())
    assert card["training"]["tokens"] == 8 * 32
    assert card["scores"]["bits_per_byte"] == measured[-1]["bits_per_byte"]
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert load_model(str(tmp_path / "run" / "model"), device="cpu").config.use_cache is True


def test_measuring_does_not_change_the_training(model_folder: Path, text: str, tmp_path: Path) -> None:
    plain = run(model_folder, text, tmp_path / "plain")
    watched = run(model_folder, text, tmp_path / "watched", AdaptSettings(**{**SMALL.to_dict(), "evaluate_every": 1}))
    assert [event["loss"] for event in plain.of("step")] == [event["loss"] for event in watched.of("step")]


def test_tuning_lowers_the_loss_on_a_repeating_text(model_folder: Path, text: str, tmp_path: Path) -> None:
    settings = AdaptSettings(
        **{
            **SMALL.to_dict(),
            "steps": 40,
            "save_every": 100,
            "learning_rate_stage1": 3e-2,
            "learning_rate_stage2": 1e-2,
        }
    )
    measured = run(model_folder, text, tmp_path / "run", settings).of("evaluation")
    assert measured[1]["bits_per_byte"] < measured[0]["bits_per_byte"]
    assert measured[2]["bits_per_byte"] < measured[1]["bits_per_byte"]


class Stop(BaseException):
    pass


EVERYTHING = {
    "gradient_accumulation_steps": 3,
    "cross_documents": False,
    "mix": {"prose": 2.0},
    "temperature": 2.0,
    "gradient_checkpointing": True,
}


@pytest.mark.parametrize(("killed_after", "resumed_at"), [(2, 0), (3, 3), (5, 4), (7, 7)])
@pytest.mark.parametrize(
    ("kind", "more"),
    # gpt2 has dropout, so the state of its random numbers must be restored too
    [("llama", {}), ("gpt2", {}), ("llama", EVERYTHING), ("gpt2", EVERYTHING)],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    kind: str, more: dict[str, Any], killed_after: int, resumed_at: int, text: str, tmp_path: Path
) -> None:
    model = save_tiny(tmp_path / "model", kind)
    settings = AdaptSettings(**{**SMALL.to_dict(), **more})
    code = tmp_path / "code.py"
    code.write_text(Path(text).read_text(encoding="utf-8")[:1500], encoding="utf-8")
    texts = [text, str(code)]
    whole = Events()
    train.adapt(str(model), texts, settings, tmp_path / "whole", emit=whole.append, device="cpu")
    first = Events()

    def emit(event: dict[str, Any]) -> None:
        # the work of later steps is lost; checkpoints of earlier steps have been saved
        if event["kind"] == "step" and event["step"] > killed_after:
            raise Stop
        first.append(event)

    with pytest.raises(Stop):
        train.adapt(str(model), texts, settings, tmp_path / "cut", emit=emit, device="cpu")
    second = Events()
    train.adapt(str(model), texts, settings, tmp_path / "cut", emit=second.append, device="cpu", resume=True)
    assert second.of("resumed")[0]["step"] == resumed_at
    losses = {event["step"]: event["loss"] for event in [*first.of("step"), *second.of("step")]}
    assert losses == {event["step"]: event["loss"] for event in whole.of("step")}
    for name, weight in load_model(str(tmp_path / "whole" / "model"), device="cpu").state_dict().items():
        assert torch.equal(weight, load_model(str(tmp_path / "cut" / "model"), device="cpu").state_dict()[name]), name


@pytest.mark.parametrize("while_measuring", [False, True])
def test_a_cancelled_run_saves_its_last_step(
    model_folder: Path, text: str, tmp_path: Path, while_measuring: bool
) -> None:
    settings = AdaptSettings(**{**SMALL.to_dict(), "save_every": 100, "evaluate_every": 2 if while_measuring else 0})
    whole = run(model_folder, text, tmp_path / "whole", settings)
    first = Events()

    def interrupt() -> None:
        callers = {frame.name for frame in traceback.extract_stack()}
        asked = "bits_per_byte" in callers if while_measuring else "on_step_end" in callers
        if asked and len(first.of("step")) >= 1:
            raise Stop

    with pytest.raises(Stop):
        train.adapt(str(model_folder), [text], settings, tmp_path / "cut", first.append, interrupt, device="cpu")
    second = run(model_folder, text, tmp_path / "cut", settings, resume=True)
    assert second.of("resumed")[0]["step"] == 2
    losses = [event["loss"] for event in [*first.of("step"), *second.of("step")]]
    assert losses == [event["loss"] for event in whole.of("step")], "no step was done twice"


def test_training_separates_documents_when_asked(model_folder: Path, text: str, tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    forward = LlamaForCausalLM.forward

    def watching(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("position_ids") is not None and self.training:
            assert kwargs["use_cache"] is False, "with a cache, transformers does not look at the positions"
            seen.append(kwargs["position_ids"])
        return forward(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", watching)
        run(model_folder, text, tmp_path / "run", AdaptSettings(**{**SMALL.to_dict(), "cross_documents": False}))
    assert len(seen) == 8


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_accumulated_batches_equal_one_large_batch(kind: str, text: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model", kind)
    large = run(model, text, tmp_path / "one", AdaptSettings(**{**SMALL.to_dict(), "batch_size": 6}))
    small = run(model, text, tmp_path / "three", AdaptSettings(**{**SMALL.to_dict(), "gradient_accumulation_steps": 3}))
    for name in ("loss", "grad_norm", "tokens"):
        expected = [event[name] for event in large.of("step")]
        assert [event[name] for event in small.of("step")] == pytest.approx(expected, rel=1e-4), name


def test_a_multimodal_model_is_tuned_on_text(text: str, tmp_path: Path) -> None:
    """Only the configuration of its text part has `use_cache`, which the trainer sets."""
    save_model(multimodal(), BIG, tmp_path / "model")
    run(tmp_path / "model", text, tmp_path / "run", AdaptSettings(**{**SMALL.to_dict(), "steps": 2}))
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert "use_cache" not in config
    assert config["text_config"]["use_cache"]


def test_an_unknown_kind_of_head_is_tuned_with_the_models_own_loss(
    model_folder: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunked = run(model_folder, text, tmp_path / "chunked")
    monkeypatch.setattr(Head, "_probe", lambda self: False)
    own = run(model_folder, text, tmp_path / "own")
    expected = [event["loss"] for event in own.of("step")]
    assert [event["loss"] for event in chunked.of("step")] == pytest.approx(expected, rel=1e-4)


def test_a_run_killed_in_the_final_save_only_saves_again(
    model_folder: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_model", fail)
        with pytest.raises(Stop):
            run(model_folder, text, tmp_path / "run")
    events = run(model_folder, text, tmp_path / "run", resume=True)
    assert events.of("resumed")[0]["step"] == 8
    assert not events.of("step")
    assert not events.of("evaluation"), "the measurement of step 8 is kept with its checkpoint"
    card = json.loads((tmp_path / "run" / "model" / "tokalign.json").read_text(encoding="utf-8"))
    assert card["training"]["kept_step"] == 8
    assert card["scores"]["bits_per_byte"] > 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_an_incomplete_checkpoint_is_not_used(model_folder: Path, text: str, tmp_path: Path) -> None:
    root = tmp_path / "run" / "checkpoints"
    begin(root, resume=False)
    torn = root / "stage2" / "checkpoint-4"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    events = run(model_folder, text, tmp_path / "run", resume=True)
    assert events.of("resumed")[0]["step"] == 0
    assert len(events.of("step")) == 8


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["notes.md", "stage2/checkpoint-4/model.safetensors"])
def test_checkpoints_of_another_program_are_refused_and_not_changed(name: str, resume: bool, tmp_path: Path) -> None:
    theirs = tmp_path / "run" / "checkpoints" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    with pytest.raises(InputError, match="not from an earlier result of this kind"):
        run(tmp_path / "no-model", "no-text", tmp_path / "run", resume=resume)
    assert theirs.read_text() == "mine"


def test_other_files_among_the_checkpoints_are_not_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "checkpoints"
    begin(root, resume=False)
    (root / "stage1").mkdir()
    (root / "notes.md").write_text("mine")
    with caplog.at_level(logging.WARNING, "tokalign_lab"):
        remove_all(root)
    assert (root / "notes.md").read_text() == "mine"
    assert "is not removed" in caplog.text
    with pytest.raises(InputError):
        check_folder(root)
    (root / "notes.md").unlink()
    begin(root, resume=False)
    assert [path.name for path in root.iterdir()] == [".tokalign-checkpoints"]
    remove_all(root)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_of_nan_stops_the_run_and_keeps_the_checkpoint(
    model_folder: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = OrderedTrainer.compute_loss

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = losses(self, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 3 else loss

    monkeypatch.setattr(OrderedTrainer, "compute_loss", broken)
    with pytest.raises(Diverged, match=r"not a number at step 4 \(stage 1\).* Lower learning_rate_stage1"):
        run(model_folder, text, tmp_path / "run")
    kept = latest_checkpoint(tmp_path / "run" / "checkpoints", plan_stages(SMALL))
    assert kept is not None
    assert (kept.stage.number, kept.step) == (1, 3)


def test_a_diverged_loss_is_distinguished_from_a_spike() -> None:
    spike = LossWatch(1000)
    assert not any(spike.add(loss) for loss in [6.0, 5.0, *[4.0] * 30, *[9.0] * 9, *[4.1] * 20])
    noisy = LossWatch(1000)
    assert not any(noisy.add(4.0 + 0.9 * (-1) ** step) for step in range(200))
    bad_start = LossWatch(1000)
    assert not any(bad_start.add(12.0 - step / 10) for step in range(80)), "worse than a guess, but decreasing"
    lost = LossWatch(1000)
    reports = [lost.add(loss) for loss in [*[4.0] * 20, *[9.0] * 10]]
    assert [place for place, words in enumerate(reports) if words] == [29]
    assert reports[-1] == "has exploded, from 4.00 to 9.00 for 10 steps,"
    assert lost.in_doubt
    from_the_start = LossWatch(1000)
    reports = [from_the_start.add(loss) for loss in [4.0, *[150.0 - step for step in range(20)]]]
    assert next(place for place, words in enumerate(reports) if words) == 10
    assert reports[10] == "has exploded, from 4.00 to 145.50 for 10 steps,"
    assert LossWatch(1000).add(float("inf")) == "is not a number"


def test_a_diverged_run_stops_and_keeps_the_checkpoint_before(
    model_folder: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = OrderedTrainer.compute_loss

    def worse(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = losses(self, *args, **kwargs)
        return loss + 50 if self.state.global_step >= 16 else loss

    monkeypatch.setattr(OrderedTrainer, "compute_loss", worse)
    settings = AdaptSettings(**{**SMALL.to_dict(), "steps": 40, "stage1_share": 1.0})
    with pytest.raises(Diverged, match=r"exploded, from .* at step 26 \(stage 1\).* Lower learning_rate_stage1, now"):
        run(model_folder, text, tmp_path / "run", settings)
    kept = latest_checkpoint(tmp_path / "run" / "checkpoints", plan_stages(settings))
    assert kept is not None
    assert kept.step == 15, "not one of step 18, 21 or 24"


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"stage1_share": 1.5}, "stage1_share is 1.5"),
        ({"learning_rate_stage1": "fast"}, "learning_rate_stage1 must be a number"),
        ({"learning_rate_stage2": float("nan")}, "learning_rate_stage2 is nan"),
        ({"prompts": "one"}, "prompts must be a list"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps is 0"),
        ({"temperature": 0.5}, "temperature is 0.5"),
        ({"mix": {"de": -1}}, "mix of 'de' is -1"),
        ({"mix": {"de": "much"}}, "mix of 'de' must be a number"),
        ({"mix": ["de"]}, "mix must be numbers by slice"),
        ({"cross_documents": None}, "cross_documents must be true or false"),
        ({"bf16": "yes"}, "bf16 must be true or false"),
        ({"epochs": 3}, "no setting 'epochs'"),
    ],
)
def test_invalid_settings_are_refused_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        AdaptSettings.from_dict(values)


def test_settings_round_trip_through_json() -> None:
    settings = AdaptSettings.from_dict({"steps": 3, "prompts": ["a", "b"], "learning_rate_stage1": 1, "mix": {"de": 2}})
    assert AdaptSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_model_with_multi_token_prediction_heads_is_refused(model_folder: Path, text: str, tmp_path: Path) -> None:
    tensors = load_file(model_folder / "model.safetensors")
    tensors["model.layers.2.eh_proj.weight"] = torch.ones(32, 64)
    save_file(tensors, model_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 tensors that predict further .*model.layers.2.eh_proj.weight.*lack them"):
        run(model_folder, text, tmp_path / "run")


def test_sequences_longer_than_the_context_are_refused(model_folder: Path, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 64 tokens"):
        run(model_folder, text, tmp_path / "run", AdaptSettings(sequence_length=65))


# --- recovery -------------------------------------------------------------------------------------------------


def test_the_recipe_papers_has_the_settings_of_the_papers() -> None:
    settings = AdaptSettings.from_dict({"recipe": "papers", "steps": 100})
    stages = plan_stages(settings)
    assert [(stage.number, stage.steps, stage.learning_rate) for stage in stages] == [(1, 50, 6.4e-4), (2, 50, 5e-5)]
    assert (settings.warmup_ratio, settings.gradient_clip, settings.patience) == (0.03, 0.3, 0)
    assert AdaptSettings.from_dict(settings.to_dict()) == settings
    mine = AdaptSettings.from_dict({"recipe": "papers", "learning_rate_stage2": 1e-5})
    assert (mine.learning_rate_stage2, mine.learning_rate_stage1) == (1e-5, 6.4e-4)
    with pytest.raises(InputError, match="no recovery recipe 'best'; choose one of recover, text, alm, states, papers"):
        AdaptSettings.from_dict({"recipe": "best"})


def test_rates_depend_on_the_tokens_per_step_and_per_run() -> None:
    few = {"sequence_length": 128, "batch_size": 1}
    assert AdaptSettings(**few, steps=100).rates() == pytest.approx((3e-4, 1e-4))
    assert AdaptSettings(**few, steps=50, gradient_accumulation_steps=2).rates(2) == pytest.approx((6e-4, 2e-4))
    assert AdaptSettings(**few, steps=4 * 30_000 // 128).rates() == pytest.approx((1.5e-4, 5e-5), rel=1e-3)
    assert AdaptSettings(**few, steps=10_000, learning_rate_stage2=8e-5).rates() == (8e-5, 8e-5)


def test_rows_have_a_separate_learning_rate(model_folder: Path, text: str, tmp_path: Path) -> None:
    settings = {"steps": 1, "batch_size": 2, "sequence_length": 16, "evaluate_bytes": 200, "held_out_share": 0.2}
    settings |= {"learning_rate_stage2": 1e-4, "learning_rate_rows": 1e-2, "warmup_ratio": 0.0, "prompts": []}
    run(model_folder, text, tmp_path / "run", AdaptSettings.from_dict({**settings, "patience": 0}))
    before = load_model(str(model_folder), device="cpu").state_dict()
    after = load_model(str(tmp_path / "run" / "model"), device="cpu").state_dict()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    for name, change in moved.items():
        rows = name in ("model.embed_tokens.weight", "lm_head.weight")
        assert change == pytest.approx(1e-2 if rows else 1e-4, rel=0.05), name  # the first step of Adam is its rate


@pytest.mark.parametrize(("kind", "recipe"), [("llama", "recover"), ("llama_tied", "recover"), ("llama", "text")])
@pytest.mark.parametrize("stage1_share", [0.0, 1.0])
def test_rows_of_shared_tokens_are_frozen_on_request(
    kind: str, recipe: str, stage1_share: float, text: str, tmp_path: Path
) -> None:
    source, moved = save_tiny(tmp_path / "source", size=290, seed=3), save_tiny(tmp_path / "moved", kind, size=330)
    (moved / "tokalign.json").write_text(json.dumps({"model": str(source)}), encoding="utf-8")
    settings = {**SMALL.to_dict(), "recipe": recipe, "steps": 4, "stage1_share": stage1_share, "patience": 0}
    run(moved, text, tmp_path / "run", AdaptSettings.from_dict({**settings, "freeze_shared_rows": True}))
    new = new_tokens(load_vocabulary(str(moved)), load_vocabulary(str(source)))
    old = np.setdiff1d(np.arange(load_vocabulary(str(moved)).size), new)
    assert min(len(new), len(old)) > 20
    before = load_model(str(moved), device="cpu").state_dict()
    after = load_model(str(tmp_path / "run" / "model"), device="cpu").state_dict()
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    for name in rows:
        assert torch.equal(before[name][old], after[name][old]), name
        assert (before[name][new] != after[name][new]).any(), name
    for name in before.keys() - rows:
        assert torch.equal(before[name], after[name]) == bool(stage1_share), name


def test_frozen_rows_that_would_change_or_are_unknown_are_refused(
    model_folder: Path, text: str, tmp_path: Path
) -> None:
    frozen = {**SMALL.to_dict(), "freeze_shared_rows": True, "weight_decay": 0.0}
    with pytest.raises(InputError, match="Weight decay would change frozen rows"):
        AdaptSettings.from_dict({**frozen, "weight_decay": 0.1})
    with pytest.raises(InputError, match="needs the source's tokenizer, which cannot be read"):
        run(model_folder, text, tmp_path / "run", AdaptSettings.from_dict(frozen))
    (model_folder / "tokalign.json").write_text(json.dumps({"model": str(model_folder)}), encoding="utf-8")
    with pytest.raises(InputError, match="would leave no row to train"):
        run(model_folder, text, tmp_path / "run", AdaptSettings.from_dict(frozen))


def test_a_run_that_no_longer_improves_stops_and_keeps_its_best_step(
    model_folder: Path, text: str, tmp_path: Path
) -> None:
    settings = {**SMALL.to_dict(), "recipe": "recover", "stage1_share": 0.0, "steps": 24, "evaluate_every": 2}
    settings |= {"learning_rate_stage2": 0.3, "patience": 2, "gradient_clip": 1.0}
    events = run(model_folder, text, tmp_path / "run", AdaptSettings.from_dict(settings))
    measured = {event["step"]: event["bits_per_byte"] for event in events.of("evaluation")}
    (kept,) = events.of("kept")
    assert kept["step"] == min(measured, key=measured.__getitem__) < kept["last_step"] == max(measured) < 24
    assert kept["reason"].startswith(f"Stopped at step {max(measured)}: held-out text has not improved")
    tuned = load_model(str(tmp_path / "run" / "model"), device="cpu")
    again = run(tmp_path / "run" / "model", text, tmp_path / "again", AdaptSettings.from_dict({**settings, "steps": 1}))
    assert again.of("evaluation")[0]["bits_per_byte"] == pytest.approx(measured[kept["step"]], rel=1e-5)
    assert not tuned.training
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_card_compares_the_model_before_and_after_tuning(model_folder: Path, text: str, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(model_folder, tmp_path / "moved"))
    lost = {"lost": ["The chat template is gone."], "begin_texts_with": "<s>"}
    (moved / "tokalign.json").write_text(json.dumps(lost), encoding="utf-8")
    events = run(moved, text, tmp_path / "run")
    card = json.loads((tmp_path / "run" / "model" / "tokalign.json").read_text(encoding="utf-8"))
    assert {name: card[name] for name in lost} == lost
    scores = card["scores"]
    first, *_, last = events.of("evaluation")
    for name in ("bits_per_byte", "probes_answered"):
        assert (scores[f"{name}_before"], scores[name]) == (first[name], last[name])
    assert scores["bits_per_byte_before"] > scores["bits_per_byte"]
    assert "| probes_answered_before |" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")


def test_a_run_reports_which_rows_its_text_trains(model_folder: Path, text: str, tmp_path: Path) -> None:
    events = run(model_folder, text, tmp_path / "run")
    (coverage,) = events.of("coverage")
    assert 0 < coverage["rows_trained"] < coverage["rows"]
    assert 0.5 < coverage["held_out_trained"] <= 1.0
    assert "new_tokens" not in coverage
    lacks = f"{coverage['rows'] - coverage['rows_trained']:,} of {coverage['rows']:,} tokens do not occur"
    (event,) = events.of("progress")
    assert event["message"].startswith(lacks)
    assert events.index(event) < events.index(events.of("evaluation")[0]), "before the run works"


@pytest.mark.parametrize(("recipe", "part"), [("recover", "branches"), ("alm", "likelihood"), ("states", "states")])
def test_the_source_teaches_with_its_own_tokenizer(recipe: str, part: str, text: str, tmp_path: Path) -> None:
    source, moved = save_tiny(tmp_path / "source", size=320, seed=3), save_tiny(tmp_path / "moved", size=280)
    teacher = LlamaForCausalLM.from_pretrained(source)
    expect_words(teacher, load_vocabulary(str(source))).save_pretrained(source)
    (moved / "tokalign.json").write_text(json.dumps({"model": str(source)}), encoding="utf-8")
    settings = {**SMALL.to_dict(), "recipe": recipe, "steps": 4, "save_every": 2, "stage1_share": 0.0, "patience": 4}
    events = run(moved, text, tmp_path / "run", AdaptSettings.from_dict(settings))
    steps = events.of("step")
    assert len(steps) == 4
    assert all(step[part] > 0 and step["next_token"] > 0 for step in steps)
    assert events.of("source") == [{"kind": "source", "losses": RECIPES[recipe].losses, "reason": ""}]
    (coverage,) = events.of("coverage")
    assert coverage["new_tokens"] == len(new_tokens(load_vocabulary(str(moved)), load_vocabulary(str(source))))
    assert 0 <= coverage["new_tokens_trained"] <= coverage["new_tokens"]
    taught: dict[str, Any] = {"recipe": recipe, "teacher": "gemma-3-270m"}
    (moved / "tokalign.json").unlink()
    if recipe == "recover":
        assert AdaptSettings.from_dict(taught).source_losses == {}
        (source_event,) = run(moved, text, tmp_path / "other", AdaptSettings.from_dict(settings)).of("source")
        assert source_event["losses"] == {}
        assert "does not name the model that was converted" in source_event["reason"]
        return
    with pytest.raises(InputError, match="Losses from the source and a teacher do not go together"):
        AdaptSettings.from_dict(taught)
    with pytest.raises(InputError, match="does not name the model that was converted"):
        run(moved, text, tmp_path / "other", AdaptSettings.from_dict(settings))


def test_a_model_that_cannot_read_branches_is_recovered_without_them(text: str, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", "bloom", size=320, seed=3)
    moved = save_tiny(tmp_path / "moved", "bloom", size=280)
    (moved / "tokalign.json").write_text(json.dumps({"model": str(source)}), encoding="utf-8")
    settings = {**SMALL.to_dict(), "recipe": "recover", "steps": 2, "stage1_share": 0.0}
    events = run(moved, text, tmp_path / "run", AdaptSettings.from_dict(settings))
    assert all(step["prefix"] > 0 and "branches" not in step for step in events.of("step"))
    (used,) = events.of("source")
    assert used["losses"] == {"prefix": 1.0}
    assert used["reason"].startswith("A model of type 'bloom' does not read branches in sequences of 16 tokens")
    asked = AdaptSettings.from_dict({**settings, "losses": {"branches": 1.0}})
    with pytest.raises(InputError, match=r"'bloom' does not read branches .*; leave branches out of the losses"):
        run(moved, text, tmp_path / "other", asked)


def test_a_model_with_stop_strings_generates_samples() -> None:
    vocabulary = tiny_vocabulary(300)
    model = tiny_model("llama", vocabulary.size)
    whole = continue_text(model, vocabulary, "ab", 5)
    model.generation_config.stop_strings = ["no text has this"]
    assert continue_text(model, vocabulary, "ab", 5) == whole


def test_probes_and_samples_begin_with_the_token_that_bits_per_byte_begins_with() -> None:
    tokenizer = tiny_tokenizer(300, eos=None)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    vocabulary = Vocabulary.from_tokenizer(tokenizer, "only pad")
    model, read = tiny_model("llama", vocabulary.size), []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: read.append(int(inputs[0][0, 0])))
    for use in (
        lambda: bits_per_byte(model, vocabulary, [Document("ab", "d", "d")]),
        lambda: ask(model, vocabulary, [Probe("a", "b")]),
        lambda: continue_text(model, vocabulary, "ab", 1),
    ):
        use()
        assert read[-1] == vocabulary.roles["pad"]
