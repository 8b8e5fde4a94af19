"""Commands that are not about one stage: demo, notebooks, report, app, doctor."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from tokalign_lab import console
from tokalign_lab.cli.command import Seed, app, check_out, command


@command(app, "demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the table, the report and the model.")] = Path("demo"),
    fast: Annotated[bool, typer.Option("--fast", help="A few minutes instead of six, less precise figures.")] = False,
    seed: Seed = 0,
) -> Any:
    """Run the whole pipeline on the packaged model and write one table and one HTML report."""
    from tokalign_lab.demo import run_demo

    with console.progress_bar("demo") as progress:
        result = run_demo(out, fast=fast, seed=seed, progress=progress)

    def show() -> None:
        console.print_facts(result["pair"], title="The pair")
        lexicons = result["lexicons"]
        scores = [{"score": name, **{row["recipe"]: row[name] for row in lexicons}} for name in lexicons[0]][1:]
        console.print_table(scores, title="The lexicons, on held-out text")
        console.print_table(result["models"], title="Bits per byte on held-out text")
        console.print_facts(result["seconds"], title="Seconds")
        console.stdout.print(f"Report: {result['report']}", soft_wrap=True)

    return result, show


@command(app, "notebooks")
def notebooks(folder: Annotated[Path, typer.Argument(help="A new or empty folder, or an earlier copy.")]) -> Any:
    """Copy the quick start and the lessons into a folder; an edited notebook is never overwritten."""
    from tokalign_lab.lessons import copy_lessons

    result = copy_lessons(folder)

    def show() -> None:
        for name in result["kept"]:
            console.stdout.print(f"Kept {name}: it was edited since it was copied.", soft_wrap=True)
        words = f"Copied {len(result['copied'])} notebooks to {folder}. Open them with: jupyter lab {folder}"
        console.stdout.print(words, soft_wrap=True, highlight=False)

    return {"folder": str(folder), **result}, show


@command(app, "report")
def report(
    run: Annotated[str, typer.Argument(help="An alignment that has finished: a run's name or its folder.")],
    tuned: Annotated[
        list[str] | None, typer.Option("--tuned", help="A tuning run that followed from it. May be repeated.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", "--floor", help="A measure run of the source model.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")] = Path("report.html"),
) -> Any:
    """Write one HTML file about an alignment and its tuning runs; it opens without a network."""
    from tokalign_lab.report import write_run_report
    from tokalign_lab.runs.control import find_run

    check_out(out, suffix=".html")
    followed = [find_run(name) for name in tuned or []]
    path = write_run_report(out, find_run(run), followed, None if reference is None else find_run(reference))
    return {"report": str(path)}, lambda: console.stdout.print(f"Report: {path}", soft_wrap=True)


@command(app, "app")
def serve_app(
    runs: Annotated[Path, typer.Option("--runs", help="Folder of the runs and of the lab's view.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", help="Port to listen on.")] = 8866,
    ip: Annotated[str, typer.Option("--ip", help="Address to listen on; by default this machine only.")] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open a browser.")] = False,
) -> Any:
    """Serve the lab as a web page without notebooks, protected by a token."""
    from tokalign_lab.app import serve

    code = serve(runs, port, ip, browser=not no_browser, show=partial(console.stderr.print, soft_wrap=True))
    return {"exit_code": code}, lambda: None


@command(app, "doctor")
def doctor(
    verify: Annotated[bool, typer.Option("--verify", help="Verify the checksums of the whole cache.")] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove unfinished files of killed processes that are older than a day.")
    ] = False,
) -> Any:
    """Show what is installed, which device will be used, and what is missing."""
    from tokalign_lab import doctor as checks

    result = checks.examine()
    if verify:
        with console.progress_bar("verify") as progress:
            result["cached"] = checks.verify(progress)
        damaged = [row["folder"] for row in result["cached"] if row["state"] != "whole"]
        result["missing"] += [f"{folder} is damaged; it will be rebuilt when it is next used." for folder in damaged]
    if clean:
        result["removed"] = checks.clean()

    def show() -> None:
        for key, title in (("cached", "Cache"), ("removed", "Removed")):
            if key in result:
                console.print_table(result[key], title=title)
        console.print_facts(result["system"], title="System")
        console.print_table(result["packages"], title="Packages")
        console.print_table(result["assets"], title="Default assets")
        for sentence in result["missing"] or ["Nothing is missing."]:
            console.stdout.print(sentence, soft_wrap=True)

    return result, show
