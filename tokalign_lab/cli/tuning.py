"""Commands that tune a model, with or without a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.adaptation.recipes import settings_of
from tokalign_lab.adaptation.settings import AdaptRunSettings
from tokalign_lab.cli.command import app, check_out, command
from tokalign_lab.cli.runs import ended_badly, follow, summary
from tokalign_lab.settings.kinds import TextSettings, WritingSettings


@command(app, "generate")
def generate(
    teacher: Annotated[str, typer.Argument(help="The teacher: a folder, a name or a hub id.")],
    text: TextSettings,
    writing: WritingSettings,
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file for the text, which `adapt` can read.")],
) -> Any:
    """Let a teacher continue the beginnings of documents, for sentence-level distillation; can be resumed."""
    from tokalign_lab import catalog
    from tokalign_lab.adaptation.teacher_text import write_text
    from tokalign_lab.documents import read_parts
    from tokalign_lab.model.load import load_model

    check_out(out, suffix=".jsonl")
    train, held_out = read_parts(text)
    vocabulary, model = catalog.load_vocabulary(teacher), load_model(teacher)
    with console.progress_bar("generate") as progress:
        written = write_text(model, vocabulary, train, held_out, writing, out, progress=progress)
    result = {"text": str(out), "teacher": teacher, "documents": writing.documents, "bytes": written, "seed": text.seed}
    return result, lambda: console.print_facts(result)


@command(app, "adapt", failed=ended_badly, needs={"learning_rate_stage1": "stage1_share", "sample_tokens": "prompts"})
def adapt(
    settings: AdaptRunSettings,
    run: Annotated[Path, typer.Option("--run", help="The run folder; it must not contain another run.")],
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the run folder; start it yourself (docs/scale.md).")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the job has started.")] = False,
) -> Any:
    """Tune a rearranged model, with or without a teacher, in a separate process; Ctrl-C leaves it running."""
    from tokalign_lab import pipeline
    from tokalign_lab.runs.control import start
    from tokalign_lab.runs.folder import RunFolder

    pipeline.check_tune(settings, here=not prepare)
    if prepare:
        return summary(RunFolder.create(run, "adapt", _as_given(settings)))
    return follow(start("adapt", _as_given(settings), run), detach)


def _as_given(settings: AdaptRunSettings) -> dict[str, Any]:
    """Return the settings that differ from the recipe's, with absolute paths, because a run may start elsewhere."""

    def resolved(value: Any) -> Any:
        from tokalign_lab import catalog

        if isinstance(value, list):
            return [resolved(one) for one in value]
        here = value and not catalog.is_known(value) and Path(value).exists()
        return str(Path(value).resolve()) if here else value

    values, usual = settings.to_dict(), settings_of(settings.recipe)
    kept = [
        one
        for one in settings.options()
        if one.required or one.name == "recipe" or getattr(settings, one.name) != usual.get(one.name, one.default)
    ]
    return {one.name: resolved(values[one.name]) if one.path else values[one.name] for one in kept}
