"""Files that appear whole or not at all, and the checksums that tell whether they are still what was written.

A file or folder is written under a temporary name next to its place, flushed to the disk and renamed into place. After
a crash, a power cut, a full disk or a `kill -9` there is either the old state or the new one.

Caches are keyed by the SHA-256 of what went in, never by a path. Every cached artefact is a folder that holds the size
and the checksums of its files (`seal`). `cached_folder` checks them before anything is read: an artefact that no longer
fits is made again, with one line in the log. The checksum is CRC-32 (2.7 GB a second on one core): it is there to find
damage, not forgery.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError, plain_disk_errors

CHECKSUMS = ".checksums.json"
"""The file that holds the checksums of the folder it is in."""
_WHOLE_BYTES = 256 * 2**20  # larger files are checked by samples when opened: 0.1 s each
_BLOCK_BYTES = 2**20
_SAMPLES = 64
_DAY_SECONDS = 86_400
# What `atomic_file`, `atomic_folder` and `catalog.fetch` call a thing until it is whole: a random part of 8 characters.
_UNFINISHED = re.compile(r"\..*-[a-z0-9_]{8}(\.\w+)?")
_log = logging.getLogger("tokalign_lab")
_fitting: dict[tuple[Path, bool], list[tuple[int, ...]]] = {}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; rename it to `path` when the block ends, remove it when the block fails.

    Raises
    ------
    DiskError
        If the disk is full or may not be written to; `path` is then as it was.
    """
    path = Path(path)
    with plain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes files private; a result is as readable as the user's umask allows.
            temporary.chmod(0o666 & ~_umask())
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
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
    DiskError
        If the disk is full or may not be written to; `path` is then as it was.
    """
    path = Path(path).resolve()
    check_replaceable(path, is_ours)
    with plain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            yield temporary
            for inside in temporary.rglob("*"):  # some libraries write through private temporary files
                inside.chmod((0o777 if inside.is_dir() else 0o666) & ~_umask())
                _flush(inside)
            temporary.chmod(0o777 & ~_umask())
            _flush(temporary)
            check_replaceable(path, is_ours)  # somebody may have put a file there in the meantime
            try:
                os.replace(temporary, path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
                os.replace(path, old / "replaced")
                os.replace(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def seal(folder: Path) -> None:
    """Write down the size and the checksums of every file in `folder`, in the file `CHECKSUMS`."""
    files = {file.relative_to(folder).as_posix(): file for file in _files_of(folder)}
    sums = {name: [file.stat().st_size, _checksum(file, False), _checksum(file, True)] for name, file in files.items()}
    write_json(folder / CHECKSUMS, {"algorithm": "crc32", "files": sums})


def damage(folder: Path, whole: bool = False) -> str | None:
    """Compare a sealed folder with its checksums.

    Parameters
    ----------
    folder
        Where `seal` was called.
    whole
        Read every byte. Otherwise files above 256 MiB are checked by their size and 64 blocks of 1 MiB.

    Returns
    -------
    str or None
        What does not fit, for a sentence; None when all files are as they were written. Files that were added later do
        not count.
    """
    if not (folder / CHECKSUMS).is_file():
        return "it has no checksums"
    try:
        state = [_state(file) for file in [folder / CHECKSUMS, *_files_of(folder)]]
        if _fitting.get((folder, whole)) == state:
            return None  # read before by this process, and not written since
        said = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(size), int(some), int(every)) for name, (size, some, every) in said.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "its checksums are not readable"
    for name, (size, some, every) in expected.items():
        try:
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes instead of {size:,}"
            if _checksum(folder / name, whole) != (every if whole else some):
                return f"the checksum of {name} differs"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    _fitting[folder, whole] = state
    return None


def cached_folder(folder: Path, make: Callable[[Path], None], whole: bool = False) -> Path:
    """Return a folder of the cache whose files are as they were written.

    Parameters
    ----------
    folder
        Its place in the cache, named by the hash of what it is made from.
    make
        Fills an empty folder; called where there is none at that place, or one that is damaged.
    whole
        As for `damage`.

    Raises
    ------
    DiskError
        If the disk is full or may not be written to.
    """
    if folder.exists():
        reason = damage(folder, whole)
        if reason is None:
            return folder
        _log.warning("%s in the cache is damaged (%s); making it again", folder, reason)
    with atomic_folder(folder, lambda found: True) as temporary:  # what is at a place named by a hash is ours
        make(temporary)
        seal(temporary)
    return folder


def sealed_folders(root: Path) -> list[Path]:
    """Find every folder below `root` that has checksums."""
    return sorted(file.parent for file in root.rglob(CHECKSUMS))


def leftovers(root: Path) -> list[Path]:
    """Find what killed processes left unfinished below `root` more than a day ago."""
    old = time.time() - _DAY_SECONDS
    found = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            with suppress(OSError):
                if _UNFINISHED.fullmatch(name) and _newest(path) < old:
                    found.append(path)
        folders[:] = [name for name in folders if not _UNFINISHED.fullmatch(name)]
    return sorted(found)


def remove(path: Path) -> int:
    """Remove a file or a folder; returns the bytes that were freed."""
    size = sum(file.lstat().st_size for file in [path, *path.rglob("*")] if not file.is_dir())
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return size


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
    """Where fetched and derived files are stored.

    Returns
    -------
    Path
        $TOKALIGN_CACHE, else $XDG_CACHE_HOME/tokalign-lab, else ~/.cache/tokalign-lab. A relative $XDG_CACHE_HOME is
        ignored, as its specification demands.
    """
    if own := os.environ.get("TOKALIGN_CACHE"):
        return Path(own)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "tokalign-lab"


def _files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CHECKSUMS)


def _state(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _newest(path: Path) -> float:
    """When a file, or anything in a folder, was last written."""
    return max(entry.lstat().st_mtime for entry in [path, *path.rglob("*")])


def _checksum(file: Path, whole: bool) -> int:
    """CRC-32 of a file, or of 64 blocks from its beginning to its end where it is large and not `whole`."""
    size, found = file.stat().st_size, 0
    with open(file, "rb") as content:
        if whole or size <= _WHOLE_BYTES:
            while block := content.read(_BLOCK_BYTES):
                found = zlib.crc32(block, found)
            return found
        for sample in range(_SAMPLES):
            content.seek((size - _BLOCK_BYTES) * sample // (_SAMPLES - 1))
            found = zlib.crc32(content.read(_BLOCK_BYTES), found)
    return found


def _flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder, before what follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
