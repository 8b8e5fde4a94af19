"""What a command says of a run: its progress while it goes on, and its summary."""

from __future__ import annotations

from typing import Any

from tokalign_lab import console
from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.schema import DAMAGED


def follow(folder: RunFolder, detach: bool) -> Any:
    """Wait for a run with a progress bar, unless `detach`; Ctrl-C ends the waiting and not the run.

    Raises
    ------
    InputError
        If the run failed; its own sentence.
    """
    if not detach:
        try:
            with console.progress_bar(folder.name) as progress:
                folder.wait(progress=progress)
        except KeyboardInterrupt:
            console.stderr.print(
                f"The run goes on; `tokalign-lab runs watch {folder.path}` follows it, `runs cancel` stops it."
            )
            raise
    result, show = summary(folder)
    if result["state"] == DAMAGED:
        raise InputError(result["error"])
    if result["state"] == "failed":
        raise InputError(f"The run {folder.name} failed: {result['error']}")
    return result, show


def summary(folder: RunFolder) -> Any:
    """Return state, loss and bits per byte of a run, and how to print them."""
    info, steps, evaluations = folder.reconcile(), folder.curve(), folder.curve("evaluation")
    result = {
        "run": str(folder.path),
        "name": info["name"],
        "title": folder.title,
        "recorded": folder.recorded,
        "state": info["state"],
        "pid": info["pid"],
        "error": info["error"],
        "steps": len(steps),
        "loss": steps[-1].get("loss") if steps else None,
        "bits_per_byte": evaluations[-1].get("bits_per_byte") if evaluations else None,
    }
    return result, lambda: console.print_facts(result)
