"""Speed and memory of tuning, compared with a plain Hugging Face Trainer loop on the same batches.

Each measurement runs in a separate process. "plain" is a usual script: `from_pretrained`, all weights frozen except
those of the stage, `Trainer.train()`, on the same blocks in the same order with the same settings. "ours" is all of
`adapt`: with events, held-out text, a checkpoint, and the model saved at the end. The process of a run requests huge
pages (THP_MEM_ALLOC_ENABLE=1); "plain, huge pages" is the plain loop with huge pages, to show their effect.

The losses of all loops must agree.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import limit_threads, measured, parser, report

TARGETS = ("gemma3", "sp32k")  # 262k and 32k tokens
TEXT_BYTES = 3_000_000
AGREE = 2e-3  # nats; float32 sums in another order, over a few steps of AdamW


def prepare(target: str, folder: str) -> dict[str, Any]:
    """Rearrange SmolLM2-135M to a target by the default recipe."""
    from tokalign_lab import align, load_model, load_vocabulary, read_documents, rearrange, save_model, tokenize_pair

    source, vocabulary = load_vocabulary("smollm2-135m"), load_vocabulary(target)
    pair = tokenize_pair(source, vocabulary, read_documents(["default"], max_bytes=TEXT_BYTES))
    model = rearrange(load_model("smollm2-135m"), align(pair).lexicon, source, vocabulary)
    save_model(model, vocabulary, Path(folder))
    return {}


def settings_of(stage: int, steps: int, batch: int, length: int, **more: Any) -> Any:
    from tokalign_lab.adaptation.settings import AdaptSettings

    return AdaptSettings.from_dict(
        {
            "recipe": "papers",
            "steps": steps,
            "stage1_share": float(stage == 1),
            "batch_size": batch,
            "sequence_length": length,
            "evaluate_bytes": 2_000,
            "prompts": [],
            "save_every": steps,
            **more,
        }
    )


def ours(
    model: str, stage: int, steps: int, batch: int, length: int, text: str = "default", **more: Any
) -> dict[str, Any]:
    """Tune by `adapt`, and summarise its step events."""
    from tokalign_lab.adaptation.train import adapt

    events: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        adapt(
            model,
            [text],
            settings_of(stage, steps, batch, length, **more),
            Path(folder),
            events.append,
            max_bytes=TEXT_BYTES,
        )
    step_events = [event for event in events if event["kind"] == "step"]
    return {
        "losses": [event["loss"] for event in step_events],
        "speeds": [event["tokens_per_second"] for event in step_events],
    }


def ours_checkpointing(model: str, stage: int, steps: int, batch: int, length: int) -> dict[str, Any]:
    """Tune by `adapt` with gradient checkpointing."""
    return ours(model, stage, steps, batch, length, gradient_checkpointing=True)


def ours_one_by_one(model: str, stage: int, steps: int, batch: int, length: int) -> dict[str, Any]:
    """Tune by `adapt` with gradient accumulation: the same sequences per step, one at a time."""
    return ours(model, stage, steps, 1, length, gradient_accumulation_steps=batch)


def plain(model_name: str, stage: int, steps: int, batch: int, length: int) -> dict[str, Any]:
    """Train by a plain script."""
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed

    from tokalign_lab import load_vocabulary, read_documents, split_documents
    from tokalign_lab.adaptation.data import OrderedBlocks, mixed
    from tokalign_lab.adaptation.stages import set_trainable
    from tokalign_lab.corpus import Corpus

    settings, vocabulary = settings_of(stage, steps, batch, length), load_vocabulary(model_name)
    train, _ = split_documents(read_documents(["default"], max_bytes=TEXT_BYTES), settings.held_out_share)
    mix = mixed(Corpus.build(train, vocabulary), train, vocabulary, length, settings.seed)
    losses, speeds = [], []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            speeds.append(batch * length / (time.perf_counter() - self.started))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    set_seed(settings.seed + stage)
    model = AutoModelForCausalLM.from_pretrained(model_name, dtype="float32")
    set_trainable(model, stage)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=settings.learning_rate_stage1 if stage == 1 else settings.rates()[1],
            lr_scheduler_type="cosine",
            warmup_steps=int(steps * settings.warmup_ratio),
            weight_decay=0.0,
            max_grad_norm=settings.gradient_clip,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        InOrder(model, arguments, train_dataset=OrderedBlocks(mix, 0, steps * batch), callbacks=[Clock()]).train()
    return {"losses": losses, "speeds": speeds}


def compare(target: str, folder: str, stage: int, steps: int, batch: int, length: int) -> list[dict[str, Any]]:
    """Measure the loops in one stage, and compare them with the plain one."""
    rows: list[dict[str, Any]] = []
    losses: list[float] = []
    for name, work, huge in LOOPS:
        if work is ours_one_by_one and batch == 1:
            continue  # it is ours
        os.environ["THP_MEM_ALLOC_ENABLE"] = str(int(huge))
        found = measured(work, folder, stage, steps, batch, length)
        speed = statistics.median(found["speeds"][1:])  # the first step includes setup
        losses = losses or found["losses"]
        first = rows[0] if rows else {"tokens_per_second": speed, "peak_GB": found["peak"]}
        rows.append(
            {
                "target": target,
                "stage": stage,
                "loop": name,
                "tokens_per_second": speed,
                "times_plain": speed / first["tokens_per_second"],
                "peak_GB": found["peak"],
                "share_of_plain": found["peak"] / first["peak_GB"],
                "first_loss": found["losses"][0],
                "last_loss": found["losses"][-1],
                "largest_difference": max(abs(a - b) for a, b in zip(losses, found["losses"], strict=True)),
            }
        )
    return rows


LOOPS = (
    ("plain", plain, False),
    ("plain, huge pages", plain, True),
    ("ours", ours, True),
    ("ours, one sequence at a time", ours_one_by_one, True),
    ("ours, gradient checkpointing", ours_checkpointing, True),
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    options.add_argument("--stages", nargs="+", type=int, choices=(1, 2), default=(1, 2))
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--sequence-length", type=int, default=256)
    given = options.parse_args()
    limit_threads(given.threads)
    if given.quick:
        given.targets, given.steps, given.batch_size, given.sequence_length = ["sp32k"], 3, 2, 32
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for target in given.targets:
            place = str(Path(folder) / target)
            measured(prepare, target, place)
            for stage in given.stages:
                rows += compare(target, place, stage, given.steps, given.batch_size, given.sequence_length)
    apart = max(row["largest_difference"] for row in rows)
    notes = [
        f"{given.threads} threads, {given.steps} steps of {given.batch_size} sequences of {given.sequence_length} "
        "tokens; speed is the median step's, the first left out; peak is the process's, loading and saving included.",
        f"Losses of the same step differ by at most {apart:.2g} nats; up to {AGREE:g} counts as equal: "
        f"{'they agree' if apart <= AGREE else 'THEY DO NOT AGREE'}.",
    ]
    report("Speed and memory of tuning", [("Tokens per second and memory", rows)], notes, given.out)


if __name__ == "__main__":
    main()
