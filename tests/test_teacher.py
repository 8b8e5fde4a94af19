"""A teacher's predictions, live and cached: the same tokens for both models, complete files, and resumed work."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distilled import distillation_loss
from tiny import WORDS, tiny_model, tiny_tokenizer, tiny_vocabulary

from tokalign_lab.adaptation import teacher_cache as module
from tokalign_lab.adaptation.data import PackedBlocks
from tokalign_lab.adaptation.settings import DistillationSettings
from tokalign_lab.adaptation.teacher import Teacher, check_same_tokenizer
from tokalign_lab.adaptation.teacher_cache import TeacherCache, keep_predictions
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.files import CHECKSUMS
from tokalign_lab.vocabulary import Vocabulary

VOCABULARY = tiny_vocabulary(300, bos="<s>")
LENGTH = 16


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def blocks(_own_cache: None) -> PackedBlocks:
    documents = [Document(f"{number}. {WORDS}", str(number), str(number)) for number in range(6)]
    return PackedBlocks(Corpus.build(documents, VOCABULARY), VOCABULARY, LENGTH)


def a_teacher(kind: str = "llama", rows: int | None = None, seed: int = 3) -> Teacher:
    return Teacher(tiny_model(kind, rows or VOCABULARY.size, seed), VOCABULARY, VOCABULARY)


def keep(
    teacher: Teacher, blocks: PackedBlocks, k: int = 4, numbers: Sequence[int] | None = None, **options: Any
) -> TeacherCache:
    return keep_predictions(teacher, blocks, range(len(blocks)) if numbers is None else numbers, k, **options)


def log_probs_of(teacher: Teacher, block: np.ndarray, temperature: float = 1.0) -> torch.Tensor:
    """Return the model's own predictions of the tokens that both models have."""
    with torch.no_grad():
        logits = teacher.model(input_ids=torch.from_numpy(block)[None]).logits[0, :-1, : VOCABULARY.size]
    return torch.log_softmax(logits.float() / temperature, dim=1)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in module._FILES}


@pytest.mark.parametrize("kind", ["llama", "gemma3", "phi"])  # plain, soft-capped, with a head bias
@pytest.mark.parametrize("rows", [VOCABULARY.size, VOCABULARY.size + 40])  # padded
def test_the_cache_holds_the_model_s_predictions_of_the_student_s_tokens(
    kind: str, rows: int, blocks: PackedBlocks
) -> None:
    teacher = a_teacher(kind, rows)
    cache = keep(teacher, blocks, k=8, temperature=2.0)
    kept = cache.predictions([2])
    truth = log_probs_of(teacher, blocks[2])
    best = truth.topk(8, dim=1)
    assert kept.input_ids.max() < VOCABULARY.size
    torch.testing.assert_close(truth.gather(1, kept.input_ids), best.values)
    torch.testing.assert_close(kept.log_probs, best.values, rtol=2**-11, atol=1e-4)
    rest = torch.logsumexp(truth.scatter(1, best.indices, -math.inf) / 2.0, dim=1)
    torch.testing.assert_close(kept.log_rest, rest, rtol=1e-4, atol=1e-4)


def test_bos_is_only_where_the_student_s_block_has_it(blocks: PackedBlocks) -> None:
    # a teacher whose tokenizer adds no bos reads the same ids as the student
    model = tiny_model("llama", VOCABULARY.size, 3)
    without = Vocabulary.from_tokenizer(tiny_tokenizer(300, bos="<s>"), "no bos")
    del without.roles["bos"]
    read = Teacher(model, without, VOCABULARY).best(torch.from_numpy(blocks[0])[None], 4, 1.0)
    wanted = a_teacher().best(torch.from_numpy(blocks[0])[None], 4, 1.0)
    assert blocks[0][0] == VOCABULARY.roles["bos"]
    assert torch.equal(read[0], wanted[0])
    assert torch.equal(read[0][0], log_probs_of(a_teacher(), blocks[0])[0].topk(4).indices)


