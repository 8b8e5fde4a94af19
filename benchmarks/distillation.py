"""Does a teacher help more than the text alone? SmolLM2-135M converted to Gemma 3's vocabulary; teacher Gemma-3-270M.

    python benchmarks/distillation.py --out benchmarks/results/distillation.jsonl [--ablate] [--limit 200] [--seeds 3]

The student is rearranged by `anchored` and calibrated. It is measured before tuning, and after tuning on the same
number of tokens in three ways: on the text (direct), on text that the teacher writes (sentence-level, Kim and Rush
2016), and on the text with the teacher's predictions (token-level, TokAlign section 4.3). The source and the teacher
are also measured with their own tokenizers, and so is the source tuned on the text in one stage. The measure is bits
per UTF-8 byte on held-out prose, code, digits and non-Latin text. With `--limit`, the first seed's models are also
scored on the papers' six tasks. `--ablate` changes direction, temperature, weight and share of the token-level run, one
at a time. `--rows` measures only some rows, for more seeds of these.

`--gold-python GOLD/bin/python` adds TRL's GOLD as it ships (`peers/gold_train.py`): the student keeps its own
tokenizer; teacher, text, steps and batch are the same. The source is also tuned without a teacher, to compare. GOLD
aligns byte-level tokenizers only and refuses Gemma's, which is a SentencePiece one, so its unaligned form (ULD) runs,
at the learning rate of our stage 2.

The default sizes, 48 steps of 2 sequences of 128 tokens, take about 20 minutes on two idle cores by the speeds of
`tuning_speed.md`; `--ablate` takes as long again. That is 12,288 tokens, and the papers use 235 million: the results
show that the program works, and a tendency. On a GPU, set `--steps`, `--batch-size` and `--sequence-length`. Each
measurement is a line of the file `--out`. A stopped run continues from its last checkpoint, which is in the cache until
all measurements are done. Lines with other settings are ignored; lines of older code are not.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import doing, drop_weights, report
from peers import PeerFailed, run_gold
from quality import SLICES, Results, passages

from tokalign_lab import catalog
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.teacher_text import write_text
from tokalign_lab.adaptation.train import adapt
from tokalign_lab.alignment.recipes import align
from tokalign_lab.console import set_up_logging
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import Document, excerpts, read_documents, split_documents, text_hash
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.tasks import score_tasks
from tokalign_lab.files import cache_folder, hash_of
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.save import save_model
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.settings.kinds import WritingSettings

SOURCE, TEACHER, TARGET = "smollm2-135m", "gemma-3-270m", "gemma3"
PROMPT_TOKENS, NEW_TOKENS = 32, 96
CALIBRATE_TOKENS = 8_000
ABLATIONS: dict[str, dict[str, Any]] = {
    "reverse": {"distillation_direction": "reverse"},
    "temperature 2": {"distillation_temperature": 2.0},
    "weight 0.5": {"distillation_weight": 0.5},
    "weight 2": {"distillation_weight": 2.0},
    "share 0.5": {"distillation_share": 0.5},
}
ROWS = {
    "source": "SmolLM2-135M, its own tokenizer",
    "teacher": "Gemma-3-270M",
    "own": "source with its own tokenizer, tuned on the text in one stage",
    "before": "rearranged and calibrated, not tuned",
    "direct": "tuned on the text",
    "sentence": "tuned on the teacher's text",
    "token": "tuned on the text with the teacher's predictions",
    "gold": "source with its own tokenizer, TRL GOLD, unaligned",
    **{f"token, {name}": "" for name in ABLATIONS},
}
TUNED = [row for row in ROWS if row not in ("source", "teacher", "before")]


class Bench:
    """One student, one teacher, one text.

    Parameters
    ----------
    options
        Options of the command line.
    work
        Folder of the models while they are needed.
    results
        The finished measurements.
    passages
        Held-out text.
    """

    def __init__(self, options: argparse.Namespace, work: Path, results: Results, passages: list[Document]) -> None:
        self.options, self.work, self.results, self.passages = options, work, results, passages
        self.tokens = options.steps * options.batch_size * options.sequence_length

    def row(self, name: str, seed: int, make: Callable[[int], str | Path]) -> None:
        """Make a model and measure it, unless there is a line of it already."""
        if self.results.has(SOURCE, TARGET, name, seed):
            return
        line: dict[str, Any] = {"source": SOURCE, "target": TARGET, "method": name, "seed": seed}
        started = time.perf_counter()
        try:
            made = make(seed)
        except PeerFailed as error:
            self.results.add(**line, error=str(error))
            return
        seconds = time.perf_counter() - started
        model, vocabulary = load_model(str(made)), catalog.load_vocabulary(str(made))
        found = bits_per_byte(model, vocabulary, self.passages)
        scores: dict[str, Any] = {"all": found.bits_per_byte, **found.by_slice}
        if self.options.limit is not None and seed == 0:
            shots = self.options.shots
            scores["tasks"] = score_tasks(model, vocabulary, shots=shots, limit=self.options.limit).to_dict()
        self.results.add(**line, seconds=seconds, device=model.device.type, **scores)
        if name in TUNED:
            drop_weights(RunFolder(self._folder(name, seed)))

    def converted(self, seed: int = 0) -> Path:
        """Rearrange and calibrate the source, once."""
        folder = self.work / "moved"
        if not folder.is_dir():
            source, target = catalog.load_vocabulary(SOURCE), catalog.load_vocabulary(TARGET)
            train = self._train(seed=0)
            lexicon = align(tokenize_pair(source, target, train)).lexicon
            model = rearrange(load_model(SOURCE), lexicon, source, target)
            tokens = min(CALIBRATE_TOKENS, 10 * self.tokens)
            calibrate(model, target, excerpts(train, 8 * tokens), max_tokens=tokens)
            save_model(model, target, folder, card={"model": SOURCE, "lexicon": lexicon.provenance}, source=source)
        return folder

    def tuned(self, name: str, seed: int, text: str = "default", model: str | None = None, **more: Any) -> Path:
        """Tune a model, by default the converted one; a stopped run continues from its last checkpoint."""
        options, folder = self.options, self._folder(name, seed)
        settings = AdaptSettings.from_dict(
            {
                "recipe": "papers",
                "steps": options.steps,
                "batch_size": options.batch_size,
                "sequence_length": options.sequence_length,
                "save_every": options.steps,
                "evaluate_bytes": 1_000,
                "prompts": [],
                "seed": seed,
                **more,
            }
        )
        given = {"model": model or str(self.converted()), "text": [text], "max_bytes": options.train_bytes}
        run = RunFolder(folder)
        if not (folder / "run.json").is_file():
            run = RunFolder.create(folder, "adapt", {**given, **asdict(settings)})
            run.entitle(f"distillation: {name}, seed {seed}")
        with doing(run):
            return adapt(given["model"], [text], settings, folder, run.emit, resume=True, max_bytes=options.train_bytes)

    def _folder(self, name: str, seed: int) -> Path:
        return (self.options.runs or self.work) / f"distillation-{name.replace(', ', '-').replace(' ', '-')}-{seed}"

    def sentence(self, seed: int) -> Path:
        """Tune on text that the teacher wrote, as many tokens as the budget has."""
        out = self.work / f"written-{seed}.jsonl"
        if not out.is_file():
            documents = math.ceil(self.tokens / (PROMPT_TOKENS + NEW_TOKENS))
            settings = WritingSettings(
                documents=documents, prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS, seed=seed
            )
            teacher, vocabulary = load_model(TEACHER), catalog.load_vocabulary(TEACHER)
            # `adapt` needs a held-out part; the reported bits per byte are measured on `passages`
            held_out = [replace(document, split="held_out") for document in self.passages]
            write_text(teacher, vocabulary, self._train(seed), held_out, settings, out)
        return self.tuned("sentence", seed, text=str(out))

    def gold(self, seed: int) -> Path:
        """Tune the source with its own tokenizer by GOLD."""
        options, result = self.options, self.work / f"gold-{seed}"
        text = self.work / f"gold-{seed}.jsonl"
        n = 4 * options.sequence_length  # characters of a passage
        drawn = excerpts(self._train(seed), 8 * self.tokens, longest=n, seed=seed)
        text.write_text("".join(json.dumps({"text": document.text}) + "\n" for document in drawn), encoding="utf-8")
        student, teacher = (Path(catalog.model_folder(name)) for name in (SOURCE, TEACHER))
        rate = AdaptSettings.from_dict({"recipe": "papers"}).learning_rate_stage2
        run_gold(
            options.gold_python, student, teacher, text, result,
            options.steps, options.batch_size, options.sequence_length, rate, seed,
        )  # fmt: skip
        return result

    def _train(self, seed: int) -> list[Document]:
        return split_documents(read_documents(["default"], max_bytes=self.options.train_bytes, seed=seed))[0]


def run(bench: Bench) -> None:
    """Make the measurements that have no line yet, seed by seed."""
    bench.row("source", 0, lambda seed: SOURCE)
    bench.row("teacher", 0, lambda seed: TEACHER)
    bench.row("before", 0, bench.converted)
    makers: dict[str, Callable[[int], Path]] = {
        "direct": lambda seed: bench.tuned("direct", seed),
        "token": lambda seed: bench.tuned("token", seed, teacher=TEACHER),
        "sentence": bench.sentence,
        "own": lambda seed: bench.tuned("own", seed, model=SOURCE, stage1_share=0.0),
        "gold": bench.gold,
    }
    for name, changed in ABLATIONS.items():
        row = f"token, {name}"
        makers[row] = lambda seed, row=row, changed=changed: bench.tuned(row, seed, teacher=TEACHER, **changed)
    for seed in range(bench.options.seeds):
        for row in bench.options.rows:
            bench.row(row, seed, makers[row])


def tables(results: Results, options: argparse.Namespace) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return a table with the mean over seeds of each model, and one of the papers' tasks if they were scored."""
    lines = [line for line in results.lines if "error" not in line]
    direct = {line["seed"]: line["all"] for line in lines if line["method"] == "direct"}
    text, tasks = [], []
    for name, what in ROWS.items():
        mine = [line for line in lines if line["method"] == name]
        if not mine:
            continue
        converted = name in TUNED and name not in ("own", "gold")
        minus = [line["all"] - direct[line["seed"]] for line in mine if converted and line["seed"] in direct]
        text.append(
            {
                "row": f"{name}: {what}" if what else name,
                "seeds": len(mine),
                **{part: float(np.mean([line[part] for line in mine])) for part in ("all", *SLICES)},
                "minus_direct": float(np.mean(minus)) if minus else "",
                "seed_by_seed": " ".join(f"{one:+.3f}" for one in minus),
                "seconds": float(np.mean([line["seconds"] for line in mine])),
            }
        )
        for scored in (line["tasks"]["rows"] for line in mine if "tasks" in line):
            for shots in options.shots:
                accuracy = {row["task"]: row["acc"] for row in scored if row["shots"] == shots}
                mean = float(np.mean(list(accuracy.values())))
                tasks.append({"row": name, "shots": shots, **accuracy, "mean": mean})
    found = [("Bits per UTF-8 byte of held-out text", text)]
    return [*found, (f"Accuracy, {options.limit} questions a task", tasks)] if tasks else found


