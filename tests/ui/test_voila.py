"""The lab as a web page without a notebook: protected by a token, with the same tabs."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tokalign_lab import app
from tokalign_lab.files import write_json

from .conftest import FAST
from .lab_page import LONG_MS
from .servers import free_port, serving

TOKEN = "a-token-for-this-test"
# Messages of Voila itself: its template requests fonts and MathJax from a CDN, which the page's policy blocks, and its
# front end reports missing modules of JupyterLab.
NOT_OURS = ("Content Security Policy", "net::ERR", "MathJax", "The getter for the shared module is not a function")


def test_the_app_shows_the_lab_behind_a_token(browser: Any, artefacts: Path, tmp_path: Path) -> None:
    pytest.importorskip("voila")
    page_file, port = tmp_path / "lab.ipynb", free_port()
    app.write_page(page_file, tmp_path / "runs")
    url = f"http://127.0.0.1:{port}"
    command = ["-m", "voila", str(page_file), *app.options(port, app.LOOPBACK, browser=False)]
    write_json(tmp_path / "voila.json", app.configuration(TOKEN))  # Voila reads it from the folder where it is started
    with serving(tmp_path, command, FAST, url, TOKEN, "/login"):
        with urllib.request.urlopen(url, timeout=60) as without_token:
            assert "/login" in without_token.url
            assert "tokalign" not in without_token.read().decode()
        page = browser.new_page(viewport={"width": 1280, "height": 1100})
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(f"page error: {error}"))
        page.goto(f"{url}/?token={TOKEN}", timeout=LONG_MS)
        expect(page.locator(".tl-lab .tl-picker .tl-card").first).to_be_visible(timeout=LONG_MS)
        page.get_by_role("tab", name="Runs", exact=True).click()
        expect(page.locator(".tl-tab-runs .tl-runs")).to_be_visible(timeout=LONG_MS)
        page.get_by_role("tab", name="Pair", exact=True).click()
        page.wait_for_timeout(1000)
        page.screenshot(path=artefacts / "app.png")
        assert [text for text in errors if not any(word in text for word in NOT_OURS)] == []
        page.close()
