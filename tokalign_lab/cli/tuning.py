"""Commands that tune a model, with or without a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import (
    MaxBytes,
    MoreText,
    Seed,
    Text,
    app,
    check_out,
    command,
    resolved,
)
from tokalign_lab.cli.following import follow, summary
from tokalign_lab.errors import InputError


@command(app, "generate")
def generate(
    teacher: Annotated[str, typer.Argument(help="The model that writes: a folder, a name or a hub id.")],
    text: Text,
    out: Annotated[Path, typer.Option("--out", help="Where the text goes, a .jsonl file that `adapt` takes.")],
    documents: Annotated[int, typer.Option("--documents", help="How many texts it writes.")],
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Tokens of the text each begins with.")] = 32,
    new_tokens: Annotated[int, typer.Option("--new-tokens", help="Tokens that it adds at most.")] = 96,
    temperature: Annotated[float, typer.Option("--temperature", help="Of sampling; 0 writes greedily.")] = 1.0,
    seed: Seed = 0,
    max_bytes: MaxBytes = None,
    more_text: MoreText = None,
) -> Any:
    """Let a teacher continue beginnings of a text, for sentence-level distillation; started again, it goes on."""
    from tokalign_lab import catalog
    from tokalign_lab.adaptation.teacher_text import WritingSettings, write_text
    from tokalign_lab.documents import read_documents, split_documents
    from tokalign_lab.model.load import load_model

    settings = WritingSettings(documents, prompt_tokens, new_tokens, temperature, seed)
    check_out(out, suffix=".jsonl")
    read = read_documents([*text, *(more_text or [])], max_bytes=max_bytes, seed=seed)
    train, held_out = split_documents(read, seed=seed)
    vocabulary, model = catalog.load_vocabulary(teacher), load_model(teacher)
    with console.progress_bar("generate") as progress:
        written = write_text(model, vocabulary, train, held_out, settings, out, progress=progress)
    result = {"text": str(out), "teacher": teacher, "documents": documents, "bytes": written, "seed": seed}
    return result, lambda: console.print_facts(result)


@command(app, "adapt")
def adapt(
    model_dir: Annotated[str, typer.Argument(help="The rearranged model: a folder, a name or a hub id.")],
    text: Text,
    run: Annotated[Path, typer.Option("--run", help="The run folder; it must not hold another run.")],
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps of both stages together.")],
    seed: Seed = 0,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Sequences a step.")] = None,
    sequence_length: Annotated[int | None, typer.Option("--sequence-length", help="Tokens a sequence.")] = None,
    stage1_share: Annotated[
        float | None, typer.Option(help="Share of steps that tune embeddings and head only.")
    ] = None,
    learning_rate_stage1: Annotated[float | None, typer.Option(help="Peak learning rate of stage 1.")] = None,
    learning_rate_stage2: Annotated[float | None, typer.Option(help="Peak learning rate of stage 2.")] = None,
    gradient_accumulation_steps: Annotated[int | None, typer.Option(help="Batches a step.")] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option("--mix", help="A slice and a factor on how often its text comes, as de=2. May be repeated."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Above 1, small slices of the text come more often than their size says.")
    ] = None,
    cross_documents: Annotated[
        bool | None,
        typer.Option("--cross-documents/--documents-apart", help="Whether attention and loss cross documents."),
    ] = None,
    bf16: Annotated[
        bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16; by default where the GPU can.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Less memory, a third more work.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Learn from this model's predictions too; it must have the same tokenizer (see `generate`)."),
    ] = None,
    distillation_weight: Annotated[
        float | None, typer.Option(help="Of the divergence from the teacher beside the next-token loss.")
    ] = None,
    distillation_temperature: Annotated[float | None, typer.Option(help="Softens both distributions.")] = None,
    distillation_direction: Annotated[
        str | None, typer.Option(help="forward: KL(teacher || student); reverse: KL(student || teacher).")
    ] = None,
    distillation_share: Annotated[
        float | None, typer.Option(help="Share of the sequences that the teacher is asked about.")
    ] = None,
    distillation_top_k: Annotated[
        int | None,
        typer.Option(help="Keep so many of the teacher's best tokens before the first step; 0: it reads along."),
    ] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Steps between measurements.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best one here by default.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes on this machine that share the work, one a GPU.")
    ] = None,
    accelerate_config: Annotated[
        Path | None, typer.Option(help="Start by accelerate launch with this configuration (docs/scale.md).")
    ] = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the run folder; it is started by hand (docs/scale.md).")
    ] = False,
    max_bytes: MaxBytes = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the job has started.")] = False,
    more_text: MoreText = None,
) -> Any:
    """Tune a model in two stages, with or without a teacher, in a process of its own; Ctrl-C leaves it running."""
    from tokalign_lab import catalog
    from tokalign_lab.adaptation.settings import AdaptSettings
    from tokalign_lab.device import pick_device
    from tokalign_lab.documents import check_sources
    from tokalign_lab.runs.control import start
    from tokalign_lab.runs.folder import RunFolder

    given = {
        "steps": steps,
        "seed": seed,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "stage1_share": stage1_share,
        "learning_rate_stage1": learning_rate_stage1,
        "learning_rate_stage2": learning_rate_stage2,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "mix": _weights(mix) if mix else None,
        "temperature": temperature,
        "cross_documents": cross_documents,
        "bf16": bf16,
        "gradient_checkpointing": gradient_checkpointing,
        "evaluate_every": evaluate_every,
        "save_every": save_every,
        "teacher": teacher,
        "distillation_weight": distillation_weight,
        "distillation_temperature": distillation_temperature,
        "distillation_direction": distillation_direction,
        "distillation_share": distillation_share,
        "distillation_top_k": distillation_top_k,
    }
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    text = [*text, *(more_text or [])]
    AdaptSettings.from_dict(settings)
    catalog.model_folder(model_dir)  # a model that is not there ends here, before a run is made
    catalog.load_vocabulary(model_dir)
    if teacher:
        from tokalign_lab.adaptation.teacher import check_same_tokenizer

        catalog.model_folder(teacher)
        check_same_tokenizer(catalog.load_vocabulary(teacher), catalog.load_vocabulary(model_dir))
        settings["teacher"] = resolved(teacher)
    check_sources(text)
    if device is not None:
        pick_device(device)
    settings |= {
        "model": resolved(model_dir),
        "text": [resolved(one) for one in text],
        "max_bytes": max_bytes,
    }
    config = None if accelerate_config is None else str(accelerate_config.resolve())
    how = {"device": device, "processes": processes, "accelerate_config": config}
    settings |= {name: value for name, value in how.items() if value is not None}
    if prepare:
        folder = RunFolder.create(run, "adapt", settings)
        return summary(folder)
    return follow(start("adapt", settings, run), detach)


def _weights(given: list[str]) -> dict[str, float]:
    """Read `de=2` and its like."""
    weights = {}
    for one in given:
        name, _, factor = one.rpartition("=")
        try:
            weights[name] = float(factor)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--mix is {one!r}; write a slice and a factor, as de=2.")
    return weights
