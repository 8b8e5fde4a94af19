"""What people expect of any Python package: where it caches, what it installs, how it reports to other tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokalign_lab.files import cache_folder


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("/own", "/shared", "/own"),
        (None, "/shared", "/shared/tokalign-lab"),
        ("", "/shared", "/shared/tokalign-lab"),
        (None, None, "/home/me/.cache/tokalign-lab"),
        (None, "", "/home/me/.cache/tokalign-lab"),
        (None, "relative", "/home/me/.cache/tokalign-lab"),
    ],
)
def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("TOKALIGN_CACHE", own), ("XDG_CACHE_HOME", shared)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
