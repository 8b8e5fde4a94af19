"""Files that appear whole or not at all, and the hashes that name their content.

A file or folder is written under a temporary name beside its place and renamed into it, so that a crash, a full
disk or a `kill -9` leaves either the old state or the new one. Caches are keyed by the SHA-256 of what went in,
never by a path.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; rename it to `path` when the block ends, remove it when the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; a result is as readable as the user's umask allows.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, is_ours: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary folder to fill; rename it to `path` when the block ends, remove it when the block fails.

    Parameters
    ----------
    path
        Where the folder is to appear. A link is followed. An existing folder is replaced only after the new one is
        complete, and only if `check_replaceable` allows it.
    is_ours
        As for `check_replaceable`.

    Raises
    ------
    InputError
        As `check_replaceable`, before the block begins and again before the folder is replaced.
    """
    path = Path(path).resolve()
    check_replaceable(path, is_ours)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield temporary
        for inside in temporary.rglob("*"):  # some libraries write through private temporary files
            inside.chmod((0o777 if inside.is_dir() else 0o666) & ~_umask())
        temporary.chmod(0o777 & ~_umask())
        check_replaceable(path, is_ours)  # somebody may have put a file there in the meantime
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
            os.replace(path, old / "replaced")
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(path: Path, is_ours: Callable[[Path], bool] | None = None) -> None:
    """Refuse a place where writing a folder would delete what this package did not make.

    Parameters
    ----------
    path
        Where a folder is to be written. It may be absent, empty, or anything inside the cache folder.
    is_ours
        Whether an existing folder that is not empty was made by the caller, and holds nothing else. Without it, no
        such folder is.

    Raises
    ------
    InputError
        When there is a file, or a folder with other content.
    """
    path = Path(path).resolve()
    if path.is_dir():
        if not any(path.iterdir()) or path.is_relative_to(cache_folder().resolve()):
            return
        if is_ours is not None and is_ours(path):
            return
    elif not path.exists():
        return
    raise InputError(
        f"'{path}' exists already and holds files that are not from an earlier result of this kind; "
        "choose another place or remove it."
    )


def holds_only(folder: Path, mark: str, names: str) -> bool:
    """Whether a folder has the file `mark`, and no entry whose name does not match the pattern `names` as a whole."""
    entries = {entry.name for entry in folder.iterdir()}
    return mark in entries and all(re.fullmatch(names, entry) for entry in entries)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as lower-case hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(parts: Iterable[bytes]) -> str:
    """SHA-256 over length-prefixed parts, as lower-case hex; (b"a", b"bc") and (b"ab", b"c") differ."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where fetched and derived things are kept: $TOKALIGN_CACHE, else ~/.cache/tokalign-lab."""
    return Path(os.environ.get("TOKALIGN_CACHE") or Path.home() / ".cache" / "tokalign-lab")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
