"""Commands that make tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import check_out, command, tokenizer_app
from tokalign_lab.settings.kinds import ExtendTokenizerSettings, TrainTokenizerSettings

Out = Annotated[Path, typer.Option("--out", help="The folder for the new tokenizer.")]


@command(tokenizer_app, "train")
def train(settings: TrainTokenizerSettings, out: Out) -> Any:
    """Train a tokenizer on a text and count its tokens on the held-out part."""
    from tokalign_lab import pipeline

    check_out(out)
    return _show(pipeline.train_tokenizer(settings, out))


@command(tokenizer_app, "extend")
def extend(settings: ExtendTokenizerSettings, out: Out) -> Any:
    """Add tokens for a text to a BPE tokenizer; old tokens keep their ids."""
    from tokalign_lab import pipeline

    check_out(out)
    return _show(pipeline.extend_tokenizer(settings, out))


def _show(result: dict[str, Any]) -> Any:
    title = "{tokenizer}: {size:,} tokens, {added:,} new. Held-out text by slice:".format(**result)
    return result, lambda: console.print_table(result["slices"], title=title)
