"""Run every notebook in a real browser, from "Run all" to its last cell: how long it takes, and whether a cell fails.

    python benchmarks/notebooks.py --out benchmarks/results/notebooks.jsonl [--only 03 stages] [--pictures FOLDER]

Each notebook runs alone in JupyterLab in Chromium, with a separate server, at full size (`--quick`: at the small sizes
of a check). Runs, vectors and measurements start empty; only the assets are already fetched. The limit is 15 minutes
per notebook on two cores. `--pictures` saves one picture per screenful. Each notebook is a line of the file `--out`; a
stopped run continues with the next notebook.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from harness import Kept, Result, limit_threads, parser, report

ROOT = Path(__file__).resolve().parents[1]
BAR_S = 15 * 60
SCREEN = {"width": 1280, "height": 1400}
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer"
RUN_ALL = "() => jupyterapp.commands.execute('notebook:run-all-cells')"
STEPS_DOWN = 60  # most screenfuls


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", help="only notebooks whose names begin with one of these")
    options.add_argument("--pictures", type=Path, help="save a picture of each screenful in this folder")
    given = options.parse_args()
    limit_threads(given.threads)
    if given.quick:
        os.environ["TOKALIGN_FAST"] = "1"
    kept = Kept(given, quick=given.quick)
    files = sorted((ROOT / "notebooks").glob("0*.ipynb")) + sorted((ROOT / "notebooks" / "research").glob("*.ipynb"))
    rows = []
    for file in files:
        if given.only and not file.name.startswith(tuple(given.only)):
            continue
        name = file.relative_to(ROOT / "notebooks").as_posix()
        rows.append(row_of(kept(partial(opened, name, given.pictures), notebook=name)))
    notes = [
        f"{given.threads} threads; {'the small sizes of a check' if given.quick else 'full sizes'}; minutes from Run "
        f"all to the end of the last cell, with panels drawn by software on the same cores. The bar is {BAR_S // 60}: "
        + ("all keep it." if all(row["minutes"] * 60 <= BAR_S for row in rows) else "NOT ALL KEEP IT."),
        "Runs, vectors and measurements begin empty; assets are there. Console errors are the page's, while it ran.",
    ]
    report("The notebooks, in a browser", [("From top to bottom", rows)], notes, given.out)
    if any(row["failed_cells"] or row["console_errors"] for row in rows):
        sys.exit(1)


def row_of(line: Result) -> dict[str, Any]:
    return {
        "notebook": line["notebook"],
        "cells": line["cells"],
        "minutes": line["seconds"] / 60,
        "failed_cells": len(line["failed"]),
        "console_errors": len(line["errors"]),
    }


def opened(name: str, pictures: Path | None) -> Result:
    """Run one notebook as a reader would."""
    with browser_on(name) as (lab, _):
        started = time.perf_counter()
        lab.page.evaluate(RUN_ALL)  # a promise that resolves when the last cell has run
        seconds = time.perf_counter() - started
        cells = lab.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length")
        failed = lab.failed_cells()
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            for theme in ("JupyterLab Light", "JupyterLab Dark"):
                lab.theme(theme)
                take(lab, pictures, f"{Path(name).stem}-{'dark' if 'Dark' in theme else 'light'}")
    return {"cells": cells, "seconds": seconds, "failed": failed, "errors": lab.errors}


@contextmanager
def browser_on(name: str) -> Iterator[tuple[Any, Path]]:
    """Open a notebook in Chromium, with an empty folder of runs; yield the page and that folder."""
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests"))
    from ui.lab_page import LabPage
    from ui.servers import cache_of_assets, chromium, jupyter_lab

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with jupyter_lab(home, {"TOKALIGN_CACHE": str(cache_of_assets(home))}) as server, sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=chromium(),
                args=["--no-sandbox", "--disable-dev-shm-usage"],
            )
            lab = LabPage(browser.new_page(viewport=SCREEN), server.url, server.token)
            lab.open(f"notebooks/{name}")
            yield lab, home / "lab" / "runs"
            browser.close()


def take(lab: Any, folder: Path, stem: str) -> None:
    """Save pictures of a notebook from top to bottom."""
    lab.page.evaluate("(panel) => { document.querySelector(panel).scrollTop = 0; }", PANEL)
    for number in range(STEPS_DOWN):
        lab.page.wait_for_timeout(1500)  # cells are added to the page, and plots drawn, when they come into view
        lab.page.screenshot(path=folder / f"{stem}-{number:02d}.png")
        before, after = lab.page.evaluate(
            "(panel) => { const box = document.querySelector(panel), before = box.scrollTop;"
            " box.scrollTop += box.clientHeight - 60; return [before, box.scrollTop]; }",
            PANEL,
        )
        if after - before < 1:
            return


if __name__ == "__main__":
    main()
