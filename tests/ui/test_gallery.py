"""A recorded run in the browser: the lab in an empty folder, on a machine without assets, in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from .conftest import FAST
from .lab_page import LONG_MS, TABS, LabPage, lab_in_a_cell, open_tab
from .servers import Server, jupyter_lab


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab on a machine with an empty cache and no runs."""
    home = tmp_path_factory.mktemp("bare")
    with jupyter_lab(home, {**FAST, "TOKALIGN_CACHE": str(home / "cache")}) as server:
        yield server


@pytest.fixture(scope="module")
def lab(bare: Server, browser: Any) -> Iterator[LabPage]:
    """A notebook with one cell that shows the lab."""
    with lab_in_a_cell(bare, browser, "bare", "Lab()", ".tl-recorded-bar") as made:
        yield made


def marked(lab: LabPage, box: Locator) -> None:
    """Check that the notice of a recorded run is shown once, above the tabs."""
    notice = lab.page.locator(".tl-recorded:visible")
    expect(notice).to_have_count(1)
    expect(notice).to_contain_text("Recorded run, not one of yours")
    expect(box).to_be_visible()


def test_an_empty_lab_offers_a_recorded_run(lab: LabPage, artefacts: Path) -> None:
    bar = lab.page.locator(".tl-recorded-bar")
    expect(bar).to_contain_text("You have no runs here yet")
    open_tab(lab, "Pair")
    lab.page.locator(".tl-lab").screenshot(path=artefacts / "gallery-offer-light.png")
    bar.get_by_role("button", name="Look at a recorded run").click()
    expect(bar).to_contain_text("Recorded run, not one of yours")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_curve_lexicon_and_maps_are_shown_and_marked(lab: LabPage, artefacts: Path, theme: str) -> None:
    lab.theme(theme)
    word = "dark" if "Dark" in theme else "light"

    def picture(name: str) -> None:
        lab.settle()
        lab.page.locator(".tl-lab").screenshot(path=artefacts / f"gallery-{name}-{word}.png")

    training = open_tab(lab, "Recovery")
    marked(lab, training)
    curve = training.locator(".tl-train .js-plotly-plot").last
    expect(curve).to_be_visible(timeout=LONG_MS)
    lab.page.wait_for_function(
        "() => [...document.querySelectorAll('.tl-train .js-plotly-plot')].at(-1)"
        ".data.some((trace) => (trace.x ?? []).length >= 12)",
        timeout=LONG_MS,
    )
    expect(training.locator(".tl-train .tl-run-state .tl-state").first).to_have_text("recorded")
    expect(training).to_contain_text("a recorded run without its model")
    picture("training")

    lexicon = open_tab(lab, "Lexicon")
    marked(lab, lexicon)
    rows = lexicon.locator(".tl-lexicon-table tbody tr")
    expect(rows).to_have_count(15, timeout=LONG_MS)
    rows.nth(3).click()
    expect(lexicon.locator(".tl-why h4").first).to_be_visible()
    picture("lexicon")

    maps = open_tab(lab, "Maps")
    marked(lab, maps)
    expect(maps.locator(".tl-map-layer[data-ready]")).to_be_attached(timeout=LONG_MS)
    expect(maps.locator(".tl-status")).to_contain_text("PCA")
    picture("maps")


def test_every_control_and_number_of_a_recorded_run_has_a_tooltip(lab: LabPage) -> None:
    """Controls in closed sections too; `test_every_tab_in_both_themes` checks the tabs of one's own runs."""
    for name in TABS:
        open_tab(lab, name)
        lab.settle()
        assert lab.unexplained("tl-lab") == [], name


def test_a_panel_is_copied_as_code(lab: LabPage) -> None:
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    lexicon = open_tab(lab, "Lexicon")
    lexicon.locator(".tl-lexicon .tl-copy-code").first.click()
    expect(lexicon.locator(".tl-lexicon > .tl-code")).to_contain_text("Copied")
    code = lab.page.evaluate("navigator.clipboard.readText()")
    assert code.splitlines()[-1].startswith("LexiconPanel.of_run(")


def test_a_button_that_needs_the_model_explains_it(lab: LabPage) -> None:
    training = open_tab(lab, "Recovery")
    training.get_by_role("button", name="Start again", exact=True).click()
    training.get_by_role("button", name="Start the new run").click()
    expect(training.locator(".tl-train .tl-error")).to_contain_text("recorded run")


def test_back_to_the_users_own_runs(lab: LabPage, bare: Server) -> None:
    lab.page.get_by_role("button", name="Back to your own runs").click()
    expect(lab.page.locator(".tl-recorded-bar")).to_contain_text("You have no runs here yet")
    # Nothing was started or copied. The view may be being written, first to a temporary file.
    assert {path.name for path in (bare.folder / "runs").iterdir() if not path.name.startswith(".lab-")} == {"lab.json"}
    assert not (bare.folder.parent / "cache").exists()  # nothing was fetched


def test_the_console_has_no_errors(lab: LabPage) -> None:
    assert not lab.errors, "\n".join(lab.errors)
