"""Run the whole pipeline on the packaged model; write the results and one report.

SmolLM2-135M-Instruct (49,152 byte-level tokens) gets a 32,000-token SentencePiece vocabulary: align by two recipes,
score the lexicons, rearrange, calibrate, tune, and measure bits per byte. The references are the source model with its
own tokenizer, and random rows. Everything is measured on held-out text, which shares no document and no package with
the text for alignment and tuning.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tokalign_lab import pipeline
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.catalog.texts import write_jsonl
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.device import describe_device
from tokalign_lab.documents import Document, excerpts, n_bytes
from tokalign_lab.errors import require_extra
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.files import atomic_file, write_json
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.model.save import save_model
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.provenance import read_record
from tokalign_lab.report import write_report
from tokalign_lab.runs.control import check_finished, start
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.settings.kinds import AlignSettings
from tokalign_lab.vocabulary import Vocabulary, overlap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SOURCE, TARGET, TEXT = "smollm2-135m", "sp32k", "default"
COMPARED = ("tokalign", "anchored")
CALIBRATE_BYTES, CALIBRATE_TOKENS = 100_000, 10_000  # of the train text; half of what `rearrange` reads, to be quick
_BASELINES = (  # of the table of models: name, recipe, overlap
    ("every row random", "random", "none"),
    ("shared bytes copied, others by pieces", "pieces", "bytes"),
)


class DemoSize(NamedTuple):
    """Sizes of the demo.

    Attributes
    ----------
    align_bytes : UTF-8 bytes of the text for alignment
    measure_bytes : UTF-8 bytes of the held-out text for bits per byte
    steps : optimiser steps
    batch_size, sequence_length : sequences per step, tokens per sequence
    """

    align_bytes: int
    measure_bytes: int
    steps: int
    batch_size: int
    sequence_length: int


FULL = DemoSize(align_bytes=6_000_000, measure_bytes=24_000, steps=52, batch_size=1, sequence_length=128)
FAST = DemoSize(align_bytes=1_000_000, measure_bytes=6_000, steps=8, batch_size=2, sequence_length=64)


def run_demo(out: Path, fast: bool = False, seed: int = 0, progress: Progress = silent) -> dict[str, Any]:
    """Write `results.json`, `report.html`, the lexicons, the run folder and the tuned model to the folder `out`.

    With `fast` it takes a few minutes on two cores instead of six, with rougher figures. Files of an earlier demo are
    replaced. Returns "pair", "lexicons" (rows), "models" (rows), "seconds", "settings", "report" (its path). Raises
    `InputError` if plotly, which draws the report, is not installed; for the tuning run, as `check_finished`.
    """
    require_extra("lab", "plotly", "The report")
    size = FAST if fast else FULL
    clock = _Clock(progress)
    with clock.stage("assets", 0.02):
        settings = AlignSettings(source=SOURCE, target=TARGET, text=(TEXT,), max_bytes=size.align_bytes, seed=seed)
        text = pipeline.read_pair(settings)
        source, target, train, held_out = text.source, text.target, text.train, text.held_out
        measured = excerpts(held_out, size.measure_bytes, seed=seed)
        model = load_model(SOURCE, device="cpu")
    with clock.stage("tokenise", 0.04):
        pair = text.train_pair()
        text.held_out_pair()
    alignments = {}
    lexicon_rows = []
    for number, recipe in enumerate(COMPARED):
        with clock.stage(f"align {recipe}", 0.15 + 0.12 * number) as report:
            chosen = replace(settings, recipe=recipe)
            alignments[recipe] = pipeline.align_text(text, chosen, report)
            alignments[recipe].lexicon.save(out / f"{recipe}.parquet")
        with clock.stage(f"score {recipe}", 0.20 + 0.12 * number):
            lexicon_rows.append(_lexicon_row(recipe, pipeline.score_alignment(text, alignments[recipe], chosen)))
    model_rows = []
    with clock.stage("measure untuned models", 0.55) as report:
        model_rows += _measure_untuned(model, source, pair, alignments, measured, seed, report)
    with clock.stage("calibrate", 0.6) as report:
        best = alignments["anchored"].lexicon
        converted = rearrange(model, best, source, target, seed=seed)
        passages = excerpts(train, CALIBRATE_BYTES, seed=seed)
        calibration = calibrate(converted, target, passages, CALIBRATE_TOKENS, report, (model, source))
        card = {"model": SOURCE, "lexicon": best.provenance, "calibration": calibration.to_dict()}
        save_model(converted, target, out / "rearranged", card=card, source=source)
    del model, converted
    with clock.stage("tune", 0.97) as report:
        model_rows += _tune(out, train, measured, size, seed, report)
    found = overlap(source, target)
    result = {
        "pair": {
            "source": SOURCE,
            "target": TARGET,
            "target_size": found.target_size,
            "shared by raw string": f"{found.raw_count:,} ({found.raw_share:.2%})",
            "shared by bytes": f"{found.bytes_count:,} ({found.bytes_share:.2%})",
            "bytes to align on": n_bytes(train),
            "bytes held out": f"{n_bytes(held_out):,}, of which {n_bytes(measured):,} are measured in bits",
            "device": describe_device(),
        },
        "lexicons": lexicon_rows,
        "models": model_rows,
        "seconds": {**clock.seconds, "all": sum(clock.seconds.values())},
        "settings": {**size._asdict(), "seed": seed, "text_hash": pair.source_corpus.text_hash, "fast": fast},
    }
    result["report"] = str(write_report(out, result, alignments["anchored"], source, target))
    write_json(out / "results.json", result)
    return result


def _lexicon_row(recipe: str, scores: dict[str, Any]) -> dict[str, Any]:
    of_lexicon, hidden = scores["lexicon"], scores["held_out"]

    def covered(by: str) -> float:
        return sum(of_lexicon[by].get(origin, 0.0) for origin in ("identical", "role", "aligned"))

    directions = ("target_to_source", "source_to_target")
    measured = [(name, direction) for name in ("bleu1", "sentence_score") for direction in directions]
    return {
        "recipe": recipe,
        "coverage": covered("coverage_types"),
        "coverage_of_text": covered("coverage_text"),
        **{f"{name}_{direction}": of_lexicon[name][direction] for name, direction in measured},
        "held_out_p_at_1": hidden["p_at_1"],
        "held_out_tokens": hidden["n"],
    }


def _measure_untuned(
    model: PreTrainedModel,
    source: Vocabulary,
    pair: TokenizedPair,
    alignments: dict[str, Alignment],
    measured: list[Document],
    seed: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    lexicons = {name: align(pair, recipe=recipe, seed=seed, overlap=by).lexicon for name, recipe, by in _BASELINES}
    lexicons |= {f"rearranged by {recipe}": alignment.lexicon for recipe, alignment in alignments.items()}
    rows = [_model_row("source, own tokenizer", bits_per_byte(model, source, measured).to_dict())]
    for number, (name, lexicon) in enumerate(lexicons.items()):
        progress(number / len(lexicons), name)
        converted = rearrange(model, lexicon, source, pair.target, seed=seed)
        rows.append(_model_row(name, bits_per_byte(converted, pair.target, measured).to_dict()))
    return rows


def _tune(
    out: Path, train: list[Document], measured: list[Document], size: DemoSize, seed: int, progress: Progress
) -> list[dict[str, Any]]:
    text = out / "text.jsonl"
    parts = (("train", train), ("held_out", measured))
    rows = [{**asdict(document), "split": split} for split, documents in parts for document in documents]
    with atomic_file(text) as temporary:
        write_jsonl(rows, temporary)
    sizes = {name: getattr(size, name) for name in ("steps", "batch_size", "sequence_length")}
    files = {"model": str((out / "rearranged").resolve()), "text": [str(text.resolve())]}
    # All rows of the table use the same text. A measurement takes as long as several steps, so tuning has none.
    measuring = {"evaluate_bytes": 10 * size.measure_bytes, "evaluate_every": 0}
    if RunFolder(out / "run").exists:
        RunFolder(out / "run").cancel()
        shutil.rmtree(out / "run")
    run = start("adapt", {**files, **sizes, **measuring, "seed": seed}, out / "run")
    try:
        run.wait(progress)
    except KeyboardInterrupt:
        run.request_cancel()
        raise
    check_finished(run)
    after = {event["step"]: event for event in run.curve("evaluation")}
    kept = read_record(run.path / "model")["training"]["kept_step"]
    tokens = size.batch_size * size.sequence_length
    names = ("rearranged by anchored, calibrated", f"tuned ({kept} steps, {kept * tokens:,} tokens)")
    return [_model_row(name, after[step]) for name, step in zip(names, (0, kept), strict=True)]


def _model_row(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    by_slice, sizes = measured["by_slice"], measured["bytes_by_slice"]
    rest = [name for name in by_slice if name not in ("prose", "code")]
    weight = sum(sizes[name] for name in rest)
    return {
        "model": name,
        "bits_per_byte": measured["bits_per_byte"],
        "prose": by_slice.get("prose"),
        "code": by_slice.get("code"),
        "interface_texts": sum(by_slice[name] * sizes[name] for name in rest) / weight if rest else None,
    }


class _Clock:
    """Times the stages and reports progress; the shares are fixed, so they do not estimate the remaining time."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._done = 0.0

    @contextmanager
    def stage(self, name: str, until: float) -> Iterator[Progress]:
        self._progress(self._done, name)
        inner = part(self._progress, self._done, until)
        started = time.perf_counter()
        yield lambda share, message: inner(share, f"{name}: {message}")
        self.seconds[name] = round(time.perf_counter() - started, 1)
        self._done = until
