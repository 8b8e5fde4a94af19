"""Provenance of artefacts: time, package versions, and the record in a model's folder."""

from __future__ import annotations

import importlib.metadata
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("tokalign-lab", "torch", "transformers", "tokenizers", "numpy")


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def installed_versions() -> dict[str, str]:
    """Return package -> version; a package without metadata (a checkout that is not installed) is left out."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def read_record(folder: Path) -> dict[str, Any]:
    """Return what `tokalign.json` in a model's folder records; empty if there is none or it is damaged.

    Its `model` is a string, `lost` a list, `lexicon`, `calibration`, `training` and `scores` objects; else left out.
    """
    try:
        record = json.loads((folder / "tokalign.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    types = {"model": str, "lost": list} | dict.fromkeys(("lexicon", "calibration", "training", "scores"), dict)
    found = record if isinstance(record, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, types.get(name, object))}
