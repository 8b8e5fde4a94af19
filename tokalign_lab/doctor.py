"""A report for bug reports: installed packages, the device, and what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import sys
from typing import Any

from tokalign_lab import catalog
from tokalign_lab.files import CHECKSUMS, cache_folder, damage, leftovers, remove
from tokalign_lab.progress import Progress, silent
from tokalign_lab.runs.control import runs_root

DEFAULT_ASSETS = ("smollm2-135m", "sp32k", "minilm", "default")
_EXTRAS = {
    "app": "the lab as a web page without notebooks",
    "cluster": "counts over a Dask cluster",
    "gguf": "checks of exported GGUF files with llama.cpp",
    "lab": "panels, notebooks, the HTML report and UMAP maps",
    "tasks": "the papers' six tasks",
}
_MIN_FREE_BYTES = 5_000_000_000


def examine() -> dict[str, Any]:
    """Return "system" (facts), "packages" and "assets" (rows), and "missing" (sentences; empty if nothing is)."""
    packages, missing = _packages()
    assets = [{"name": name, "cached": catalog.cached_path(name) is not None} for name in DEFAULT_ASSETS]
    for asset in assets:
        if not asset["cached"]:
            name = asset["name"]
            missing.append(f"The asset '{name}' is not on this machine; `tokalign-lab assets get {name}` fetches it.")
    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    if free < _MIN_FREE_BYTES:
        missing.append(f"The cache folder {folder} has only {free / 1e9:.1f} GB free; at least 5 GB are recommended.")
    system = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "device": _device(),
        "cache": str(folder),
        "free_gigabytes": round(free / 1e9, 1),
    }
    return {"system": system, "packages": packages, "assets": assets, "missing": missing}


def verify(progress: Progress = silent) -> list[dict[str, str]]:
    """Compare every cached artefact with its checksums.

    Returns rows of "folder" and "state": "whole", or what is damaged. A damaged artefact is rebuilt at its next use.
    """
    rows = []
    folders = sorted(file.parent for file in cache_folder().rglob(CHECKSUMS))
    for place, folder in enumerate(folders):
        progress(place / len(folders), folder.name)
        rows.append({"folder": str(folder), "state": damage(folder, whole=True) or "whole"})
    return rows


def clean() -> list[dict[str, Any]]:
    """Remove unfinished files of killed processes, older than a day, from the cache and the runs folder.

    Returns "path" and "bytes" of each; raises `OSError` if one cannot be removed.
    """
    found = [path for root in (cache_folder(), runs_root()) for path in leftovers(root)]
    return [{"path": str(path), "bytes": remove(path)} for path in found]


def _packages() -> tuple[list[dict[str, str]], list[str]]:
    """Return the versions of all requirements, and a sentence for each required package or extra that is missing."""
    rows, missing = [], []
    without: dict[str, list[str]] = {}
    for name, extra in _requirements():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "missing"
            if extra:
                without.setdefault(extra, []).append(name)
            else:
                missing.append(f"The package '{name}' is not installed; `pip install {name}` installs it.")
        rows.append({"package": name, "version": version})
    for extra, names in sorted(without.items()):
        missing.append(
            f"The extra '{extra}' ({_EXTRAS[extra]}) is optional and lacks {', '.join(names)}; "
            f"`pip install 'tokalign-lab[{extra}]'` installs it."
        )
    return rows, missing


def _requirements() -> list[tuple[str, str]]:
    """Return each requirement of the package metadata with its extra, "" for none."""
    try:
        lines = importlib.metadata.requires("tokalign-lab") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        lines = ["torch", "transformers", "tokenizers", "numpy", "pandas"]
    found = []
    for line in lines:
        extra = re.search(r"""extra == ['"]([\w-]+)""", line)
        found.append((re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0], extra[1] if extra else ""))
    return sorted(found)


def _device() -> str:
    """Describe the device, also if torch is missing."""
    try:
        from tokalign_lab.device import describe_device

        return describe_device()
    except ImportError:
        return "unknown (torch is not installed)"
