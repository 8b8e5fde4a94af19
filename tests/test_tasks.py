"""The papers' six tasks: prompts and metrics of the harness on local files, with our log-likelihoods."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WORDS, save_tiny, tiny_model, tiny_vocabulary
from tokenizers.processors import TemplateProcessing
from typer.testing import CliRunner

pytest.importorskip("lm_eval")

from tokalign_lab import catalog
from tokalign_lab.cli import app
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation import tasks
from tokalign_lab.evaluation.tasks import PAPER_TASKS, gather, harness_model, score_tasks
from tokalign_lab.model.load import load_model
from tokalign_lab.progress import silent
from tokalign_lab.vocabulary import Vocabulary


def lines_of(task: str) -> list[dict]:
    return [json.loads(line) for line in catalog.get(task).read_text(encoding="utf-8").splitlines()]


def drawn(task: str, limit: int, seed: int = 0) -> list[dict]:
    questions = lines_of(task)
    return [questions[i] for i in sorted(np.random.default_rng(seed).permutation(len(questions))[:limit])]


@torch.inference_mode()
def log_likelihood(model: torch.nn.Module, vocabulary: Vocabulary, prompt: str, answer: str) -> float:
    """Compute a log-likelihood from the model's logits, without our code or the harness's."""
    ids = vocabulary.tokenizer.encode(prompt + answer)
    n = len(ids) - len(vocabulary.tokenizer.encode(prompt))
    log_p = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(float(log_p[place - 1, ids[place]]) for place in range(len(ids) - n, len(ids)))


@pytest.fixture(scope="module")
def smollm() -> torch.nn.Module:
    return load_model("smollm2-135m", device="cpu")


def test_arc_easy_on_the_real_model_equals_a_count_by_hand(smollm, smollm_vocabulary: Vocabulary) -> None:
    right, right_norm = [], []
    for question in drawn("arc-easy", 4):
        answers = question["choices"]["text"]
        prompt = f"Question: {question['question']}\nAnswer:"
        values = np.array([log_likelihood(smollm, smollm_vocabulary, prompt, f" {answer}") for answer in answers])
        gold = question["choices"]["label"].index(question["answerKey"])
        right.append(int(values.argmax()) == gold)
        right_norm.append(int((values / [len(answer) for answer in answers]).argmax()) == gold)
    (row,) = score_tasks(smollm, smollm_vocabulary, ["arc-easy"], [0], limit=4).rows
    assert (row.n, row.n_all) == (4, 570)
    assert row.acc == pytest.approx(np.mean(right))
    assert row.acc_norm == pytest.approx(np.mean(right_norm))
    assert row.acc_stderr == pytest.approx(np.std(right, ddof=1) / 4**0.5)


def test_winogrande_on_the_real_model_equals_a_count_by_hand(smollm, smollm_vocabulary: Vocabulary) -> None:
    right = []
    for question in drawn("winogrande", 4):
        before, after = question["sentence"].split("_", 1)
        values = [
            log_likelihood(smollm, smollm_vocabulary, before + question[option], f" {after.strip()}")
            for option in ("option1", "option2")
        ]
        right.append(int(np.argmax(values)) == int(question["answer"]) - 1)
    (row,) = score_tasks(smollm, smollm_vocabulary, ["winogrande"], [0], limit=4).rows
    assert row.acc == pytest.approx(np.mean(right))
    assert row.acc_norm is None
    assert row.guess == 0.5


def test_log_likelihoods_equal_the_harness_s_own(smollm_vocabulary: Vocabulary) -> None:
    from lm_eval.models.huggingface import HFLM

    model = tiny_model("gemma3", smollm_vocabulary.size)  # caps its logits
    tokenizer = smollm_vocabulary.tokenizer
    pairs = [
        ("Is it so?\nAnswer:", " yes"),
        ("Is it so?\nAnswer:", " no"),
        ("A man", " walks home now."),
    ]
    pairs += [("word " * 100, " is too long for this model")]  # 64 positions: cut from the left
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)
    requests = [(pair, *theirs._encode_pair(*pair)) for pair in pairs]
    ours = harness_model(model, tokenizer, 64, silent, "")
    found = [value for value, _ in ours._loglikelihood_tokens(requests)]
    wanted = [value for value, _ in theirs._loglikelihood_tokens(requests, disable_tqdm=True)]
    assert found == pytest.approx(wanted, rel=1e-4)
    assert len(gather(requests, ours.max_length)) == len(requests) - 1  # yes and no are computed together


@pytest.mark.parametrize(("template", "begin"), [("$A", []), ("<s> $A", [0]), ("$A </s>", []), ("<s> $A </s>", [0])])
def test_answers_are_read_whole_whatever_a_tokenizer_adds_to_texts(template: str, begin: list[int]) -> None:
    vocabulary = tiny_vocabulary(300, bos="<s>")
    backend = vocabulary.tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 0), ("</s>", 1)])
    backend.enable_truncation(12)
    reader = harness_model(tiny_model("llama", vocabulary.size), vocabulary.tokenizer, 64, silent, "")
    prompt, answer = reader._encode_pair("The cat sat", " on the mat")
    assert [prompt, answer] == [
        begin + vocabulary.encode(["The cat sat"])[0].tolist(),
        vocabulary.encode([" on the mat"])[0].tolist(),
    ]


def test_all_six_tasks_with_examples() -> None:
    vocabulary = tiny_vocabulary()
    model = tiny_model("llama", vocabulary.size)
    model.config.max_position_embeddings = 4096
    shares: list[float] = []
    scores = score_tasks(
        model,
        vocabulary,
        shots=[0, 2],
        limit=3,
        progress=lambda share, message: shares.append(share),
    )
    assert [(row.shots, row.task) for row in scores.rows] == [(n, task) for n in (0, 2) for task in PAPER_TASKS]
    assert all(row.n == 3 for row in scores.rows)
    sizes = {row.task: row.n_all for row in scores.rows}
    assert sizes == {
        "arc-easy": 570,
        "boolq": 3270,
        "hellaswag": 10_042,
        "openbookqa": 500,
        "piqa": 1838,
        "winogrande": 1267,
    }
    guesses = {row.task: row.guess for row in scores.rows}
    assert guesses["boolq"] == guesses["piqa"] == guesses["winogrande"] == 0.5
    assert guesses["hellaswag"] == guesses["openbookqa"] == 0.25
    assert scores.mean(2) == pytest.approx(np.mean([row.acc for row in scores.rows[6:]]))
    assert scores.to_dict()["mean"]["2"] == scores.mean(2)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_the_scored_question_is_never_among_its_examples(tmp_path: Path) -> None:
    few = tmp_path / "openbookqa.jsonl"
    few.write_text("\n".join(json.dumps(line) for line in lines_of("openbookqa")[:6]), encoding="utf-8")
    (task,) = tasks._load_tasks({"openbookqa": few}, tmp_path / "..").values()
    task.set_fewshot_seed(seed=1)
    for question in task.eval_docs:
        prompt = task.fewshot_context(question, num_fewshot=5)  # all other questions
        stems = [line["question_stem"] for line in lines_of("openbookqa")[:6]]
        assert all(prompt.count(stem) == 1 for stem in stems)
        assert prompt.endswith(question["question_stem"])


def test_boolq_answers_are_in_the_right_order(tmp_path: Path) -> None:
    (task,) = tasks._load_tasks({"boolq": catalog.get("boolq")}, tmp_path).values()
    for question in list(task.eval_docs)[:5]:
        assert task.doc_to_choice(question)[task.doc_to_target(question)] == ("yes" if question["answer"] else "no")


def test_questions_do_not_depend_on_the_model() -> None:
    vocabulary = tiny_vocabulary()
    first, second = (
        score_tasks(tiny_model("llama", vocabulary.size, seed), vocabulary, ["arc-easy"], [0], limit=40)
        for seed in (1, 2)
    )
    assert first.rows[0].guess == second.rows[0].guess
    assert first.rows[0].acc != second.rows[0].acc


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["arc-hard"]}, "no task 'arc-hard'.*arc-easy"),
        ({"tasks": "boolq,arc-hard"}, "no task 'arc-hard'.*arc-easy"),
        ({"tasks": []}, "No task"),
        ({"shots": [-1]}, "shots"),
        ({"limit": 1}, "at least 2"),
        ({"tasks": ["openbookqa"], "shots": [500]}, "has 500 questions; give fewer shots"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(options: dict, message: str) -> None:
    vocabulary = tiny_vocabulary()
    with pytest.raises(InputError, match=message):
        score_tasks(tiny_model("llama", vocabulary.size), vocabulary, **options)


def test_prompts_that_are_cut_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    vocabulary = tiny_vocabulary()
    score_tasks(tiny_model("llama", vocabulary.size), vocabulary, ["boolq"], [1], limit=2)
    assert "boolq, 1-shot: 4 of 4 inputs lose their beginning" in caplog.text


def test_an_answer_longer_than_the_model_reads_is_refused() -> None:
    vocabulary = tiny_vocabulary()
    with pytest.raises(InputError, match="at most 64 tokens"):
        score_tasks(tiny_model("llama", vocabulary.size), vocabulary, ["piqa"], [0])


def test_an_answer_without_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="gives the answer ' yes' no token"):
        gather([(("Is it?", " no"), [1, 2], [3]), (("Is it?", " yes"), [1, 2], [])], 64)


def test_predictions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path / "m"))
    model = load_model(folder, device="cpu")
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.nan
    model.save_pretrained(folder)
    (tmp_path / "text.txt").write_text(WORDS * 100, encoding="utf-8")
    evaluate = ["evaluate", folder, "--tasks", "winogrande", "--shots", "0", "--limit", "2"]
    infinite = load_model(str(save_tiny(tmp_path / "infinite")), device="cpu")
    infinite.lm_head.weight.data *= 1e38
    infinite.save_pretrained(tmp_path / "infinite")
    bits = [["bpb", str(tmp_path / name), "--text", str(tmp_path / "text.txt")] for name in ("m", "infinite")]
    for arguments in (evaluate, *bits):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 2
        assert "predictions are no numbers" in done.stderr


def test_a_tokenizer_that_is_not_the_model_s_is_refused() -> None:
    vocabulary = tiny_vocabulary()
    with pytest.raises(InputError, match="do not belong together"):
        score_tasks(tiny_model("llama", vocabulary.size - 1), vocabulary, ["boolq"], [0], limit=2)


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    vocabulary = tiny_vocabulary()
    with pytest.raises(InputError, match=r"tokalign-lab\[tasks\]"):
        score_tasks(tiny_model("llama", vocabulary.size), vocabulary, ["boolq"], [0], limit=2)


def test_the_command_compares_models(tmp_path: Path) -> None:
    folders = [str(save_tiny(tmp_path / name, seed=seed)) for seed, name in enumerate(("a", "b"))]
    (tmp_path / "text.txt").write_text("Some text to measure on.\n" * 30, encoding="utf-8")
    given = ["evaluate", *folders, "--tasks", "arc-easy,boolq", "--shots", "0", "--limit", "4"]
    given += ["--text", str(tmp_path / "text.txt")]
    done = CliRunner().invoke(app, [*given, "--json"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert [model["model"] for model in result["models"]] == folders
    for model in result["models"]:
        assert [row["task"] for row in model["rows"]] == ["arc-easy", "boolq"]
        assert model["mean"]["0"] == pytest.approx(np.mean([row["acc"] for row in model["rows"]]))
        assert model["bits_per_byte"] > 0
    shown = CliRunner().invoke(app, given).stdout
    assert "guess" in shown
    assert "mean" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--tasks", "arc"], "arc-easy"), (["--shots", "few"], "0,5"), (["--text", "nowhere.txt"], "nowhere.txt")],
)
def test_bad_input_of_the_command_is_one_sentence(tmp_path: Path, options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(save_tiny(tmp_path / "tiny")), *options])
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
