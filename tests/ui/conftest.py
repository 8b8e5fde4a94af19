"""A real JupyterLab in a real Chromium: one server and one page a session.

Debian's chromium, named by $TOKALIGN_CHROMIUM, is driven by playwright. JupyterLab listens on loopback with a token and
keeps all its files in a temporary folder. Everything the page's console calls an error is collected.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from .lab_page import LabPage

ROOT = Path(__file__).resolve().parents[2]
ARTEFACTS = ROOT / "test-artefacts"
START_S = 90
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}


def chromium() -> str | None:
    """The browser's path: $TOKALIGN_CHROMIUM, else Debian's place."""
    path = os.environ.get("TOKALIGN_CHROMIUM", "/usr/bin/chromium")
    return path if os.access(path, os.X_OK) else None


@pytest.fixture(scope="session")
def browser_type_launch_args() -> dict[str, Any]:
    path = chromium()
    if path is None:
        reason = "no chromium here; install Debian's package or name one in TOKALIGN_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)  # a machine that checks must not skip the check
        pytest.skip(reason)
    quiet = ["background-networking", "component-update", "sync", "quic", "dev-shm-usage"]
    return {
        "executable_path": path,
        "args": ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
    }


@dataclass
class Server:
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab over a copy of the notebooks, with runs in a temporary folder and sizes made small."""
    home = tmp_path_factory.mktemp("jupyter")
    shutil.copytree(ROOT / "notebooks", home / "lab" / "notebooks", ignore=shutil.ignore_patterns(".ipynb_*"))
    for name, values in SETTINGS.items():
        file = home / "settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    places = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
    }  # fmt: skip
    environment = os.environ | {name: str(home / place) for name, place in places.items()}
    environment |= {"TOKALIGN_FAST": "1", "TOKALIGN_RUNS": str(home / "lab" / "runs"), "HF_HUB_OFFLINE": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), home / "lab")
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={server.token}",
        f"--ServerApp.root_dir={server.folder}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        *(["--allow-root"] if os.getuid() == 0 else []),
    ]  # fmt: skip
    with open(home / "server.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=home)
    try:
        _wait_for(server, process, home / "server.log")
        yield server
    finally:
        _cancel_runs(server.folder / "runs")
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"JupyterLab ended at its start:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"{server.url}/api/status?token={server.token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not answer in {START_S} s:\n{log.read_text()[-3000:]}")


def _cancel_runs(folder: Path) -> None:
    """A run outlives its kernel by design, so the tests end theirs."""
    from tokalign_lab.runs.control import list_runs

    for run in list_runs(folder):
        if run.state == "running":
            run.cancel(grace=5)


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots go."""
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
