"""What every artefact records about its making: the time, and the versions of the packages that made it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from datetime import UTC, datetime

PACKAGES = ("tokalign-lab", "torch", "transformers", "tokenizers", "numpy")


def now() -> str:
    """Return the time in UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return package -> version; a package without metadata here (a plain checkout, say) is left out."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
