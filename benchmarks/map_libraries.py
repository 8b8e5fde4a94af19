"""Two linked maps of 262,144 and 49,152 points, drawn by plotly and by jupyter-scatter: seconds and memory.

    python benchmarks/map_libraries.py

It measures opening both maps, and a box around 20,000 points. The points and the lexicon, which maps many target tokens
to one source token, are random. JupyterLab runs in Chromium, which draws in software. The measured time ends when the
points are drawn: on both maps after Run, and highlighted on the other map after a box is released. The figures are in
docs/decisions/0018-maps-by-jupyter-scatter.md.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 180
VIVID = 230  # brightness of a colour channel, of 255
PAUSE_MS = 200  # between two checks of the page, because each takes time
# anywidget gives a widget two seconds to start, which is too short on a busy machine
PATIENT = "const wait = AbortSignal.timeout; AbortSignal.timeout = (ms) => wait.call(AbortSignal, 60 * ms);"
DATA = """
import numpy as np
rng = np.random.default_rng(0)
SIZES = {"source": 49_152, "target": 262_144}
N = {space: min(size, DRAWN) for space, size in SIZES.items()}
xy = {space: rng.normal(size=(n, 2)).astype(np.float32) for space, n in N.items()}
partner = rng.integers(0, N["source"], N["target"])
chosen_ids = np.zeros(0, dtype=int)
"""
PLOTLY = """
import plotly.graph_objects as go
from plotly.subplots import make_subplots
figure = make_subplots(rows=1, cols=2)
for column, space in enumerate(("target", "source"), start=1):
    for points, size, colour in ((xy[space], 3, "steelblue"), (xy[space][:0], 6, "red")):
        trace = go.Scattergl(x=points[:, 0], y=points[:, 1], mode="markers", marker={"size": size, "color": colour})
        figure.add_trace(trace, row=1, col=column)
figure.update_layout(dragmode="select", showlegend=False, width=1000, height=460, margin=dict.fromkeys("lrtb", 0))
figure = go.FigureWidget(figure)

def chosen(_trace, points, _state):
    global chosen_ids
    chosen_ids = np.asarray(points.point_inds)
    others = xy["source"][np.unique(partner[chosen_ids])]
    figure.data[3].update(x=others[:, 0], y=others[:, 1])

figure.data[0].on_selection(chosen)
figure
"""
SCATTER = """
import jscatter
import ipywidgets
maps = {}
for space in ("target", "source"):
    x, y = xy[space].T / 4
    maps[space] = jscatter.Scatter(x=x, y=y, width=490, height=460, x_scale=(-1, 1), y_scale=(-1, 1))
    maps[space].size(3)
maps["target"].lasso(type="rectangle")
maps["target"].mouse(mode="lasso")

def chosen(change):
    global chosen_ids
    chosen_ids = np.asarray(change["new"])
    maps["source"].selection(np.unique(partner[chosen_ids]))

maps["target"].widget.observe(chosen, "selection")
ipywidgets.HBox([maps["target"].show(), maps["source"].show()])
"""
WAYS = {  # code, maximum points per map, selector of the drawing, half the side of a box around 20,000 points
    "plotly, all points": (PLOTLY, 10**9, ".js-plotly-plot", 0.06),
    "plotly, 20,000 points": (PLOTLY, 20_000, ".js-plotly-plot", 0.24),
    "jupyter-scatter, all points": (SCATTER, 10**9, ".widget-hbox", 0.05),
}


def cpu_seconds() -> float:
    """Return the CPU time of browser, server and kernel so far, which a busy machine hardly changes."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:2])
    return total


def measure(browser: Any, server: Any, name: str) -> dict[str, float]:
    """Open the maps of one library in a new page, and draw a box around about 20,000 target points."""
    from ui.lab_page import LabPage

    code, drawn, hook, share = WAYS[name]
    cells = [DATA.replace("DRAWN", str(drawn)), code, "print('chosen', len(chosen_ids))"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, server.folder / "notebooks" / "maps.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.add_init_script(PATIENT)
    lab = LabPage(page, server.url, server.token)
    lab.open("notebooks/maps.ipynb")

    def run(index: int) -> None:
        page.evaluate("(i) => { jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", index)
        lab.command("notebook:run-cell")

    def picture(box: dict[str, float], left: float, right: float) -> Any:
        clip = {**box, "x": box["x"] + left * box["width"], "width": (right - left) * box["width"]}
        return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")

    def until(done: Callable[[], bool]) -> float:
        started = time.perf_counter()
        while not done():
            page.wait_for_timeout(PAUSE_MS)
            if time.perf_counter() - started > LIMIT_S:
                raise SystemExit(f"{name}: nothing changed in {LIMIT_S} s; {lab.errors}")
        return time.perf_counter() - started

    def filled(image: Any) -> bool:
        colours = image.getcolors(image.width * image.height)
        return 1 - max(n for n, _ in colours) / (image.width * image.height) > 0.1

    def vivid(image: Any) -> bool:
        """Whether highlighted points (red or blue) are drawn; all other points are grey or pale blue."""
        saturation = image.convert("HSV").getchannel("S").histogram()
        return sum(saturation[VIVID:]) > 0.01 * image.width * image.height

    run(0)
    page.wait_for_timeout(2000)
    lab.wait_for_kernel()
    started, spent = time.perf_counter(), cpu_seconds()
    run(1)
    maps = page.locator(f".jp-OutputArea {hook}").first
    maps.wait_for(timeout=1000 * LIMIT_S)
    box = maps.bounding_box()
    until(lambda: all(filled(picture(box, *part)) for part in ((0.02, 0.48), (0.52, 0.98))))
    found = {"open_s": time.perf_counter() - started, "open_cpu_s": cpu_seconds() - spent}
    page.wait_for_timeout(3000)
    found["page_mb"] = page.evaluate("() => { window.gc?.(); return performance.memory.usedJSHeapSize / 1e6; }")
    middle = box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"]
    reach = 0.5 * share * box["width"], share * box["height"]
    page.mouse.move(middle[0] - reach[0], middle[1] - reach[1])
    spent = cpu_seconds()
    page.mouse.down()
    page.mouse.move(middle[0], middle[1], steps=3)
    page.mouse.move(middle[0] + reach[0], middle[1] + reach[1], steps=3)
    page.mouse.up()
    found["box_s"] = until(lambda: vivid(picture(box, 0.52, 0.98)))
    found["box_cpu_s"] = cpu_seconds() - spent
    lab.wait_for_kernel()
    run(2)
    chosen = page.get_by_text("chosen ", exact=False).last
    chosen.wait_for()
    page.wait_for_function("() => /chosen \\d/.test(document.body.innerText)")
    found["chosen"] = float(page.evaluate("() => document.body.innerText.match(/chosen (\\d+)/)[1]"))
    page.close()
    return found


def main() -> None:
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tests"))
    from ui.servers import chromium, jupyter_lab

    with tempfile.TemporaryDirectory() as home, jupyter_lab(Path(home), {}) as server, sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-precise-memory-info", "--js-flags=--expose-gc"]
        browser = play.chromium.launch(executable_path=chromium(), args=flags)
        for name in sys.argv[1:] or WAYS:
            found = measure(browser, server, name)
            load = os.getloadavg()[0]
            print(name, {key: round(value, 2) for key, value in found.items()}, f"load {load:.1f}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
