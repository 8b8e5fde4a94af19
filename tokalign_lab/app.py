"""The lab for people without notebooks: Voila serves one page with all tabs.

It listens on loopback and asks for a token, as Jupyter does. The page is one cell, `Lab()`, over a folder of runs; two
pages, or a page and a notebook, may look at the same folder.
"""

from __future__ import annotations

import importlib.util
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError
from tokalign_lab.files import write_json

LOOPBACK = "127.0.0.1"


def serve(
    runs: Path, port: int = 8866, ip: str = LOOPBACK, browser: bool = True, say: Callable[[str], None] = print
) -> int:
    """Serve the lab until it is interrupted.

    Parameters
    ----------
    runs
        Folder of the runs and of the view; made when it is not there.
    port
        To listen on.
    ip
        Address to listen on; only this machine reaches the default.
    browser
        Whether to open one.
    say
        Told the address.

    Returns
    -------
    int
        The server's exit code.

    Raises
    ------
    InputError
        When Voila is not installed, or the port is taken.
    """
    if importlib.util.find_spec("voila") is None:
        raise InputError("The app needs Voila: pip install 'tokalign-lab[app]'.")
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
        say(f"The lab: http://{ip}:{port}/?token={token}  (Ctrl-C ends the server; runs go on)")
        try:
            return subprocess.call([sys.executable, "-m", "voila", str(page), *options(port, ip, token, browser)])
        except KeyboardInterrupt:
            return 130


def write_page(path: Path, runs: Path) -> None:
    """Write the notebook whose one cell is the lab."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = f"from tokalign_lab.widgets import Lab\n\nLab(runs={str(runs)!r})"
    cell: dict[str, Any] = {
        "cell_type": "code", "id": "lab", "metadata": {}, "execution_count": None, "outputs": [], "source": source,
    }  # fmt: skip
    metadata = {"kernelspec": kernel, "title": "tokalign lab"}
    write_json(path, {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [cell]})


def options(port: int, ip: str, token: str, browser: bool) -> list[str]:
    """Return Voila's options."""
    return [
        f"--port={port}",
        "--Voila.port_retries=0",
        f"--Voila.ip={ip}",
        f"--token={token}",
        "--VoilaConfiguration.allow_theme_override=YES",  # ?voila-theme=dark
        *([] if browser else ["--no-browser"]),
    ]
