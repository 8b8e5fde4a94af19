"""`Lab()` as used without writing code: tabs, runs started by buttons, edits, a lost page, dark theme, keyboard only.

The tests depend on each other and run in the order of this file, on the real pair in small sizes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from .lab_page import LONG_MS, MAPS, TABS, LabPage, lab_in_a_cell, open_tab
from .servers import Server


@pytest.fixture(scope="module")
def runs(jupyter: Server) -> Path:
    """A folder of runs separate from that of the quickstart."""
    return jupyter.folder / "tab-runs"


@pytest.fixture(scope="module")
def lab(jupyter: Server, browser: Any, runs: Path) -> Iterator[LabPage]:
    """A notebook with one cell that shows the lab."""
    with lab_in_a_cell(jupyter, browser, "lab", f"Lab(runs={str(runs)!r})", ".tl-lab .tl-picker .tl-card") as made:
        yield made


def steps(lab: LabPage) -> list[float]:
    """Return the steps of the trace with the most points."""
    return list(
        lab.page.locator(".tl-train .js-plotly-plot").last.evaluate(
            "(f) => f.data.map((t) => Array.from(t.x ?? [])).sort((a, b) => b.length - a.length)[0] ?? []"
        )
    )


def wait_for_steps(lab: LabPage, n: int) -> None:
    deadline = time.monotonic() + LONG_MS / 1000
    while time.monotonic() < deadline:
        if lab.page.locator(".tl-train .js-plotly-plot").count() and len(steps(lab)) >= n:
            return
        lab.page.wait_for_timeout(500)
    raise AssertionError(f"the curve has {len(steps(lab))} points after {LONG_MS / 1000:.0f} s, not {n}")


def test_the_first_screen_answers_the_questions_of_a_newcomer(lab: LabPage) -> None:
    """Five questions of docs/usability.md are answered without a click, at a width of 1000 pixels."""
    before = lab.page.viewport_size
    lab.page.set_viewport_size({"width": 1000, "height": 1000})
    first, pair = lab.page.locator(".tl-lab .tl-what-next"), lab.page.locator(".tl-tab-pair")
    for place, words in (
        (first, "replaces the tokenizer of a language model"),
        (pair.locator(".tl-verdict").first, "needs fewer tokens than"),
        (first, "Next: choose a pair. Click “Is it worth it?”"),
        (pair.locator(".tl-cost"), "About"),
        (first, "tab-runs"),
    ):
        expect(place).to_contain_text(words, timeout=LONG_MS)
        expect(place).to_be_in_viewport()
    lab.page.set_viewport_size(before)


def test_a_typed_text_is_segmented_and_a_clicked_token_shows_its_merges(lab: LabPage) -> None:
    pair = lab.page.locator(".tl-tab-pair")
    pair.get_by_label("Your text").fill("<b>Tokenizers</b> disagree: naïve café, 東京, def f(x): return x**2")
    blocks = pair.locator(".tl-blocks")
    expect(blocks).to_contain_text("</")
    assert blocks.locator("b").count() == 0  # typed markup stays text
    pair.locator(".tl-chip").first.click()
    history = pair.locator(".tl-history")
    expect(history).to_contain_text("How smollm2-135m builds <")
    for key in ("ArrowRight", "Enter"):
        lab.page.keyboard.press(key)
    expect(history).not_to_contain_text("builds <")


def test_advice_is_given_before_any_work(lab: LabPage) -> None:
    pair = lab.page.locator(".tl-tab-pair")
    pair.get_by_role("button", name="Is it worth it?").click()
    verdict = pair.locator(".tl-verdict[role=status] .tl-state")
    expect(verdict).to_have_text(re.compile("swap|extend"), timeout=LONG_MS)
    for number in ("tokens saved", "times the speed", "times the bits per byte after recovery"):
        expect(pair.get_by_text(number, exact=True).first).to_be_visible()
    pair.get_by_role("button", name="Reasons").click()
    expect(pair.locator(".tl-table-scroll tr", has_text="prose")).to_be_visible()


def test_tabs_name_the_step_that_they_wait_for(lab: LabPage) -> None:
    expect(open_tab(lab, "Maps")).to_contain_text("There is no alignment yet")
    open_tab(lab, "Pair")


def test_the_run_button_aligns_the_pair(lab: LabPage) -> None:
    pair = lab.page.locator(".tl-tab-pair")
    expect(pair.locator(".tl-cost")).to_contain_text("About", timeout=LONG_MS)
    pair.get_by_role("button", name="Run settings").click()
    pair.get_by_label("Amount of text").select_option(label="0.3 MB")
    pair.get_by_role("button", name="Run alignment", exact=True).click()
    step = lab.page.get_by_role("button", name=re.compile("^Lexicon: "))
    expect(step).to_have_text(re.compile("running|waiting"))
    job = pair.locator(".tl-job")
    expect(job).to_be_visible()
    expect(job.locator(".tl-state")).to_have_text("finished", timeout=LONG_MS)
    expect(step).to_have_text("Lexicon: done")
    expect(lab.page.locator(".tl-lab .tl-what-next")).to_contain_text("Next: check the alignment on the tab Lexicon")


@pytest.mark.parametrize("width", [1000, 1400])
def test_no_tab_is_clipped_and_a_step_opens_its_tab(lab: LabPage, width: int) -> None:
    before = lab.page.viewport_size
    lab.page.set_viewport_size({"width": width, "height": 1000})
    tabs = lab.page.locator(".tl-lab-tabs > .lm-TabBar .lm-TabBar-tabLabel")
    expect(tabs).to_have_count(len(TABS))
    whole = "(labels) => [...document.querySelectorAll(labels)].every((one) => one.scrollWidth <= one.clientWidth)"
    lab.page.wait_for_function(whole, arg=".tl-lab-tabs > .lm-TabBar .lm-TabBar-tabLabel")
    right = lab.page.locator(".tl-lab-head > button:visible").evaluate_all("(all) => all.map((one) => one.offsetTop)")
    assert len(right) == 2
    assert right[0] == right[1]  # the buttons stay in the first line, at its end
    states = "(steps) => { steps[1].textContent = 'Lexicon: missing'; steps[2].textContent = 'Model: running'; }"
    lab.page.locator(".tl-flow > button").evaluate_all(states)  # the longest states fit into one line too
    tops = lab.page.locator(".tl-flow > button").evaluate_all("(all) => all.map((one) => one.offsetTop)")
    assert len(set(tops)) == 1
    lab.page.get_by_role("button", name="Model: running").click()
    expect(lab.page.get_by_role("tab", name="Model", exact=True)).to_have_attribute("aria-selected", "true")
    open_tab(lab, "Pair")
    lab.page.set_viewport_size(before)


def test_an_edit_is_kept_scored_and_undone(lab: LabPage, runs: Path) -> None:
    lexicon = open_tab(lab, "Lexicon")
    rows = lexicon.locator(".tl-lexicon-table tbody tr")
    expect(rows).to_have_count(15, timeout=LONG_MS)
    lexicon.get_by_label("Order").select_option(label="Worst first")
    expect(lexicon.locator(".tl-lexicon-table caption")).to_contain_text("worst first")
    top = lexicon.locator(".tl-lexicon-table").bounding_box()
    panel = lexicon.bounding_box()
    assert top is not None
    assert panel is not None
    assert top["y"] - panel["y"] < 400  # the table begins near the top
    rows.first.click()
    lexicon.get_by_role("button", name="Edit", exact=True).click()
    expect(lexicon.locator(".tl-why h4").first).to_be_visible()
    lexicon.get_by_label("Find source token").fill("the")
    choose = lexicon.get_by_role("button", name="Use this source")
    expect(choose).to_be_enabled()
    choose.click()
    expect(lexicon.locator(".tl-edit-status")).to_contain_text("1 token edited")
    (file,) = runs.glob("align-*/*.edits.json")
    assert "choose" in file.read_text(encoding="utf-8")  # stored immediately

    lexicon.locator(".tl-folds").get_by_role("button", name="Score", exact=True).click()
    lexicon.get_by_label(re.compile("Sentence score and BERTScore")).uncheck()
    lexicon.get_by_role("button", name="Score the edits").click()
    expect(lexicon.locator(".tl-part-scores table")).to_be_visible(timeout=LONG_MS)
    expect(lexicon.locator(".tl-part-scores")).to_contain_text("BLEU-1")

    lexicon.get_by_role("button", name="Undo", exact=True).click()
    expect(lexicon.locator(".tl-edit-status")).to_contain_text("Nothing is edited")
    lexicon.get_by_role("button", name="Redo", exact=True).click()
    expect(lexicon.locator(".tl-edit-status")).to_contain_text("1 token edited")


def test_a_finding_shows_its_tokens_in_the_inspector(lab: LabPage) -> None:
    diagnosis = open_tab(lab, "Diagnosis")
    shows = diagnosis.get_by_role("button", name=re.compile(r"^Show .*token"))
    expect(shows.first).to_be_visible(timeout=LONG_MS)
    shows.last.click()
    lexicon = open_tab(lab, "Lexicon")
    lexicon.get_by_role("button", name="Filters", exact=True).click()
    expect(lexicon.get_by_label("Only selected tokens")).to_be_checked()
    lexicon.get_by_role("button", name="Clear filters").click()
    expect(lexicon.get_by_label("Only selected tokens")).not_to_be_checked()


def test_the_maps_show_both_spaces(lab: LabPage) -> None:
    maps = open_tab(lab, "Maps")
    expect(maps.locator(".tl-map-layer[data-ready]")).to_be_attached(timeout=LONG_MS)
    for space in ("source", "target"):
        expect(maps.locator(f".tl-map-{space} canvas").first).to_be_visible()
    for colouring in ("Script", "Origin"):
        maps.get_by_label("Colour by").select_option(label=colouring)
        expect(maps).to_contain_text("Latin" if colouring == "Script" else "identical")


def test_umap_is_computed_by_a_job_and_then_shown(lab: LabPage, artefacts: Path) -> None:
    maps = lab.page.locator(".tl-tab-maps")
    place = f"() => {MAPS}('points').source.slice(0, 50).join()"
    before = lab.page.evaluate(place)
    maps.get_by_role("button", name="Layout", exact=True).click()
    maps.get_by_role("button", name="Arrange by UMAP").click()
    expect(maps.locator(".tl-map-job")).to_be_visible(timeout=LONG_MS)
    expect(maps.get_by_text(re.compile("^UMAP: neighbours stay close together"))).to_be_visible(timeout=LONG_MS)
    expect(maps.locator(".tl-map-job")).to_be_hidden()
    lab.page.wait_for_function(f"(was) => ({place})() !== was", arg=before)
    lab.page.screenshot(path=artefacts / "umap.png")


def test_a_report_is_written(lab: LabPage, runs: Path) -> None:
    report = open_tab(lab, "Report")
    report.get_by_role("button", name="Write the report").click()
    expect(report).to_contain_text("Written:", timeout=LONG_MS)
    (file,) = runs.glob("align-*/report.html")
    assert "<h2>Diagnosis" in file.read_text(encoding="utf-8")


def test_tuning_starts_by_a_button_and_its_curve_grows(lab: LabPage) -> None:
    training = open_tab(lab, "Recovery")
    training.get_by_role("button", name="Rearrange and tune").click()
    expect(training.locator(".tl-train")).to_be_visible(timeout=LONG_MS)
    model = open_tab(lab, "Model")
    expect(model.locator(".tl-job .tl-state")).to_have_text("finished", timeout=LONG_MS)  # the "rearrange" run
    open_tab(lab, "Recovery")
    wait_for_steps(lab, 2)


def test_a_lost_page_loses_nothing(lab: LabPage) -> None:
    """The page is reloaded without saving in the middle of tuning; running one cell restores everything."""
    expect(lab.page.locator(".tl-train .tl-run-state .tl-state")).to_have_text("running", timeout=LONG_MS)
    with lab.losing_the_page():
        lab.run_all()
        lab.page.wait_for_selector(".tl-tab-recovery .tl-train", timeout=LONG_MS)  # the tab that was open
        wait_for_steps(lab, 3)
    found = steps(lab)
    assert found[:3] == [1, 2, 3]
    wait_for_steps(lab, len(found) + 1)


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_every_tab_in_both_themes(lab: LabPage, artefacts: Path, theme: str) -> None:
    """Each tab has readable text (WCAG AA) and tooltips in all sections; screenshots have the sections closed."""
    lab.theme(theme)
    word = "dark" if "Dark" in theme else "light"
    turn = "(buttons) => buttons.forEach((button) => button.click())"
    for name in TABS:
        box = open_tab(lab, name)
        lab.settle()
        lab.page.locator(".tl-lab").screenshot(path=artefacts / f"lab-{name.lower()}-{word}.png")
        if box.locator(".js-plotly-plot").count():
            lab.wait_for_ink(f"tl-tab-{name.lower()}", dark=word == "dark")
        closed = box.locator(".tl-closed:visible")
        folds = closed.element_handles()
        closed.evaluate_all(turn)
        for fold in folds:
            lab.page.wait_for_function("(fold) => fold.classList.contains('tl-open')", arg=fold)
        lab.settle()  # wait until the opened sections are drawn
        step = lab.page.locator(".tl-flow > button").first
        step.evaluate("(step) => step.classList.toggle('tl-is-missing')")
        assert lab.faint_text("tl-lab") == [], name
        step.evaluate("(step) => step.classList.toggle('tl-is-missing')")
        assert lab.unexplained("tl-lab") == [], name
        box.locator(".tl-open:visible").evaluate_all(turn)


def test_cancel_by_keyboard_alone(lab: LabPage, runs: Path) -> None:
    open_tab(lab, "Compare")
    tab = lab.page.get_by_role("tab", name="Compare", exact=True)
    tab.focus()
    keyboard = lab.page.keyboard
    keyboard.press("ArrowLeft")  # to Export
    keyboard.press("ArrowLeft")  # to Recovery
    keyboard.press("Enter")
    expect(lab.page.get_by_role("tab", name="Recovery", exact=True)).to_have_attribute("aria-selected", "true")
    training = lab.page.locator(".tl-tab-recovery")
    expect(training.locator(".tl-train")).to_be_visible(timeout=LONG_MS)
    cancel = training.locator(".tl-train").get_by_role("button", name="Cancel")
    expect(cancel).to_be_enabled()
    for _ in range(60):
        keyboard.press("Tab")
        if cancel.evaluate("(button) => button === document.activeElement"):
            break
    else:
        pytest.fail("Tab does not reach Cancel")
    assert cancel.evaluate("(button) => getComputedStyle(button).outlineStyle") != "none"  # the focus is visible
    keyboard.press("Enter")
    expect(training.locator(".tl-train .tl-run-state .tl-state").first).to_have_text("cancelled")
    (file,) = runs.glob("adapt-*/run.json")
    assert json.loads(file.read_text())["state"] == "cancelled"


def test_the_new_rows_of_the_model_are_checked(lab: LabPage, artefacts: Path) -> None:
    diagnosis = open_tab(lab, "Diagnosis")
    diagnosis.get_by_role("button", name="Details", exact=True).click()
    diagnosis.get_by_role("button", name="Check the model's new rows").click()
    expect(diagnosis.locator(".tl-verdict")).to_contain_text("The model's new rows passed", timeout=LONG_MS)
    diagnosis.get_by_label("Show passed checks too").check()
    for finding in ("Lengths of new rows", "Wrong predictions", "Breaker tokens"):
        expect(diagnosis.locator("h4", has_text=finding)).to_be_visible()
    lab.page.locator(".tl-lab").screenshot(path=artefacts / "new-rows.png")


def test_the_console_has_no_errors(lab: LabPage) -> None:
    assert not lab.errors, "\n".join(lab.errors)
