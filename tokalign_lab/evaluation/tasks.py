"""The papers' six tasks, scored by EleutherAI's lm-evaluation-harness over local files.

TokAlign and TokAlign++ report ARC-Easy, BoolQ, HellaSwag, OpenBookQA, PIQA and WinoGrande, 0- and 5-shot, with the
harness's default prompts. Prompts, few-shot layout, answers and metrics are the harness's own: its task files are used
unchanged, but with the catalogue's validation sets, so no hub is needed. Only the log-likelihoods are from `Scorer`,
which computes logits in chunks: the harness would store all of them, gigabytes for a 5-shot batch over 262k tokens.
Questions with the same prompt and answer except for the last token (yes and no) are read once.

`acc` chooses the answer with the largest log-likelihood; `acc_norm` divides it by the answer's characters first. The
mean over tasks is of `acc`, like the papers' figures (OpenBookQA at 21 %, HellaSwag at 36 % for Pythia-1B).

Two differences from the papers, because only validation sets are available: few-shot examples are sampled from the
validation set (never the scored question; the harness uses the training set), and BoolQ's passages lack the title of
SuperGLUE's copy. In BoolQ, always answering yes is right for 62 % of the questions.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab import catalog
from tokalign_lab.errors import InputError, require_extra
from tokalign_lab.evaluation.bits_per_byte import batches, check_number, scoring
from tokalign_lab.files import cache_folder
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.token_table import encode_plainly
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HARNESS_FILES = {
    "arc-easy": "arc/arc_easy.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
}
PAPER_TASKS = tuple(_HARNESS_FILES)
"""The six tasks, by their names in the catalogue."""
SHOTS = (0, 5)
_log = logging.getLogger("tokalign_lab")
_FEW_SHOT_SEED = 1234  # the harness's default
_BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}

Request = tuple[tuple[str, str], list[int], list[int]]
"""Prompt and answer as text, and the ids of each."""


@dataclass
class _Input:
    """One input sequence, and the answers at its end: (request, the prompt's last position, tokens)."""

    ids: tuple[int, ...]
    answers: list[tuple[int, int, list[int]]] = field(default_factory=list)


@dataclass(frozen=True)
class TaskScore:
    """One model's score in one task.

    Attributes
    ----------
    task, shots : name in the catalogue, and examples in the prompt
    acc, acc_stderr : share of right answers, 0 to 1, and its standard error
    acc_norm, acc_norm_stderr : the same by log-likelihood per character; None if the harness does not report it (BoolQ,
        WinoGrande)
    guess : expected `acc` of a random guess on these questions
    n, n_all : questions scored, and questions in the task
    """

    task: str
    shots: int
    acc: float
    acc_stderr: float
    acc_norm: float | None
    acc_norm_stderr: float | None
    guess: float
    n: int
    n_all: int


@dataclass(frozen=True)
class TaskScores:
    """One model's scores, one row per task and number of shots."""

    rows: tuple[TaskScore, ...]

    def mean(self, shots: int) -> float:
        """Return the unweighted mean of `acc` over the tasks, as in the papers' tables."""
        return float(np.mean([row.acc for row in self.rows if row.shots == shots]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: "rows", and "mean" by number of shots."""
        shots = dict.fromkeys(row.shots for row in self.rows)
        return {"rows": [asdict(row) for row in self.rows], "mean": {str(n): self.mean(n) for n in shots}}


def task_names(tasks: str | Sequence[str]) -> list[str]:
    """Return task names, with "papers" replaced by all six; InputError for an unknown task or none.

    `tasks` can be one string, with commas between names.
    """
    tasks = tasks.split(",") if isinstance(tasks, str) else tasks
    names = list(dict.fromkeys(name for task in tasks for name in (PAPER_TASKS if task == "papers" else (task,))))
    for name in names:
        if name not in PAPER_TASKS:
            raise InputError(f"There is no task {name!r}; choose 'papers' or some of {', '.join(PAPER_TASKS)}.")
    if not names:
        raise InputError(f"No task was given; choose 'papers' or some of {', '.join(PAPER_TASKS)}.")
    return names


def check_harness() -> None:
    """Raise InputError if the harness is not installed."""
    require_extra("tasks", "lm_eval", "Scoring the papers' tasks")


def score_tasks(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    tasks: str | Sequence[str] = ("papers",),
    shots: Sequence[int] = SHOTS,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> TaskScores:
    """Score a model in tasks.

    Raises `InputError` for an unknown task, an invalid number, more examples than a task has questions, a model with
    fewer rows than its tokenizer has ids, task files that cannot be fetched, or if the harness is not installed. Logs a
    warning if prompts are cut.

    Parameters
    ----------
    model
        A causal language model that reads `vocabulary`.
    vocabulary
        Its tokenizer; it decides whether a prompt begins with bos, as in the harness.
    tasks
        Names in the catalogue, or "papers" for all six; in one string, with commas between them.
    shots
        Numbers of examples in the prompt.
    limit
        Questions per task, sampled by `seed`, the same for every model; all by default.
    seed
        Seed of that sample.
    progress
        Called with the share of inputs scored.
    """
    names = task_names(tasks)
    if not shots or min(shots) < 0:
        raise InputError("Give numbers of shots of at least 0, such as 0 and 5.")
    if limit is not None and limit < 2:
        raise InputError(f"The limit is {limit}; score at least 2 questions, since one has no standard error.")
    vocabulary.check_rows(len(model.get_input_embeddings().weight))
    check_harness()
    files = {name: catalog.get(name) for name in names}
    scored = []
    with _quiet(), tempfile.TemporaryDirectory() as work:
        loaded = _load_tasks(files, Path(work))
        for name, task in loaded.items():
            if max(shots) >= (n := len(task.eval_docs)):
                raise InputError(
                    f"The task {name!r} has {n:,} questions; give fewer shots, since one is not an example."
                )
        batch_tokens = _BATCH_TOKENS.get(model.device.type, _BATCH_TOKENS["cpu"])
        parts = [(n, name) for n in dict.fromkeys(shots) for name in names]
        for place, (n, name) in enumerate(parts):
            report = part(progress, place / len(parts), (place + 1) / len(parts))
            reader = harness_model(model, vocabulary.tokenizer, batch_tokens, report, f"{name}, {n}-shot")
            scored.append(_score_one(reader, name, loaded[name], n, limit, seed))
    return TaskScores(tuple(scored))


def _load_tasks(files: dict[str, Path], work: Path) -> dict[str, Any]:
    """Load the harness's tasks by catalogue name, with local files as their data."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    shipped = Path(lm_eval.tasks.__file__).parent
    for name, path in files.items():
        own: dict[str, Any] = {
            "include": str(shipped / _HARNESS_FILES[name]),
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"validation": str(path)}, "cache_dir": str(cache_folder() / "datasets")},
            "training_split": None,
            # If these two are the same, the harness excludes the scored question from the examples.
            "test_split": "validation",
            "fewshot_split": "validation",
        }
        if name == "boolq":  # the original's field; SuperGLUE's copy calls it `label`
            own["doc_to_target"] = "{{answer | int}}"
        (work / f"{name}.yaml").write_text(json.dumps(own), encoding="utf-8")  # JSON is YAML
    manager = TaskManager(include_path=str(work), include_defaults=False)
    return dict(manager.load(list(files))["tasks"])


def _score_one(reader: Any, name: str, task: Any, shots: int, limit: int | None, seed: int) -> TaskScore:
    from lm_eval.evaluator import evaluate

    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=_FEW_SHOT_SEED)
    n_all = len(task.eval_docs)
    samples = None
    if limit is not None and limit < n_all:
        # sorted, because the harness iterates over the questions and counts
        samples = {name: sorted(np.random.default_rng(seed).permutation(n_all)[:limit].tolist())}
    outcome = evaluate(reader, {"tasks": {name: task}}, samples=samples)
    result, questions = outcome["results"][name], outcome["samples"][name]
    norm = result.get("acc_norm,none")
    return TaskScore(
        task=name,
        shots=shots,
        acc=float(result["acc,none"]),
        acc_stderr=float(result["acc_stderr,none"]),
        acc_norm=None if norm is None else float(norm),
        acc_norm_stderr=None if norm is None else float(result["acc_norm_stderr,none"]),
        guess=float(np.mean([1 / len(question["arguments"]) for question in questions])),
        n=len(questions),
        n_all=n_all,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch off the progress bars and messages of the harness and of datasets."""
    import lm_eval.api.task as harness
    from datasets.utils import logging as data_sets

    log, bar = logging.getLogger("lm_eval"), harness.tqdm
    level, bars = log.level, data_sets.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    data_sets.disable_progress_bar()
    harness.tqdm = lambda questions, total=None: questions
    try:
        yield
    finally:
        log.setLevel(level)
        harness.tqdm = bar
        if bars:
            data_sets.enable_progress_bar()


def harness_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int, progress: Progress, message: str
) -> Any:
    """Wrap a model in memory as an `HFLM`, with log-likelihoods by `Scorer`.

    The harness splits prompt and answer, adds bos and truncates long inputs.

    Parameters
    ----------
    model, tokenizer : the model and its tokenizer, which is copied because the harness gives it a pad token
    batch_tokens : approximate number of tokens per forward pass
    progress, message : called with the share of inputs scored, and this message
    """
    from lm_eval.models.huggingface import HFLM

    plain = encode_plainly(tokenizer, ["a"])[0].tolist()
    called = tokenizer("a")["input_ids"]
    begin = called[: next((n for n in range(len(called)) if called[n : n + len(plain)] == plain), 0)]

    class HarnessModel(HFLM):  # type: ignore[misc]  # mypy does not read the harness
        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            """Encode a text with the special tokens that the tokenizer adds before it, but none after it, and whole.

            The harness takes the ids of an answer from where those of its prompt end.
            """
            start = [] if add_special_tokens is False else begin
            return [*start, *encode_plainly(tokenizer, [string])[0].tolist()]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
            """Score answers given prompts, without the harness's progress bar."""
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: list[Request], disable_tqdm: bool = True, override_bs: int | None = None
        ) -> list[tuple[float, bool]]:
            return log_likelihoods(self.model, requests, self.max_length, batch_tokens, progress, message)

    return HarnessModel(pretrained=model, tokenizer=copy.deepcopy(tokenizer))