def notes(results: Results, options: argparse.Namespace, tokens: int) -> list[str]:
    """Return notes for readers of the tables."""
    found = [
        f"{tokens:,} tokens per run: {options.steps} steps (half of them embeddings and head only) of "
        f"{options.batch_size} sequences of {options.sequence_length} tokens. Means over seeds (of the text, its order "
        "and what is drawn; one converted model); lower is better.",
        "token: forward KL, temperature 1, weight 1, every sequence, the teacher run live; the other rows of that "
        "name change one of these. minus direct: compared with the direct run of the same seed.",
        f"sentence: the teacher continues {PROMPT_TOKENS} tokens of the text by up to {NEW_TOKENS}, sampled at "
        "temperature 1; its seconds are those of writing and tuning.",
        "GOLD's byte alignment refuses SentencePiece tokenizers, Gemma's among them, so a gold row is its unaligned "
        "form; it keeps the source's tokenizer, so its passages are other tokens and it starts from the source's own "
        "bits per byte; own: as many tokens of the text, packed, without a teacher and at the same rate.",
    ]
    failed = {line["method"]: line["error"] for line in results.lines if "error" in line}
    return [*found, *(f"{name} failed: {error}" for name, error in failed.items())]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distillation.jsonl"))
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=3_000, help="held-out text per slice")
    parser.add_argument("--train-bytes", type=int, default=6_000_000, help="text to align, calibrate and tune on")
    parser.add_argument("--limit", type=int, help="also score the six tasks on this many questions each")
    parser.add_argument("--shots", type=int, nargs="+", default=[0], help="examples in a task's prompt")
    parser.add_argument("--ablate", action="store_true", help="change the token-level settings one by one")
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=TUNED, help=f"only these of: {'; '.join(TUNED)}")
    parser.add_argument(
        "--runs", type=Path, help="store each tuning as a run in this folder, for the lab; without weights"
    )
    parser.add_argument("--gold-python", type=Path, help="the interpreter of GOLD's environment")
    options = parser.parse_args()
    if options.gold_python is not None and not options.gold_python.is_file():
        parser.error(f"there is no interpreter at '{options.gold_python}'; see benchmarks/peers/gold_train.py")
    if options.rows is None:
        left_out = set() if options.ablate else {f"token, {name}" for name in ABLATIONS}
        options.rows = [row for row in TUNED if row not in left_out and (row != "gold" or options.gold_python)]
    elif "gold" in options.rows and options.gold_python is None:
        parser.error("the row gold needs --gold-python")
    return options


def main() -> None:
    options = parse()
    set_up_logging()
    held_out = split_documents(read_documents(["default"]))[1]
    names = ("steps", "batch_size", "sequence_length", "bytes", "train_bytes", "limit", "shots")
    settings = {name: getattr(options, name) for name in names} | {"held_out": text_hash(held_out)[:12]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = Results(options.out, settings)
    key = hash_of([json.dumps(settings, sort_keys=True).encode()])[:16]
    work = cache_folder() / "benchmarks" / f"distillation-{key}"
    work.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, work, results, passages(held_out, options.bytes, 0))
    run(bench)
    shutil.rmtree(work)
    report("Distillation", tables(results, options), notes(results, options, bench.tokens), options.out)


if __name__ == "__main__":
    main()
