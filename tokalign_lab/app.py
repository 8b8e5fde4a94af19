"""The lab without notebooks: Voila serves one page with all tabs.

Voila listens on loopback and requires a token, as Jupyter does. The token is in a file that only its user can read,
because every user of a machine sees the arguments of all processes. A content security policy stops the browser from
loading anything from other hosts, such as the fonts of Voila's template. Voila ends when this process ends.

The page is one cell, `Lab()`, for a folder of runs; several pages and notebooks may show the same folder.
"""

from __future__ import annotations

import ctypes
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tokalign_lab.errors import InputError, require_extra
from tokalign_lab.files import write_json

LOOPBACK = "127.0.0.1"
SECURITY_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss: data: blob:; "
    "frame-ancestors 'self'"
)
_END_SECONDS = 10.0
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def serve(
    runs: Path, port: int = 8866, ip: str = LOOPBACK, browser: bool = True, show: Callable[[str], None] = print
) -> int:
    """Serve the lab for the folder `runs` until it is interrupted; returns the server's exit code.

    The default `ip` is reachable only from this machine. `show` is called with the address of the page. Raises
    `InputError` if Voila or ipywidgets is not installed, or the address cannot be used.
    """
    require_extra("app", "voila", "The app")
    require_extra("lab", "ipywidgets", "The app")
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((ip, port))
        except OSError as error:
            raise InputError(
                f"The port {port} of {ip} cannot be listened on ({error.strerror}); give another."
            ) from None
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="tokalign-app-") as folder:
        page = Path(folder) / "lab.ipynb"
        write_page(page, runs.resolve())
        write_json(Path(folder) / "voila.json", configuration(token))  # Voila reads it from its working directory
        show(f"The lab: http://{ip}:{port}/?token={token}  (Ctrl-C ends the server; runs continue)")
        command = [sys.executable, "-m", "voila", str(page), *options(port, ip, browser)]
        voila = subprocess.Popen(command, cwd=folder, preexec_fn=_end_with_parent)
        before = {number: signal.signal(number, _exit_on_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            return voila.wait()
        except KeyboardInterrupt:
            return 130
        finally:
            _end(voila)
            for number, handler in before.items():
                signal.signal(number, handler)


def write_page(path: Path, runs: Path) -> None:
    """Write a notebook with one cell, which shows the lab of the folder `runs`."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = f"from tokalign_lab.widgets import Lab\n\nLab(runs={str(runs)!r})"
    cell: dict[str, Any] = {
        "cell_type": "code", "id": "lab", "metadata": {}, "execution_count": None, "outputs": [], "source": source,
    }  # fmt: skip
    metadata = {"kernelspec": kernel, "title": "tokalign lab"}
    write_json(path, {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [cell]})


def configuration(token: str) -> dict[str, Any]:
    """Return the content of Voila's `voila.json`."""
    headers = {"Content-Security-Policy": SECURITY_POLICY}
    return {"Voila": {"token": token, "tornado_settings": {"headers": headers}}}


def _end_with_parent() -> None:
    """Have Linux send SIGTERM to this process when its parent ends, even if the parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def options(port: int, ip: str, browser: bool) -> list[str]:
    """Return Voila's command-line options."""
    return [
        f"--port={port}",
        "--Voila.port_retries=0",
        f"--Voila.ip={ip}",
        "--VoilaConfiguration.allow_theme_override=YES",  # ?voila-theme=dark
        *([] if browser else ["--no-browser"]),
    ]
