"""Shared by benchmarks that tune a real model: one text for all vocabularies, starting models, curves, stored results.

A fair comparison of two vocabularies gives both the same *bytes* of text. With the same number of tokens, the
vocabulary that needs fewer tokens would read more text, which would count as better quality. So the budget is in bytes:
text is drawn once, in equal parts per slice, and every run reads it in the same number of steps and sequences. Only the
number of tokens per sequence depends on the vocabulary; it is reported too.

Tuning is `adaptation.train.adapt` in a separate process, as in a run. The text itself marks its held-out part. Results
are stored in the file `--out`, so that a stopped program continues. With `--runs FOLDER` every tuning is also stored
as a run in that folder, which the lab (`Lab(runs=FOLDER)`) shows during and after the tuning.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Result, doing, drop_weights, limit_threads, measured, parser

from tokalign_lab import catalog
from tokalign_lab.adaptation.data import PackedBlocks
from tokalign_lab.adaptation.divergence import Diverged
from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.adaptation.train import adapt
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.recipes import align
from tokalign_lab.catalog.texts import write_jsonl
from tokalign_lab.corpus import Corpus, tokenize_pair
from tokalign_lab.device import describe_device, pick_device
from tokalign_lab.documents import Document, excerpts, n_bytes, read_documents, split_documents, text_hash
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.save import save_model
from tokalign_lab.runs.control import new_folder
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.vocabulary import Vocabulary

SOURCE = "smollm2-135m"
SLICES = ("prose", "code", "ru", "ja")  # with two languages that the source's tokenizer splits into short tokens
TITLES = {"prose": "English prose", "code": "Python", "ru": "Russian", "ja": "Japanese", "all": "all of it"}
ALIGN_BYTES = 6_000_000
SEQUENCE_BYTES = 400  # about 128 tokens of the source
CALIBRATE_TOKENS = 8_000  # as in quality.py; 20,000 would take minutes with Gemma's vocabulary
TRAIN_PASSAGE, MEASURED_PASSAGE = 2_000, 1_000  # characters


# --- options


def options(description: str | None, steps: int, cuda: dict[str, int] | None = None) -> argparse.ArgumentParser:
    """Make a parser with the options of all programs that tune; `steps` is a default, `cuda` has defaults on a GPU."""
    found = parser(description)
    found.set_defaults(on_cpu={"steps": steps, "batch_size": 4}, on_cuda=cuda or {})
    found.add_argument("--steps", type=int)
    found.add_argument("--batch-size", type=int)
    found.add_argument("--bytes", type=int, default=5_000, help="held-out text to measure, per slice")
    found.add_argument("--seeds", type=int, default=1)
    found.add_argument("--device", help="cpu or cuda; cuda by default if there is a GPU")
    found.add_argument(
        "--runs", type=Path, help="store each tuning as a run in this folder, for the lab; without weights"
    )
    return found


def settled(found: argparse.ArgumentParser, points: int = 4, **quick: Any) -> argparse.Namespace:
    """Read the command line; with `--quick`, the options in `quick` replace others."""
    given = placed(found)
    usual = given.on_cpu | (given.on_cuda if given.device != "cpu" else {})
    vars(given).update({name: value for name, value in usual.items() if getattr(given, name) is None})
    if given.quick:
        vars(given).update({"steps": points, "bytes": 300, "batch_size": 1} | quick)
    if given.steps % points or not given.steps:
        found.error(f"--steps is {given.steps}; it is measured {points} times, so give a multiple of {points}")
    given.points = points
    return given


def placed(found: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, and choose device and threads."""
    given = found.parse_args()
    given.device = str(pick_device(given.device))
    limit_threads(given.threads, gpu=given.device != "cpu")
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as in a run's process
    torch.set_num_threads(given.threads)
    return given


# --- text


@cache
def default_text() -> tuple[Document, ...]:
    return tuple(read_documents(["default"]))


@cache
def align_text() -> tuple[Document, ...]:
    return tuple(split_documents(read_documents(["default"], max_bytes=ALIGN_BYTES))[0])


def draw(split: str, size: int, longest: int, seed: int) -> list[Document]:
    """Draw passages of at most `longest` characters from one part of the default text, `size` bytes of each slice."""
    return [passage for name in SLICES for passage in draw_slice(name, split, size, longest, seed)]


def draw_slice(name: str, split: str, size: int, longest: int, seed: int) -> list[Document]:
    """Draw `size` bytes of passages of one slice of one part of the default text."""
    pool = [document for document in default_text() if (document.slice, document.split) == (name, split)]
    return excerpts(pool, size, longest, seed)


