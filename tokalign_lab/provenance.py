"""Time and package versions, for the provenance of every artefact."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime

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
