"""Commands for the user's runs and for recorded runs, and how a command reports a run: progress and summary."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import command, gallery_app, runs_app
from tokalign_lab.errors import InputError
from tokalign_lab.runs import trash
from tokalign_lab.runs.control import (
    RunEnded,
    check_finished,
    find_run,
    gallery_root,
    list_runs,
    rename_run,
    start_again,
)
from tokalign_lab.runs.folder import RESUMABLE, AlreadyRunning, RunFolder
from tokalign_lab.runs.queue import await_start
from tokalign_lab.runs.schema import DAMAGED

Root = Annotated[Path | None, typer.Option("--root", help="Folder of the runs.")]
Run = Annotated[str, typer.Argument(help="A run's name or its folder.")]


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
                f"The run continues; `tokalign-lab runs watch {shlex.quote(str(folder.path))}` follows it, "
                "`runs cancel` stops it."
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


@command(runs_app, "list")
def runs_list(
    root: Root = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="List the recorded runs that ship with the package instead.")
    ] = False,
) -> Any:
    """List the runs, newest first."""
    from tokalign_lab.runs.gallery import recorded_runs  # imports the lexicon, which takes a second

    found = recorded_runs() if recorded else list_runs(root)
    keys = ("name", "kind", "state", "pid", "created", "ended", "error")
    rows = [
        {**{key: info[key] for key in keys}, "title": run.title, "recorded": run.recorded, "path": str(run.path)}
        for run in found
        for info in (run.reconcile(),)
    ]
    shown = [{"name": row["name"], "title": row["title"], **{k: row[k] for k in keys[1:]}} for row in rows]

    def show() -> None:
        console.print_table(shown, title="Recorded runs that ship with the package" if recorded else "")
        if not rows:
            console.stdout.print("No runs here yet; `tokalign-lab gallery list` has recorded ones.", soft_wrap=True)

    return {"runs": rows}, show


@command(gallery_app, "list")
def gallery_list() -> Any:
    """List the recorded runs: when and how they were made, and what they omit."""
    from tokalign_lab.runs.gallery import recorded_runs, recorded_words
    from tokalign_lab.runs.kinds import command_of

    rows = [
        {"name": run.name, "title": run.title, "words": recorded_words(info), "command": command_of(info)}
        for run in recorded_runs()
        for info in (run.info(),)
    ]

    def show() -> None:
        console.print_table([{key: row[key] for key in ("name", "title", "command")} for row in rows])
        for words in dict.fromkeys(row["words"] for row in rows):
            console.stdout.print(words, soft_wrap=True, markup=False)

    return {"gallery": str(gallery_root()), "runs": rows}, show


@command(gallery_app, "record")
def gallery_record(
    out: Annotated[Path, typer.Option("--out", help="Folder of the gallery; replaced at the end.")],
    work: Annotated[
        Path, typer.Option("--work", help="Folder for the runs themselves, 2 GB; an interrupted recording continues.")
    ] = Path("gallery-runs"),
    steps: Annotated[int, typer.Option("--steps", help="Optimiser steps of the default recipe.")] = 1000,
) -> Any:
    """Record the gallery again: align, rearrange and tune the default pair, and pack the files that panels show."""
    from tokalign_lab.record import record_gallery

    with console.progress_bar("record") as progress:
        result = record_gallery(out, work, steps, progress)
    return result, lambda: console.print_facts(result)


@command(runs_app, "watch", failed=ended_badly)
def runs_watch(run: Run) -> Any:
    """Follow a run until it ends; Ctrl-C stops watching, not the run."""
    folder = find_run(run)
    await_start(folder)
    return follow(folder, detach=False)


@command(runs_app, "cancel")
def runs_cancel(run: Run) -> Any:
    """Stop a run; its results so far stay in its folder."""
    folder = find_run(run)
    folder.cancel()
    return summary(folder)


@command(runs_app, "resume", failed=ended_badly)
def runs_resume(
    run: Run, detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it has started.")] = False
) -> Any:
    """Continue a cancelled, failed or killed run from its last checkpoint; follow one that is running."""
    folder = find_run(run)
    try:
        folder.resume()
    except AlreadyRunning as error:
        console.stderr.print(f"{error} This command follows it.", soft_wrap=True, markup=False)
    return follow(folder, detach)


@command(runs_app, "pause")
def runs_pause(run: Run) -> Any:
    """Finish the current step, save a checkpoint, then stop; `runs resume` continues."""
    folder = find_run(run)
    folder.request_pause()
    folder.wait()
    return summary(folder)


@command(runs_app, "again", failed=ended_badly)
def runs_again(
    run: Run,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of tuning and its value, as steps=400. Repeatable.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Title of the new run.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as it has started.")] = False,
) -> Any:
    """Start a new tuning run with changed settings of an earlier one."""
    return follow(start_again(find_run(run), _settings(change or []), name), detach)


def _settings(given: list[str]) -> dict[str, Any]:
    """Read settings such as `steps=400`; a value is JSON (400, 1e-4, true), else text."""
    settings = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise InputError(f"--set is {one!r}; write a setting and its value, as steps=400.")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


@command(runs_app, "rename")
def runs_rename(run: Run, name: Annotated[str, typer.Argument(help="The new title.")]) -> Any:
    """Give a run another title; its folder keeps its name."""
    folder = find_run(run)
    rename_run(folder, name)
    return summary(folder)


@command(runs_app, "delete")
def runs_delete(run: Run) -> Any:
    """Move a run to the trash; `runs restore` restores it."""
    return summary(trash.delete_run(find_run(run)))


@command(runs_app, "restore")
def runs_restore(
    run: Annotated[str | None, typer.Argument(help="Name of the run; by default the one deleted last.")] = None,
    root: Root = None,
) -> Any:
    """Restore a run from the trash."""
    return summary(trash.restore_run(run, root))


@command(runs_app, "trash")
def runs_trash(
    empty: Annotated[bool, typer.Option("--empty", help="Delete them permanently.")] = False, root: Root = None
) -> Any:
    """List the runs in the trash and their bytes."""
    names = [run.title for run in trash.deleted_runs(root)]
    result = {"runs": names, "bytes": trash.empty_trash(root) if empty else trash.trash_bytes(root)}
    return result, lambda: console.print_facts(result, title="Deleted permanently" if empty else "In the trash")