def bytes_per_token(vocabulary: Vocabulary, documents: Sequence[Document]) -> dict[str, float]:
    """Return UTF-8 bytes per token, of all text and by slice."""
    found = {}
    for name in ("all", *dict.fromkeys(document.slice for document in documents)):
        chosen = [document for document in documents if name in ("all", document.slice)]
        tokens = sum(len(ids) for ids in vocabulary.encode([document.text for document in chosen]))
        found[name] = n_bytes(chosen) / tokens
    return found


# --- models and tuning


@cache
def source(device: str) -> tuple[Any, Vocabulary]:
    """Return the source model and its vocabulary."""
    return load_model(SOURCE, device=device), catalog.load_vocabulary(SOURCE)


def converted(
    target: Vocabulary,
    seed: int,
    device: str,
    recipe: str = "anchored",
    overlap: str | None = None,
    documents: Sequence[Document] | None = None,
) -> tuple[Any, Lexicon]:
    """Rearrange the source model by an alignment on `documents` (by default the default text)."""
    model, vocabulary = source(device)
    pair = tokenize_pair(vocabulary, target, align_text() if documents is None else documents)
    lexicon = align(pair, recipe, seed, overlap).lexicon
    return rearrange(model, lexicon, vocabulary, target, seed), lexicon


@dataclass
class Bench:
    """Text and settings that all runs of one seed share.

    Attributes
    ----------
    given
        Options of the command line.
    seed
        Seed of the text, the passages, the lexicon and the order of the data.
    train, measured
        Passages to tune on and held-out passages.
    folder
        Folder of the starting model.
    text
        The file with both kinds of passages.
    """

    given: argparse.Namespace
    seed: int
    train: list[Document]
    measured: list[Document]
    folder: Path
    text: Path

    @property
    def key(self) -> dict[str, Any]:
        """Key of the stored results of this seed."""
        return {"seed": self.seed, "text": text_hash([*self.train, *self.measured])[:12]}

    def untuned(self, model: Any, vocabulary: Vocabulary) -> dict[str, float]:
        """Return bits per byte of the held-out passages, of all and by slice, and nats per token."""
        found = bits_per_byte(model, vocabulary, self.measured)
        nats = found.bits_per_byte * found.bytes * math.log(2) / found.tokens
        return {"all": found.bits_per_byte, **found.by_slice, "nats_per_token": nats}

    def source_bits(self) -> dict[str, float]:
        """Measure the source model with its own tokenizer."""
        return self.untuned(*source(self.given.device))

    def random_bits(self, target: Vocabulary) -> dict[str, float]:
        """Measure a model with random rows only."""
        return self.untuned(converted(target, self.seed, self.given.device, "random", "none")[0], target)

    def start(self, target: Vocabulary) -> tuple[str, dict[str, float]]:
        """Convert the source model and calibrate it to counts of train text; return its folder, and the bits before."""
        model, _ = converted(target, self.seed, self.given.device)
        before = self.untuned(model, target)
        calibrate(model, target, self.train, CALIBRATE_TOKENS)
        return self.save(model, target), before

    def save(self, model: Any, vocabulary: Vocabulary) -> str:
        """Save a starting model, replacing the one before; return its folder."""
        return str(save_model(model, vocabulary, self.folder / "start", card={"model": SOURCE}))

    def tune(self, title: str, model: str, vocabulary: Vocabulary, **changed: Any) -> Result:
        """Tune a model on all of the text, by `adapt` in a separate process.

        Parameters
        ----------
        title
            Title of the run, if it is stored.
        model
            Name or folder of the model.
        vocabulary
            Its tokenizer.
        changed
            Settings that differ from the recipe `papers`; `recipe` chooses another recipe.

        Returns
        -------
        dict
            "curve": bits per byte by step, of all text and by slice; "losses": nats per token at each step; "tokens"
            and "bytes" read; "sequence_length"; "tokens_per_second": medians by stage; "peak": memory in GB;
            "bytes_per_token" of the held-out passages; "stopped": why the run ended early, or None.
        """
        given, sequences = self.given, self.given.steps * self.given.batch_size
        n_tokens = PackedBlocks(Corpus.build(self.train, vocabulary), vocabulary, 2).n_tokens
        passes = max(1, round(sequences * SEQUENCE_BYTES / n_bytes(self.train)))
        settings = AdaptSettings.from_dict(
            {
                "recipe": "papers",
                "steps": given.steps,
                "batch_size": given.batch_size,
                "sequence_length": passes * n_tokens // sequences,
                "evaluate_every": given.steps // given.points,
                "evaluate_bytes": 10 * n_bytes(self.measured),  # all of it
                "prompts": [],
                "save_every": given.steps,
                "seed": self.seed,
                **changed,
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            run = RunFolder.create(
                new_folder("adapt", given.runs or folder),
                "adapt",
                {"model": model, "text": [str(self.text.resolve())], **asdict(settings), "device": given.device},
            )
            run.entitle(f"{Path(sys.argv[0]).stem}: {title}, seed {self.seed}")
            found = measured(_adapt, run.path, settings)
        done = len(found["losses"]) / given.steps
        return {
            **found,
            "tokens": round(done * sequences * settings.sequence_length),
            "bytes": round(done * passes * n_bytes(self.train)),
            "sequence_length": settings.sequence_length,
            "bytes_per_token": bytes_per_token(vocabulary, self.measured),
        }

    def convert_and_tune(self, title: str, target: Vocabulary) -> Result:
        """Convert the source model and tune it; the result also has the bits of random rows and before calibration."""
        random_rows = self.random_bits(target)
        place, before = self.start(target)
        return {**self.tune(title, place, target), "ceiling": random_rows, "not_calibrated": before}


def benches(given: argparse.Namespace) -> Iterator[Bench]:
    """Yield one bench per seed, with its text written to a file."""
    budget = given.steps * given.batch_size * SEQUENCE_BYTES
    for seed in range(given.seeds):
        train = draw("train", budget // len(SLICES), TRAIN_PASSAGE, seed)
        held_out = draw("held_out", given.bytes, MEASURED_PASSAGE, seed)
        with tempfile.TemporaryDirectory() as folder:
            text = (given.runs or Path(folder)) / f"text-{text_hash([*train, *held_out])[:12]}.jsonl"
            text.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl([asdict(passage) for passage in [*train, *held_out]], text)
            yield Bench(given, seed, train, held_out, Path(folder), text)


def _adapt(folder: Path, settings: AdaptSettings) -> Result:
    """Do the work of a run in this process, and summarise its events; its weights are deleted."""
    run = RunFolder(folder)
    given = run.info()["settings"]
    stopped = None
    try:
        with doing(run):
            adapt(given["model"], given["text"], settings, run.path, run.emit, device=given["device"])
    except Diverged as error:
        stopped = str(error)
    finally:
        drop_weights(run)
    events = run.events()[0]
    steps = [event for event in events if event["kind"] == "step"]
    curve = {e["step"]: {"all": e["bits_per_byte"], **e["by_slice"]} for e in events if e["kind"] == "evaluation"}
    speeds: dict[str, list[float]] = {}
    for event in steps:
        speeds.setdefault(str(event["stage"]), []).append(event["tokens_per_second"])
    return {
        "curve": {str(step): values for step, values in curve.items()},
        "losses": [event["loss"] for event in steps],
        "tokens_per_second": {stage: statistics.median(values) for stage, values in speeds.items()},
        "stopped": stopped,
    }


# --- tables


def curve_columns(lines: Sequence[Result], given: argparse.Namespace, name: str) -> dict[str, float | None]:
    """Return bits per byte of a slice during the run, mean over seeds; None after the end of a stopped run."""
    steps = [given.steps * i // given.points for i in range(given.points + 1)]
    titles = [f"step {step:,}" for step in steps[:-1]] + ["end"]
    return {
        title: mean([line["curve"].get(str(step), {}).get(name) for line in lines])
        for title, step in zip(titles, steps, strict=True)
    }


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean over seeds; None if a value is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def losses_by(lines: Sequence[Result], parts: int) -> dict[str, float | None]:
    """Return the mean training loss in each part of the run; None if a run was stopped or has too few steps."""
    whole = all(line["stopped"] is None and len(line["losses"]) >= parts for line in lines)
    cut = [np.array_split(line["losses"], parts) for line in lines]
    return {str(i + 1): float(np.mean([part[i].mean() for part in cut])) if whole else None for i in range(parts)}


def budget(given: argparse.Namespace, one: Result) -> str:
    """Describe the text and steps that all runs share; `one` is the result of any run."""
    return (
        f"Every run reads the same {one['bytes']:,} bytes of text, in equal parts {', '.join(SLICES)} as far as there "
        f"is text, in {given.steps:,} steps of {given.batch_size} sequences; {given.seeds} seed"
        f"{'s' if given.seeds > 1 else ''} (of the text, the passages measured, the lexicon and the order); "
        f"{given.bytes:,} held-out bytes per slice. Device: {device_of(given)}."
    )


def device_of(given: argparse.Namespace) -> str:
    """Name the device of the runs."""
    if given.device == "cpu":
        return f"CPU, {given.threads} threads"
    return describe_device(pick_device(given.device))


def cost(name: str, lines: Sequence[Result]) -> str:
    """Describe speed and memory of a tuning run."""
    speeds = " and ".join(f"{speed:,.0f} (stage {stage})" for stage, speed in lines[0]["tokens_per_second"].items())
    return (
        f"{name}: {speeds} tokens/s, sequences of {lines[0]['sequence_length']} tokens, "
        f"{max(line['peak'] for line in lines):.1f} GB at most."
    )
