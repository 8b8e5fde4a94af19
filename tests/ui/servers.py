"""JupyterLab and Voila for tests and benchmarks: on loopback, with a token, with all files in one temporary folder."""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 180
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}
_PLACES = {
    "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
}  # fmt: skip


@dataclass
class Server:
    """A running server: its address, its token, and the folder that it shows."""

    url: str
    token: str
    folder: Path
    process: subprocess.Popen[bytes]


@contextmanager
def jupyter_lab(home: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Serve JupyterLab on a copy of the notebooks, and of the results that they read, in `home / "lab"`."""
    for folder in ("notebooks", "benchmarks/results"):
        shutil.copytree(ROOT / folder, home / "lab" / folder, ignore=shutil.ignore_patterns(".ipynb_*"))
    for name, values in SETTINGS.items():
        file = home / "settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    port, token = free_port(), secrets.token_hex(16)
    command = [
        "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'lab'}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
        *(["--allow-root"] if os.getuid() == 0 else []),
    ]  # fmt: skip
    with serving(home, command, environment, f"http://127.0.0.1:{port}", token, "/api/status") as server:
        yield server


@contextmanager
def serving(
    home: Path, command: Sequence[str], environment: Mapping[str, str], url: str, token: str, ready: str
) -> Iterator[Server]:
    """Run a server with this Python until the block ends, and then cancel all runs that it started."""
    places = {name: str(home / place) for name, place in _PLACES.items()}
    runs = home / "lab" / "runs"
    given = {"TOKALIGN_RUNS": str(runs), "HF_HUB_OFFLINE": "1", **environment}
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | places | given,
            cwd=home,
        )
    server = Server(url, token, home / "lab", process)
    try:
        _wait_for(server, ready, log)
        yield server
    finally:
        _cancel_runs(runs)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def chromium() -> str | None:
    """Return the path of the browser: $TOKALIGN_CHROMIUM, or else that of Debian's chromium."""
    path = os.environ.get("TOKALIGN_CHROMIUM", "/usr/bin/chromium")
    return path if os.access(path, os.X_OK) else None


def cache_of_assets(home: Path) -> Path:
    """Make a cache in `home` with the fetched assets and without computed files."""
    from tokalign_lab.files import cache_folder

    assets, cache = cache_folder() / "assets", home / "cache"
    assets.mkdir(parents=True, exist_ok=True)
    cache.mkdir()
    (cache / "assets").symlink_to(assets, target_is_directory=True)
    return cache


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_for(server: Server, ready: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended at its start:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"{server.url}{ready}?token={server.token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"the server did not answer in {START_S} s:\n{log.read_text()[-3000:]}")


def _cancel_runs(folder: Path) -> None:
    """Cancel all runs in a folder, because runs continue when their kernel ends."""
    from tokalign_lab.runs.control import list_runs

    for run in list_runs(folder):
        if run.state == "running":
            run.cancel(grace=5)
