"""Commands that make models from lexicons, and that measure models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import Seed, app, check_out, command
from tokalign_lab.errors import InputError
from tokalign_lab.settings.kinds import BitsSettings, DraftSettings, ExportSettings, RearrangeSettings, TextSettings


@command(app, "check", failed=lambda result: result["verdict"] == "fail")
def check(
    model_dir: Annotated[str, typer.Argument(help="A model and its tokenizer: a folder, a name or a hub id.")],
) -> Any:
    """Check a model's folder: ids, tokenizer, rows, head, chat template, generation, GGUF; exit code 1 if one fails."""
    from tokalign_lab.model.check import check_folder

    with console.progress_bar("check") as progress:
        found = check_folder(model_dir, progress=progress)
    result = {"model": model_dir, **found.to_dict()}

    def show() -> None:
        rows = [
            {
                "check": finding.name,
                "": finding.severity,
                "evidence": finding.evidence + f" E.g. {', '.join(finding.examples)}" * bool(finding.examples),
                "advice": finding.advice,
            }
            for finding in found.findings
        ]
        rows += [
            {"check": name, "": "-", "evidence": f"Not checked, because of: {cause}.", "advice": ""}
            for name, cause in found.left_out.items()
        ]
        console.print_table(rows, title=f"{model_dir}: {found.verdict}")

    return result, show


@command(app, "rearrange")
def rearrange(
    settings: RearrangeSettings, out: Annotated[Path, typer.Option("--out", help="The folder for the new model.")]
) -> Any:
    """Replace a model's vocabulary by the lexicon's target and save it for transformers."""
    from tokalign_lab import pipeline

    check_out(out)
    with console.progress_bar("rearrange") as progress:
        result = {"model": str(out), **pipeline.rearrange(settings, out, progress)}
    return result, lambda: console.print_facts(result)


@command(
    app,
    "export",
    failed=lambda result: result.get("verdict") == "fail",
    needs={"converter": "gguf", "private": "push_to_hub"},
)
def export(settings: ExportSettings) -> Any:
    """Write a model as a GGUF file, compared with transformers in a llama.cpp runtime, or publish it on the hub.

    The exit code is 1 if greedy continuations differ, or token ids for a reason other than the tokenizer's normalizer.
    """
    from tokalign_lab.model.export import export_gguf
    from tokalign_lab.model.publish import check_repo_id, push_to_hub

    if settings.gguf is None and settings.push_to_hub is None:
        raise InputError("Say how to export the model: --gguf FILE, or --push-to-hub organisation/name.")
    if settings.gguf is not None:
        check_out(Path(settings.gguf), ".gguf", "--gguf")
    if settings.push_to_hub is not None:
        check_repo_id(settings.push_to_hub)
    result: dict[str, Any] = {}
    if settings.gguf is not None:
        with console.progress_bar("export") as progress:
            result |= export_gguf(settings.model, Path(settings.gguf), settings.converter, progress)
    if settings.push_to_hub is not None:
        with console.progress_bar("publish") as progress:
            result |= push_to_hub(settings.model, settings.push_to_hub, settings.private, progress)
    return {"model": settings.model, **result}, lambda: console.print_facts(result, title=settings.model)


@command(app, "draft")
def draft(
    settings: DraftSettings,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the lexicon and the converted models.")] = None,
) -> Any:
    """Measure a small model as the draft model of a large one: acceptance and tokens per step, by slice."""
    from tokalign_lab.draft import measure_draft, was_interrupted

    if out is not None and not was_interrupted(out):
        check_out(out)
    with console.progress_bar("draft") as progress:
        scores = measure_draft(settings, out, progress)
    rows = [{"draft model": name, **one} for name, found in scores.items() for one in found]
    result = {"model": settings.model, "large": settings.large, "drafts": scores}
    return result, lambda: console.print_table(rows, title=f"{settings.model} drafts for {settings.large}")


