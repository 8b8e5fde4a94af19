"""Report a run in a command: its progress and its summary."""

from __future__ import annotations

from typing import Any

from tokalign_lab import console
from tokalign_lab.errors import InputError
from tokalign_lab.runs.control import RunEnded, check_finished
from tokalign_lab.runs.folder import RESUMABLE, RunFolder
from tokalign_lab.runs.schema import DAMAGED


def ended_badly(result: dict[str, Any]) -> bool:
    """Whether a run has ended without finishing; the exit code is then 1."""
    return result["state"] in RESUMABLE


def follow(folder: RunFolder, detach: bool) -> Any:
    """Wait for a run with a progress bar, unless `detach`; Ctrl-C stops waiting, not the run.

    Raises `InputError` with the run's message if it failed because of bad input.
    """
    if not detach:
        try:
            with console.progress_bar(folder.name) as progress:
                folder.wait(progress=progress)
        except KeyboardInterrupt:
            console.stderr.print(
                f"The run continues; `tokalign-lab runs watch {folder.path}` follows it, `runs cancel` stops it."
            )
            raise
    result, show = summary(folder)
    if result["state"] == DAMAGED:
        raise InputError(result["error"])
    if ended_badly(result):
        try:
            check_finished(folder)
        except RunEnded as error:  # the result has the state
            console.stderr.print(str(error), style="bold red", soft_wrap=True, markup=False)
    return result, show


def summary(folder: RunFolder) -> Any:
    """Return state, loss and bits per byte of a run, and a function that prints them."""
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
        **_recovery(folder),
    }
    return result, lambda: console.print_facts(result)


def _recovery(folder: RunFolder) -> dict[str, Any]:
    """Return a tuning run's losses, coverage, answered probes and kept step, from the last event of each kind."""
    last = {event.get("kind"): event for event in folder.events()[0]}
    coverage, source = last.get("coverage", {}), last.get("source", {})
    found = {
        "source_losses": source.get("losses"),
        "source_reason": source.get("reason") or None,
        "new_tokens": coverage.get("new_tokens"),
        "new_tokens_trained": coverage.get("new_tokens_trained"),
        "probes_answered": last.get("evaluation", {}).get("probes_answered"),
        "held_out_trained": coverage.get("held_out_trained"),
        "kept": last.get("kept", {}).get("reason"),
    }
    return {name: value for name, value in found.items() if value is not None}
