"""Time and memory of the panels at full size: 262,144 target and 49,152 source tokens.

    python benchmarks/ui.py --out benchmarks/results/ui.jsonl

- Kernel: SmolLM2's tokenizer to Gemma 3's, aligned on 3 MB of text. The panels are made without a page; a comm counts
  the messages. The time of a search, sort or selection is from the key press or click to the last message.
- Page: the same panels in JupyterLab in Chromium, drawn in software (no GPU). It measures the time from Run to a table
  with rows, the time of a box around half of the source points until their partners are highlighted, the heap of the
  page, and its growth over 1,000 updates.

The maps draw the tokens of the text, which have vectors. In the page they are also measured with a point for every
token: the other tokens have random vectors.

Takes about six minutes on two cores; run it alone on the machine.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import limit_threads, measured, parser, report

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TARGET, TEXT_BYTES = "smollm2-135m", "gemma3", 3_000_000
UPDATES, REPEATS = 1_000, 5
SETTLE_S = 1.5
READ_MS = 5_000  # delay between opening the table and the maps, as of a reader
QUIET_MS = 30_000  # until the background work after the updates has ended
SEARCHES = {
    "search: the": {"text": "the"},
    "search: 東": {"text": "東"},
    "search: nothing fits": {"text": "qzxqzx"},
    "regular expression: ^▁?[A-Z]{3,}$": {"text": "^␣?[A-Z]{3,}$", "regex": True},
    "filter: origin aligned, 5 bytes or more": {"origin": "aligned", "length": (5, None)},
    "filter: script Han": {"script": "Han"},
    "sort: worst first": {"sort": "worst"},
    "sort: smallest margin first": {"sort": "margin"},
    "sort: by id, reversed": {"sort": "id", "reverse": True},
}


def make(folder: str) -> dict[str, Any]:
    """Align the pair and save it as a finished run, for the kernel and for the page."""
    from tokalign_lab.runs.control import start

    os.environ["TOKALIGN_RUNS"] = folder
    settings = {"source": SOURCE, "target": TARGET, "text": ["default"], "max_bytes": TEXT_BYTES}
    run = start("align", settings, Path(folder) / "align-262k")
    state = run.wait()
    if state != "finished":
        raise SystemExit(f"aligning was {state}: {run.info()['error']}")
    _fill_vectors(run.path / "alignment", Path(folder) / "all")
    (Path(folder) / "lab.json").write_text(
        json.dumps({"source": SOURCE, "target": TARGET, "work": {"align": run.name}}), encoding="utf-8"
    )
    return {}


def _fill_vectors(stored: Path, out: Path) -> None:
    """Save an alignment again, with random vectors for the tokens that have none."""
    from tokalign_lab.alignment.recipes import Alignment
    from tokalign_lab.vectors.token_vectors import TokenVectors

    alignment = Alignment.load(stored)
    rng = np.random.default_rng()  # no seed, so that the layout is not cached and is computed, as for a new run
    filled = []
    for side, some in (("source", alignment.source_vectors), ("target", alignment.target_vectors)):
        assert some is not None
        size = alignment.lexicon.provenance[side]["size"]
        rows = rng.standard_normal((size, some.dimensions), dtype=np.float32) * some.rows.std()
        counts = np.zeros(size, np.int64)
        rows[some.ids], counts[some.ids] = some.rows, some.counts
        filled.append(TokenVectors(np.arange(size), rows, counts, some.vocabulary_fingerprint, some.provenance))
    Alignment(alignment.lexicon, *filled).save(out)


class Sent:
    """Counts the messages that a page would get."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.opened = 0

    def begin(self) -> None:
        """Count from now on."""
        self.sizes.clear()

    def install(self) -> None:
        """Replace the comm by one that counts messages."""
        import comm
        from comm.base_comm import BaseComm

        sent = self

        class CountingComm(BaseComm):
            def publish_msg(
                self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any
            ) -> None:
                size = len(json.dumps(data or {}, default=repr)) + sum(memoryview(b).nbytes for b in buffers or [])
                state = (data or {}).get("state", {})
                size -= len(json.dumps(state.get("_esm", ""))) + len(json.dumps(state.get("_css", "")))  # modules
                sent.sizes.append(size)

        comm.create_comm = CountingComm


