"""A real JupyterLab in a real Chromium: one server and one page per session.

Playwright drives Debian's chromium, or the one named by $TOKALIGN_CHROMIUM. All errors of the page's console are
collected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from .lab_page import LabPage
from .servers import ROOT, Server, cache_of_assets, chromium, jupyter_lab

ARTEFACTS = ROOT / "test-artefacts"
# A run has one thread, because waiting threads would slow the browser down.
FAST = {"TOKALIGN_FAST": "1", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    path = chromium()
    if path is None:
        reason = "no chromium here; install Debian's package or name one in TOKALIGN_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)  # on a machine that must run these tests, they may not be skipped
        pytest.skip(reason)
    quiet = ["background-networking", "component-update", "sync", "quic", "dev-shm-usage"]
    return {
        "executable_path": path,
        "args": ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
    }


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab on a copy of the notebooks, with small sizes and with runs in a temporary folder.

    Its cache contains only the assets: a layout cached by an earlier test session would be shown without a job.
    """
    home = tmp_path_factory.mktemp("jupyter")
    with jupyter_lab(home, {**FAST, "TOKALIGN_CACHE": str(cache_of_assets(home))}) as server:
        yield server


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Folder of the screenshots."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS


@pytest.fixture(scope="session")
def lab_page(jupyter: Server, browser: Any) -> Iterator[LabPage]:
    """The quickstart, open in one page for all tests of the session."""
    page: Page = browser.new_page(viewport={"width": 1280, "height": 1000})
    made = LabPage(page, jupyter.url, jupyter.token)
    made.open("notebooks/00_quickstart.ipynb")
    yield made
    page.close()