@command(app, "bpb")
def bpb(settings: BitsSettings) -> Any:
    """Measure bits per UTF-8 byte of the held-out part of a text."""
    from tokalign_lab import pipeline

    with console.progress_bar("bits per byte") as progress:
        result = pipeline.measure(settings, progress).to_dict()
    return {"model": settings.model, **result}, lambda: console.print_facts(result, title=settings.model)


@command(app, "evaluate", needs={"max_bytes": "text"})
def evaluate(
    model_dir: Annotated[list[str], typer.Argument(help="Models and their tokenizers: folders, names or hub ids.")],
    tasks: Annotated[
        str, typer.Option("--tasks", help="'papers' for all six, or names separated by commas: arc-easy,boolq.")
    ] = "papers",
    shots: Annotated[str, typer.Option("--shots", help="Examples in the prompt, separated by commas.")] = "0,5",
    limit: Annotated[int | None, typer.Option("--limit", help="Number of questions per task, sampled by seed.")] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Also measure bits per byte of this text's held-out part.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Use a sample of about this many bytes of the text.")] = None,
    seed: Seed = 0,
) -> Any:
    """Score models in the papers' six tasks (lm-evaluation-harness, validation sets), side by side."""
    from tokalign_lab import catalog
    from tokalign_lab.disjoint import check_not_tuned_on
    from tokalign_lab.documents import check_sources, read_parts
    from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
    from tokalign_lab.evaluation.tasks import check_harness, score_tasks, task_names
    from tokalign_lab.model.load import load_model
    from tokalign_lab.progress import part

    names, numbers = task_names(tasks), _numbers("--shots", shots)
    check_harness()
    for name in model_dir:
        catalog.model_folder(name)  # a missing model is refused before another one is scored
    check_sources(text or [])
    documents = None
    if text:
        chosen = TextSettings.from_dict({"text": text, "max_bytes": max_bytes, "seed": seed})
        _, documents = read_parts(chosen, needed=("held_out",))
        for name in model_dir:
            check_not_tuned_on(name, chosen, documents)
    models = []
    for name in model_dir:
        vocabulary, model = catalog.load_vocabulary(name), load_model(name)
        with console.progress_bar(name) as progress:
            share = 0.9 if documents else 1.0
            scores = score_tasks(model, vocabulary, names, numbers, limit, seed, part(progress, 0.0, share))
            row: dict[str, Any] = {"model": name, **scores.to_dict()}
            if documents:
                measured = bits_per_byte(model, vocabulary, documents, progress=part(progress, share, 1.0))
                row["bits_per_byte"] = measured.bits_per_byte
        models.append(row)
    return {"seed": seed, "limit": limit, "models": models}, lambda: _show_tasks(models)


def _show_tasks(models: list[dict[str, Any]]) -> None:
    """Print a row per task and a column per model: acc with its standard error, and acc_norm if it is reported."""
    lines = []
    for place, row in enumerate(models[0]["rows"]):
        line: dict[str, Any] = {key: row[key] for key in ("task", "shots", "n", "guess")}
        for model in models:
            score = model["rows"][place]
            line[model["model"]] = f"{score['acc']:.4f} ± {score['acc_stderr']:.4f}"
            if score["acc_norm"] is not None:
                line[model["model"]] += f" (norm {score['acc_norm']:.4f})"
        lines.append(line)
    for shots in models[0]["mean"]:
        of_these = [row["guess"] for row in models[0]["rows"] if row["shots"] == int(shots)]
        line = {"task": "mean", "shots": int(shots), "n": None, "guess": sum(of_these) / len(of_these)}
        lines.append(line | {model["model"]: f"{model['mean'][shots]:.4f}" for model in models})
    if "bits_per_byte" in models[0]:
        line = {"task": "bits per byte", "shots": None, "n": None, "guess": None}
        lines.append(line | {model["model"]: f"{model['bits_per_byte']:.4f}" for model in models})
    console.print_table(lines, title="acc ± standard error (acc_norm)")


def _numbers(option: str, written: str) -> list[int]:
    try:
        return [int(number) for number in written.split(",")]
    except ValueError:
        raise InputError(f"{option} is '{written}'; write whole numbers with commas, such as 0,5.") from None