def kernel(folder: str) -> dict[str, Any]:
    """Time the panels in this process, without a page."""
    import psutil

    from tokalign_lab.widgets import Lab, LabState
    from tokalign_lab.widgets.common.background import inline
    from tokalign_lab.widgets.common.state import Query

    sent = Sent()
    sent.install()
    lab = Lab(runs=folder)
    process = psutil.Process()
    rows: list[dict[str, Any]] = []
    with inline():
        lab.panels.aligned()
        before = process.memory_info().rss
        sent.begin()
        panels: dict[str, Any] = {}
        seconds, panels["lexicon"] = _timed(lab.panels.lexicon)
        rows.append(_row("open: lexicon", [seconds], sent))
        state = lab.lab_state
        for name, values in SEARCHES.items():
            times = []
            for _ in range(REPEATS):
                state.query = Query()
                panels["lexicon"].view._orders.clear()  # a sort is timed as the first of its kind
                sent.begin()
                seconds, _ = _timed(lambda values=values: setattr(state, "query", Query(**values)))
                times.append(seconds)
            rows.append(_row(name, times, sent))
        state.query = Query()
        sent.begin()  # the maps are timed after the searches, because they react to a search with a delay of 0.3 s
        seconds, panels["maps"] = _timed(lab.panels.maps)
        rows.append(_row("open: maps", [seconds], sent))
        points = {space: some.ids for space, some in panels["maps"]._map.vectors.items()}
        selections = {"one token": ("target", points["target"][:1]), "all source points": ("source", points["source"])}
        for name, (space, ids) in selections.items():
            times = []
            for _ in range(REPEATS):
                state.clear_selection()
                sent.begin()
                seconds, _ = _timed(lambda ids=ids, space=space: state.select(space, ids.tolist()))
                times.append(seconds)
            rows.append(_row(f"select: {name}", times, sent))
        gc.collect()
        held = process.memory_info().rss
        for i in range(UPDATES):
            state.select("target", [int(points["target"][i % len(points["target"])])])
        gc.collect()
        grown = process.memory_info().rss - held
    assert isinstance(state, LabState)
    callbacks = _in_callbacks(state, points)
    memory = {"memory_mb": (held - before) / 1e6, "kernel_mb": held / 1e6, "growth_mb": grown / 1e6}
    return {"rows": rows, "callbacks": callbacks, "memory": memory}


def _in_callbacks(state: Any, points: dict[str, Any]) -> list[dict[str, Any]]:
    """Time the work in the kernel's main thread, which delays the next click; other work runs in the background."""
    from tokalign_lab.widgets.common.state import Query

    actions: dict[str, Callable[[], Any]] = {
        name: lambda values=values: setattr(state, "query", Query(**values)) for name, values in SEARCHES.items()
    }
    actions["select: one token"] = lambda: state.select("target", points["target"][:1].tolist())
    actions["select: all source points"] = lambda: state.select("source", points["source"].tolist())
    actions["colour by margin"] = lambda: setattr(state, "colour_by", "margin")
    actions["dark theme"] = lambda: setattr(state, "theme", "dark")
    rows = []
    for name, act in actions.items():
        times = []
        for _ in range(REPEATS):
            state.query, state.colour_by, state.theme = Query(), "script", "light"
            state.clear_selection()
            time.sleep(SETTLE_S)  # do not count work that began before
            seconds, _ = _timed(act)
            times.append(1000 * seconds)
        rows.append({"what": name, "ms": statistics.median(times), "worst_ms": max(times)})
    return rows


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    made = work()
    return time.perf_counter() - started, made


def _row(name: str, seconds: list[float], sent: Sent) -> dict[str, Any]:
    return {
        "what": name,
        "ms": 1000 * statistics.median(seconds),
        "worst_ms": 1000 * max(seconds),
        "messages": len(sent.sizes),
        "kB": sum(sent.sizes) / 1e3,
        "largest_kB": max(sent.sizes, default=0) / 1e3,
    }


def page(folder: str) -> dict[str, Any]:
    """Drive the same panels in JupyterLab in Chromium."""
    import psutil
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests"))
    from ui.lab_page import LabPage
    from ui.servers import chromium, jupyter_lab

    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home, jupyter_lab(Path(home), {"TOKALIGN_RUNS": folder}) as server:
        _notebook(server.folder / "notebooks" / "ui.ipynb", folder)
        with sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=chromium(),
                args=[
                    "--no-sandbox",
                    "--disable-dev-shm-usage",
                    "--enable-precise-memory-info",
                    "--js-flags=--expose-gc",
                ],
            )
            started = time.perf_counter()
            lab = LabPage(browser.new_page(viewport={"width": 1280, "height": 1000}), server.url, server.token)
            lab.open("notebooks/ui.ipynb")
            rows["page of JupyterLab and kernel ready, s"] = time.perf_counter() - started
            _drive(lab, rows)
            rows["console errors"] = len(lab.errors)
            kernels = [
                p
                for p in psutil.Process(server.process.pid).children(recursive=True)
                if "ipykernel" in str(p.cmdline())
            ]
            rows["kernel, MB"] = sum(p.memory_info().rss for p in kernels) / 1e6
            browser.close()
    return rows