def log_likelihoods(
    model: PreTrainedModel,
    requests: list[Request],
    max_length: int,
    batch_tokens: int,
    progress: Progress,
    message: str,
) -> list[tuple[float, bool]]:
    """Return the log-likelihood of each answer, and False for "is it greedy", which no task here uses.

    Raises `InputError` for an answer without tokens or with more than `max_length`, and if a log-likelihood is NaN.
    """
    inputs = gather(requests, max_length)
    cut = sum(len(prompt) + len(answer) > max_length + 1 for _, prompt, answer in requests)
    if cut:
        _log.warning(
            "%s: %d of %d inputs lose their beginning, because the model reads at most %d tokens.",
            *(message, cut, len(requests), max_length),
        )
    found = [0.0] * len(requests)
    done = 0
    with scoring(model) as score:
        for batch in batches(inputs, batch_tokens):
            inputs_read = [(one.ids, [(first, tokens) for _, first, tokens in one.answers]) for one in batch]
            for one, nats in zip(batch, score(inputs_read), strict=True):
                for (request, _, _), value in zip(one.answers, nats, strict=True):
                    found[request] = -check_number(value)
            done += len(batch)
            progress(done / len(inputs), message)
    return [(value, False) for value in found]


def gather(requests: list[Request], max_length: int) -> list[_Input]:
    """Join requests that differ only in the last token into one input. Raises `InputError` as `log_likelihoods`."""
    by_ids: dict[tuple[int, ...], _Input] = {}
    for number, ((_, written), prompt, answer) in enumerate(requests):
        if not answer:  # its log-likelihood would be 0, the largest one
            raise InputError(
                f"The tokenizer gives the answer {written!r} no token of its own after a prompt, so this task cannot "
                "be scored; leave it out of --tasks."
            )
        if len(answer) > max_length:
            raise InputError(
                f"The model reads at most {max_length} tokens, but an answer has {len(answer)}; "
                "it cannot be scored in this task."
            )
        # the last token is predicted, not read; long inputs lose their beginning, as in the harness
        ids = tuple((prompt + answer)[-(max_length + 1) : -1])
        entry = by_ids.setdefault(ids, _Input(ids))
        entry.answers.append((number, len(ids) - len(answer), answer))
    return list(by_ids.values())