def test_another_tokenizer_is_refused(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    with pytest.raises(InputError, match=r"one vocabulary; rearrange"):
        check_same_tokenizer(sp32k_vocabulary, smollm_vocabulary)
    with pytest.raises(InputError, match="not the student's"):
        Teacher(tiny_model("llama", 400), tiny_vocabulary(280), VOCABULARY)


def test_the_real_teacher_s_tokenizer_is_that_of_a_student_moved_to_it() -> None:
    check_same_tokenizer(load_vocabulary("gemma-3-270m"), load_vocabulary("gemma3"))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_cache_equals_live_predictions_except_for_omitted_tokens(
    direction: str, temperature: float, blocks: PackedBlocks
) -> None:
    teacher, student = a_teacher(), a_teacher(seed=5)
    settings = DistillationSettings(1.0, temperature, direction)
    chosen = [1, 3]
    ids = torch.from_numpy(np.stack([blocks[i] for i in chosen]))
    states = student.predictions(ids).states.double()
    weight = student.model.get_output_embeddings().weight.detach().double()
    labels = ids[:, 1:].flatten()

    def divergence(predictions) -> float:
        made = distillation_loss(states, weight, labels, predictions, settings, VOCABULARY.size)
        return made.divergence.item()

    whole = divergence(teacher.predictions(ids))
    kept = {
        k: divergence(keep_predictions(teacher, blocks, chosen, k, temperature).predictions(chosen))
        for k in (4, 32, VOCABULARY.size - 1)
    }
    assert kept[4] < kept[32] < whole
    # with k = all but one nothing is omitted; only float16 rounds the log probabilities
    assert kept[VOCABULARY.size - 1] == pytest.approx(whole, rel=1e-3)
    if direction == "forward":  # the chain rule of KL, position by position
        log_t = torch.cat([log_probs_of(teacher, blocks[i], temperature) for i in chosen]).double()
        log_s = torch.log_softmax(states @ weight.T / temperature, dim=1)
        rest = torch.ones_like(log_t, dtype=torch.bool).scatter(1, log_t.topk(32, dim=1).indices, False)
        inside_t, inside_s = (torch.log_softmax(log_p.masked_fill(~rest, -math.inf), 1) for log_p in (log_t, log_s))
        inner = (inside_t.exp() * (inside_t - inside_s)).masked_fill(~rest, 0).sum(1)
        left_out = (log_t.exp().masked_fill(~rest, 0).sum(1) * inner).mean().item()
        assert kept[32] == pytest.approx(whole - left_out, rel=1e-3)


def test_a_student_that_equals_its_teacher_gets_no_gradient(blocks: PackedBlocks) -> None:
    teacher = a_teacher()
    ids = torch.from_numpy(np.stack([blocks[i] for i in range(4)]))
    weight = teacher.model.get_output_embeddings().weight.detach()
    cache = keep_predictions(teacher, blocks, range(4), k=16)
    for predictions, most in ((teacher.predictions(ids), 1e-7), (cache.predictions(range(4)), 1e-5)):
        states = teacher.predictions(ids).states.clone().requires_grad_()
        labels = ids[:, 1:].flatten()
        gradients = []
        for strength in (1.0, 0.0):
            settings = DistillationSettings(weight=strength)
            made = distillation_loss(states, weight, labels, predictions, settings, VOCABULARY.size)
            gradients.append(torch.autograd.grad(made.loss, states)[0])
            assert abs(made.divergence.item()) < most
        pull, text = (gradients[0] - gradients[1]).norm(), gradients[1].norm()
        assert pull < 1e-3 * text  # float16 rounding at most; with a live teacher it is zero


def test_interrupted_work_resumes_and_gives_the_same_files(
    blocks: PackedBlocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_TOKENS", {"cpu": 3 * LENGTH})
    teacher = a_teacher()
    whole = files_of(keep(teacher, blocks, k=4).folder)
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "another"))

    class Stop(BaseException):
        pass

    calls = iter(range(100))

    def interrupt() -> None:
        if next(calls) == 3:
            raise Stop

    with pytest.raises(Stop):
        keep(teacher, blocks, k=4, interrupt=interrupt)
    root = tmp_path / "another" / "teacher"
    (unfinished,) = root.glob(".*.part")
    assert json.loads((unfinished / "done.json").read_text())["blocks"] == 9
    with open(unfinished / "log_rest", "ab") as file:
        file.write(b"torn")  # as left by a kill in the middle of a batch
    shares: list[float] = []
    again = keep(teacher, blocks, k=4, progress=lambda share, message: shares.append(share))
    assert shares[0] == pytest.approx(9 / len(blocks))
    assert files_of(again.folder) == whole
    assert [path.name for path in root.iterdir()] == [again.folder.name]
    assert {path.name for path in again.folder.iterdir()} == {
        *module._FILES, "numbers.npy", "teacher.json", CHECKSUMS,
    }  # fmt: skip


def test_cached_predictions_are_found_by_their_content(blocks: PackedBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keep(a_teacher(), blocks, k=4).folder
    others = {
        keep(a_teacher(seed=4), blocks, k=4).folder,
        keep(a_teacher(), blocks, k=5).folder,
        keep(a_teacher(), blocks, k=4, temperature=2.0).folder,
        keep(a_teacher(), blocks, numbers=[0], k=4).folder,
    }
    assert len(others | {first}) == 5
    monkeypatch.setattr(module, "_write", None)  # writing a second time would fail
    assert keep(a_teacher(), blocks, k=4).folder == first


def test_only_the_requested_blocks_are_cached(blocks: PackedBlocks) -> None:
    cache = keep(a_teacher(), blocks, numbers=[5, 2, 2], k=4)
    assert cache.numbers.tolist() == [2, 5]
    whole = keep(a_teacher(), blocks, k=4)
    assert torch.equal(cache.predictions([5, 2]).input_ids, whole.predictions([5, 2]).input_ids)
    with pytest.raises(InputError, match="block 3 were not kept"):
        TeacherCache(cache.folder).predictions([2, 3])


def test_two_processes_do_not_write_one_cache(blocks: PackedBlocks, tmp_path: Path) -> None:
    def interrupt() -> None:
        keep(a_teacher(), blocks, k=4)

    with pytest.raises(InputError, match="Another process"):
        keep(a_teacher(), blocks, k=4, interrupt=interrupt)


def test_nobody_writes_while_the_checksums_are_made(blocks: PackedBlocks, monkeypatch: pytest.MonkeyPatch) -> None:
    seal = module.seal

    def sealed(folder: Path) -> None:
        with pytest.raises(InputError, match="Another process"):
            keep(a_teacher(), blocks, k=6)
        seal(folder)

    monkeypatch.setattr(module, "seal", sealed)
    assert keep(a_teacher(), blocks, k=6).folder.is_dir()


@pytest.mark.parametrize(("k", "message"), [(0, "k is 0"), (VOCABULARY.size, f"fewer than the {VOCABULARY.size}")])
def test_a_number_of_tokens_that_the_vocabulary_has_not_is_refused(k: int, message: str, blocks: PackedBlocks) -> None:
    with pytest.raises(InputError, match=message):
        keep(a_teacher(), blocks, k=k)


def test_a_teacher_with_fewer_rows_than_ids_is_refused() -> None:
    with pytest.raises(InputError, match="do not belong together"):
        a_teacher(rows=VOCABULARY.size - 1)