def _notebook(path: Path, folder: str) -> None:
    import nbformat

    cells = [
        f"from tokalign_lab.widgets import Lab\nlab = Lab(runs={folder!r})",
        "lab.lexicon_panel()",
        "maps = lab.maps()\nmaps",
        "ids = maps._map.vectors['target'].ids\n"
        f"for i in range({UPDATES}):\n    lab.lab_state.select('target', [int(ids[i % len(ids)])])\nprint('updated')",
        "from tokalign_lab.alignment.recipes import Alignment\n"
        "from tokalign_lab.widgets import MapPanel\n"
        f"full = Alignment.load({str(Path(folder) / 'all')!r})\n"
        "view = maps.view\n"
        "maps.close()",
        "maps = MapPanel(full.lexicon, full.source_vectors, full.target_vectors, view=view)\nmaps",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def _drive(lab: Any, rows: dict[str, float]) -> None:
    from ui.lab_page import MAPS

    def run_cell(index: int) -> None:
        lab.page.evaluate("(i) => { jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", index)
        lab.command("notebook:run-cell")

    def heap() -> float:
        return float(lab.page.evaluate("() => { window.gc?.(); return performance.memory.usedJSHeapSize / 1e6; }"))

    run_cell(0)
    lab.page.wait_for_timeout(500)
    lab.wait_for_kernel()
    started = time.perf_counter()
    run_cell(1)
    lab.page.wait_for_selector(".tl-lexicon-table tbody tr", timeout=120_000)
    rows["lexicon: from Run to a table with rows, s"] = time.perf_counter() - started
    lab.page.wait_for_timeout(READ_MS)
    started = time.perf_counter()
    run_cell(2)
    lab.maps("isPointsDrawn")  # returns when both maps are drawn
    rows["maps: from Run to both drawn, s"] = time.perf_counter() - started
    lab.page.wait_for_timeout(3000)
    rows["heap of the page, MB"] = heap()
    rows["box around half of the source points, to the partners highlighted, s"] = _box(lab, 0.5)
    for when in ("first", "next"):  # the first updates fill caches, which is no growth
        before = heap()
        run_cell(3)
        lab.page.wait_for_timeout(1000)
        lab.wait_for_kernel(timeout=600_000)
        lab.page.wait_for_timeout(5000)
        rows[f"growth of the page's heap over the {when} {UPDATES:,} updates, MB"] = heap() - before
    drawn = len(lab.maps("points")["source"])
    run_cell(4)
    lab.page.wait_for_timeout(1000)
    lab.wait_for_kernel(timeout=600_000)
    lab.page.wait_for_timeout(QUIET_MS)
    started = time.perf_counter()
    run_cell(5)
    more = f"(n) => {{ try {{ return {MAPS}('points').source.length > n; }} catch {{ return false; }} }}"
    lab.page.wait_for_function(more, arg=drawn, timeout=120_000)  # until then, the closed maps are in the page
    lab.maps("isPointsDrawn")
    rows["maps with all points: from Run to both drawn, s"] = time.perf_counter() - started
    source, target = (len(lab.maps("points")[space]) for space in ("source", "target"))
    rows["maps with all points: points"] = source + target
    lab.page.wait_for_timeout(3000)
    rows["maps with all points: box of 20,000, to the partners highlighted, s"] = _box(lab, 20_000 / source)
    rows["maps with all points: heap of the page, MB"] = heap()


def _box(lab: Any, share: float) -> float:
    """Draw a box around a share of the source points; return the seconds until their partners are highlighted."""
    xy = np.array(lab.maps("points")["source"])[:, :2]
    centre = np.median(xy, axis=0)
    reach = np.quantile(np.abs(xy - centre).max(axis=1), share)
    canvas = lab.panel("tl-maps").locator(".tl-map-source canvas").first
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), lab.page.mouse
    ends = [
        (box["x"] + box["width"] * (1 + x) / 2, box["y"] + box["height"] * (1 - y) / 2)
        for x, y in (centre - reach, centre + reach)
    ]
    mouse.move(*ends[0])
    mouse.down()
    mouse.move(*ends[1], steps=6)
    started = time.perf_counter()
    mouse.up()
    lab.wait_for_selected("n > 1000")
    lab.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return time.perf_counter() - started


def main() -> None:
    arguments = parser(__doc__).parse_args()
    limit_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        measured(make, folder)
        in_kernel = measured(kernel, folder)
        in_page = {} if arguments.quick else measured(page, folder)
    tables = [("In the kernel, to the last message", in_kernel["rows"])]
    tables += [("In callbacks", in_kernel["callbacks"]), ("Memory of the kernel's process", [in_kernel["memory"]])]
    in_page.pop("peak", None)
    if in_page:
        tables.append(("In the page", [{"what": name, "value": value} for name, value in in_page.items()]))
    report(
        "The panels at 262,144 × 49,152 tokens",
        tables,
        [
            "Bars: a search or sort under 150 ms in the kernel, and no callback over 50 ms; no message over 1 MB after "
            "the start; usable in 3 s beyond the page's own load; a box of 20,000 points in 0.5 s; no growth over "
            "1,000 updates.",
            "kB do not count the panels' JavaScript modules, which the page gets once.",
            "The page is drawn by software on the same cores as the kernel; the maps are opened five seconds after the "
            "table.",
        ],
        arguments.out,
    )


if __name__ == "__main__":
    main()
