"""The quickstart as a newcomer runs it, in a real Chromium, on the real pair in small sizes.

The tests depend on each other and run in the order of this file, with one page and one kernel.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from .lab_page import LONG_MS, MAPS, LabPage
from .servers import ROOT


def test_run_all_shows_the_pair_and_both_tokenizations(lab_page: LabPage) -> None:
    lab_page.run_all()
    picker = lab_page.panel("tl-picker")
    expect(picker.locator(".tl-cards")).to_contain_text("49,152", timeout=LONG_MS)
    expect(picker.locator(".tl-blocks .tl-block").first).to_be_visible()


def test_the_table_fills_and_sorts_worst_first(lab_page: LabPage) -> None:
    expect(lab_page.page.locator(".tl-lexicon-table tbody tr").first).to_be_attached(timeout=LONG_MS)
    lexicon = lab_page.panel("tl-lexicon")
    expect(lexicon.locator(".tl-lexicon-table tbody tr")).to_have_count(15)
    lexicon.get_by_label("Order").select_option(label="Worst first")
    expect(lexicon.locator(".tl-lexicon-table caption")).to_contain_text("worst first")
    scores = [
        float(s) for s in lexicon.locator(".tl-lexicon-table tbody td:nth-child(4)").all_inner_texts() if s != "–"
    ]
    assert scores == sorted(scores)


def test_a_click_on_a_row_explains_it_and_highlights_it_on_both_maps(lab_page: LabPage) -> None:
    expect(lab_page.page.locator(".tl-map-layer[data-ready]")).to_be_attached(timeout=LONG_MS)
    lexicon = lab_page.panel("tl-lexicon")
    lexicon.get_by_label("Order").select_option(label="Most frequent first")
    expect(lexicon.locator(".tl-lexicon-table caption")).to_contain_text("most frequent")
    lexicon.locator(".tl-lexicon-table tbody tr").nth(2).click()
    expect(lexicon.locator(".tl-why h4").first).to_be_visible()
    lab_page.panel("tl-maps")
    lab_page.wait_for_selected("n >= 1")


def test_every_token_with_a_vector_is_drawn(lab_page: LabPage) -> None:
    drawn = {space: len(points) for space, points in lab_page.maps("points").items()}
    told = f"{drawn['source']:,} source and {drawn['target']:,} target tokens"
    expect(lab_page.panel("tl-maps").locator(".tl-status")).to_contain_text(told)


def test_a_box_on_the_source_map_highlights_partners_on_the_target_map(lab_page: LabPage) -> None:
    maps = lab_page.panel("tl-maps")
    left = maps.locator(".tl-map-source canvas").first
    left.scroll_into_view_if_needed()
    before = {space: len(points) for space, points in lab_page.maps("selectedPoints").items()}
    box = left.bounding_box()
    assert box is not None
    mouse = lab_page.page.mouse
    mouse.move(box["x"] + box["width"] * 0.03, box["y"] + box["height"] * 0.4)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5, steps=6)
    mouse.move(box["x"] + box["width"] * 0.97, box["y"] + box["height"] * 0.97, steps=6)
    mouse.up()
    expect(maps.locator(".tl-chosen")).to_contain_text(re.compile(r"\d\d+ source tokens and \d+"))
    lab_page.wait_for_selected("n > 3")
    assert before == {"source": 1, "target": 1}
    expect(maps.locator(".tl-selection-table tbody tr").first).to_be_visible()
    # The canvas of jupyter-scatter is as large as a map, not as the window.
    hidden, drawn = "jupyterScatter.renderer.canvas", "document.querySelector('.tl-map-source canvas')"
    sizes = f"[{hidden}, {drawn}].map((one) => [one.width, one.height].join())"
    again = f"{drawn}.parentElement.parentElement.api.redraw()"  # a new panel may have resized the canvas
    lab_page.page.wait_for_function(f"() => {{ {again}; return new Set({sizes}).size === 1; }}")


THEME = (ROOT / "widgets" / "common" / "theme.js").read_text(encoding="utf-8")
LOAD = "import(`data:text/javascript,${encodeURIComponent(code)}`)"


def test_anywidget_waits_for_a_widget_that_starts_slowly(browser: Any) -> None:
    page = browser.new_page()
    given_up = f"""([code, name]) => {LOAD}.then(() => {{
        const signal = eval(`AbortSignal.timeout(1)\n//# sourceURL=${{name}}`);
        return new Promise((done) => setTimeout(() => done(signal.aborted), 200));
    }})"""
    assert page.evaluate(given_up, [THEME, "extensions/other/x.js"])
    assert not page.evaluate(given_up, [THEME, "extensions/anywidget/x.js"])
    page.close()


def test_figures_are_drawn_again_for_a_wider_panel_not_for_a_taller_one(browser: Any) -> None:
    page = browser.new_page()
    resized = f"""(code) => {LOAD}.then(async ({{ default: widget }}) => {{
        const panel = document.body.appendChild(document.createElement("div"));
        const el = panel.appendChild(document.createElement("div"));
        panel.className = "tl-panel";
        let n = 0;
        addEventListener("resize", () => {{ n += 1; }});
        const nothing = () => undefined;
        widget.render({{ el, model: {{ get: nothing, set: nothing, save_changes: nothing, on: nothing }} }});
        const counts = [];
        for (const size of ["width: 300px", "width: 300px; height: 500px", "width: 400px; height: 500px"]) {{
            panel.style = size;
            for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
            counts.push(n);
        }}
        return counts;
    }})"""
    assert page.evaluate(resized, THEME) == [1, 1, 2]
    page.close()


def test_both_maps_zoom_together_with_their_lines(lab_page: LabPage) -> None:
    maps = lab_page.panel("tl-maps")
    picture = "[...document.querySelectorAll('.tl-map-layer > canvas')].at(-1).toDataURL()"
    lines = lab_page.page.evaluate(picture)
    maps.locator(".tl-map-source").get_by_title("Activate pan & zoom").click()
    left = maps.locator(".tl-map-source canvas").first
    left.hover()
    lab_page.page.mouse.wheel(0, -200)
    distances = f"Object.values({MAPS}('cameraDistance'))"
    close = f"{distances}.every((n, _, all) => n < 0.95 && Math.abs(n - all[0]) < 0.001)"
    lab_page.page.wait_for_function(f"() => {close}")
    lab_page.page.wait_for_function(f"(before) => {picture} !== before", arg=lines)
    lab_page.page.wait_for_timeout(1000)  # the page reports the view of a map when it no longer moves
    maps.get_by_role("button", name="Whole maps").click()
    lab_page.page.wait_for_function(f"() => {distances}.every((n) => Math.abs(n - 1) < 0.001)")
    maps.locator(".tl-map-source").get_by_title("Activate lasso selection").click()


def test_clearing_the_selection_highlights_nothing(lab_page: LabPage) -> None:
    maps = lab_page.panel("tl-maps")
    maps.get_by_role("button", name="Clear selection").click()
    lab_page.wait_for_selected("n === 0")
    expect(maps.locator(".tl-chosen")).to_have_text(re.compile("Nothing is selected"))


def test_a_point_is_explained_on_hover_and_selected_by_a_click(lab_page: LabPage) -> None:
    maps = lab_page.panel("tl-maps")
    right = maps.locator(".tl-map-target canvas").first
    x, y = right.evaluate(
        "(canvas) => { const api = canvas.parentElement.parentElement.api;"
        " const far = api.get('points').map((p, i) => [p[0], i]).sort((a, b) => b[0] - a[0])[0][1];"
        " return api.getScreenPosition(far); }"  # no other point is near the rightmost one
    )
    right.hover(position={"x": x - 1, "y": y})
    pointer = maps.locator(".tl-map-pointer")
    expect(pointer).to_be_visible()
    expect(pointer).to_contain_text("times in the text")
    name = pointer.locator("b").inner_text()
    expect(maps.locator(".tl-map-card .tl-token").first).to_have_text(name)
    right.click(position={"x": x - 1, "y": y})
    expect(maps.locator(".tl-chosen")).to_contain_text("and 1 target token")
    lab_page.wait_for_selected("n >= 1")


def _steps(lab: LabPage) -> int:
    return int(lab.traces("tl-train")[0]["n"])


def _wait_for_steps(lab: LabPage, n: int) -> None:
    lab.page.wait_for_function(
        "(n) => { const f = [...document.querySelectorAll('.tl-train .js-plotly-plot')].at(-1);"
        " return f?.data?.[0]?.x?.length >= n; }",
        arg=n,
        timeout=LONG_MS,
    )


def _place_in_panel(button: Locator) -> list[float]:
    """Left and top of a button in its training monitor, in pixels."""
    return button.evaluate(
        "(button) => { const [own, all] = [button, button.closest('.tl-train')].map((e) => e.getBoundingClientRect());"
        " return [own.left - all.left, own.top - all.top]; }"
    )


def test_the_curve_grows_and_the_buttons_stay_in_place(lab_page: LabPage) -> None:
    cancel = lab_page.panel("tl-train").get_by_role("button", name="Cancel")
    before = _place_in_panel(cancel)
    _wait_for_steps(lab_page, 2)
    assert _place_in_panel(cancel) == before  # a button that moves between press and release gets no click
    expect(lab_page.page.locator(".tl-train .tl-run-state .tl-state").last).to_have_text(re.compile("running|finished"))


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_figures_follow_the_theme(lab_page: LabPage, artefacts: Path, theme: str) -> None:
    lab_page.theme(theme)
    word = "dark" if "Dark" in theme else "light"
    for hook in ("tl-picker", "tl-lexicon", "tl-maps", "tl-train"):
        panel = lab_page.panel(hook)
        lab_page.settle()
        panel.screenshot(path=artefacts / f"{hook}-{word}.png")
    lab_page.wait_for_ink("tl-train", dark=word == "dark")
    lab_page.panel("tl-maps")
    grounds = f"Object.values({MAPS}('backgroundColor'))"
    lab_page.page.wait_for_function(f"(dark) => {grounds}.every((one) => one[0] < 0.5 === dark)", arg=word == "dark")


def test_a_killed_kernel_loses_nothing(lab_page: LabPage) -> None:
    """The kernel is killed in the middle of tuning; after rerunning the cells, the curve is complete and growing."""
    state = lab_page.panel("tl-train").locator(".tl-run-state .tl-state")  # in view: the text of a hidden cell is empty
    expect(state, "the run has ended too early; give the fast mode more steps").to_have_text("running")
    lab_page.kill_kernel()
    lab_page.run_all()
    lab_page.wait_for_new_panel("tl-train", LONG_MS)
    _wait_for_steps(lab_page, 2)
    first = lab_page.page.locator(".tl-train .js-plotly-plot").last.evaluate("(f) => Array.from(f.data[0].x)")
    assert first == list(range(1, len(first) + 1))  # complete: every step from the first on
    _wait_for_steps(lab_page, len(first) + 2)  # still growing


def test_cancel_stops_the_run(lab_page: LabPage, jupyter) -> None:
    train = lab_page.panel("tl-train")
    train.get_by_role("button", name="Cancel").click()
    expect(train.locator(".tl-run-state .tl-state")).to_have_text("cancelled", timeout=30_000)
    expect(train.get_by_role("button", name="Resume")).to_be_enabled()
    (file,) = (jupyter.folder / "runs").glob("adapt-*/run.json")
    assert json.loads(file.read_text())["state"] == "cancelled"


def test_the_console_has_no_errors(lab_page: LabPage) -> None:
    assert lab_page.errors == []
