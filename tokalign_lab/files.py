"""Atomic writes, and checksums that detect damaged files.

A file or folder is written under a temporary name in the same folder, flushed to the disk and renamed. After a crash, a
power cut, a full disk or a `kill -9` there is either the old state or the new one.

Cache keys are the SHA-256 of the inputs, never a path. Every cached artefact is a folder with the size and the
checksums of its files (`seal`). `cached_folder` checks them before anything is read; a damaged artefact is rebuilt,
with one line in the log. The checksum is CRC-32 (2.7 GB per second on one core), which finds damage, not forgery.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tokalign_lab.errors import InputError, plain_disk_errors

CHECKSUMS = ".checksums.json"
"""Name of the file with the checksums of a folder."""
_WHOLE_BYTES = 256 * 2**20  # larger files are checked by samples when opened: 0.1 s each
_BLOCK_BYTES = 2**20
_SAMPLES = 64
_DAY_SECONDS = 86_400
# Temporary names of `atomic_file`, `atomic_folder` and `catalog.fetch`: with a random part of 8 characters.
_UNFINISHED = re.compile(r"\..*-[a-z0-9_]{8}(\.\w+)?")
_log = logging.getLogger("tokalign_lab")
_verified: dict[tuple[Path, bool], list[tuple[int, ...]]] = {}


@contextmanager
def atomic_file(path: Path, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write; rename it to `path` when the block ends, remove it when the block fails.

    Raises DiskError if the disk is full or read-only, InputError if a folder has that name or the parent folder cannot
    be made or is moved during the block; `path` is then unchanged. Without `make_folder` the parent folder must exist.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder, so no file of that name can be written; choose another name.")
    with _next_to(path, make_folder):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            # mkstemp makes files private; a result gets the permissions of the user's umask.
            temporary.chmod(0o666 & ~_umask())
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, is_ours: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary folder to fill; rename it to `path` when the block ends, remove it when the block fails.

    A link is followed. An existing folder is replaced only after the new one is complete, and only if
    `check_replaceable` allows it; it raises InputError before the block begins, or before the folder is replaced.
    Raises DiskError if the disk is full or read-only, InputError if the parent folder cannot be made or is moved during
    the block; `path` is then unchanged.
    """
    path = resolved(path)
    check_replaceable(path, is_ours)
    with _next_to(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            yield temporary
            for inside in temporary.rglob("*"):  # some libraries write through private temporary files
                inside.chmod((0o777 if inside.is_dir() else 0o666) & ~_umask())
                _flush(inside)
            temporary.chmod(0o777 & ~_umask())
            _flush(temporary)
            check_replaceable(path, is_ours)  # the folder may have changed in the meantime
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
    """Write the size and the checksums of every file in `folder` to the file `CHECKSUMS`."""
    files = {file.relative_to(folder).as_posix(): file for file in _files_of(folder)}
    sums = {name: [file.stat().st_size, _checksum(file, False), _checksum(file, True)] for name, file in files.items()}
    write_json(folder / CHECKSUMS, {"algorithm": "crc32", "files": sums})


def damage(folder: Path, whole: bool = False) -> str | None:
    """Compare a sealed folder with its checksums; return a phrase with the difference, or None.

    With `whole` every byte is read; otherwise files above 256 MiB are checked by their size and 64 blocks of 1 MiB.
    Files that were added later are ignored.
    """
    if not (folder / CHECKSUMS).is_file():
        return "it has no checksums"
    try:
        state = [_state(file) for file in [folder / CHECKSUMS, *_files_of(folder)]]
        if _verified.get((folder, whole)) == state:
            return None  # this process has checked it, and it has not changed since
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(size), int(some), int(every)) for name, (size, some, every) in sums.items()}
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
    _verified[folder, whole] = state
    return None


def cached_folder(folder: Path, make: Callable[[Path], None], whole: bool = False) -> Path:
    """Return an undamaged folder of the cache, whose name is the hash of its inputs.

    `make` fills an empty folder; it is called if the folder is missing or damaged. `whole` is as for `damage`. Raises
    DiskError if the disk is full or read-only.
    """
    if folder.exists():
        reason = damage(folder, whole)
        if reason is None:
            return folder
        _log.warning("%s in the cache is damaged (%s); rebuilding it", folder, reason)
    with atomic_folder(folder, lambda found: True) as temporary:  # only this package names folders by these hashes
        make(temporary)
        seal(temporary)
    return folder


def leftovers(root: Path) -> list[Path]:
    """Find unfinished files and folders of killed processes below `root`, older than a day."""
    old = time.time() - _DAY_SECONDS
    found = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            with suppress(OSError):
                if _UNFINISHED.fullmatch(name) and all(x.lstat().st_mtime < old for x in [path, *path.rglob("*")]):
                    found.append(path)
        folders[:] = [name for name in folders if not _UNFINISHED.fullmatch(name)]
    return sorted(found)


def bytes_below(folder: Path) -> int:
    """Return the size of all files below a folder; a file that another process moves in the meantime is left out."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.lstat(os.path.join(parent, name)).st_size
    return found


def remove(path: Path) -> int:
    """Remove a file or a folder; return the freed bytes."""
    size = sum(file.lstat().st_size for file in [path, *path.rglob("*")] if not file.is_dir())
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    return size


def check_replaceable(path: Path, is_ours: Callable[[Path], bool] | None = None) -> None:
    """Check that writing a folder to `path` would not delete files that this package did not make.

    The path may be missing, empty, or inside the cache folder. `is_ours` decides whether a folder that is not empty was
    made by the caller and has no other files; without it, no such folder may be replaced. Raises InputError if the path
    is a file, or a folder with other content.
    """
    path = resolved(path)
    try:  # the path is read only once, because another process may create its folder there at any time
        if not any(path.iterdir()) or path.is_relative_to(cache_folder().resolve()):
            return
        if is_ours is not None and is_ours(path):
            return
    except FileNotFoundError:
        return
    except NotADirectoryError:
        if not os.path.lexists(path):  # a parent is a file; writing reports this
            return
    raise InputError(
        f"'{path}' exists already and holds files that are not from an earlier result of this kind; "
        "choose another place or remove it."
    )


def resolved(path: Path | str) -> Path:
    """Return the absolute path, links followed, of a file or folder that will be written.

    Raises InputError if its links form a loop, or its name is not UTF-8, which JSON and other libraries need.
    """
    try:
        str(path).encode()
        return Path(path).resolve()
    except UnicodeEncodeError:
        raise InputError(f"The name {os.fsencode(path)!r} is not UTF-8; choose another name.") from None
    except (RuntimeError, OSError):
        raise InputError(f"'{path}' cannot be written, because it is a link that leads to itself.") from None


def from_home(path: Path | str) -> Path:
    """Return a path with the user's home folder for `~`; a name such as `~$notes.md`, which is no user's, stays."""
    return Path(os.path.expanduser(path))


def holds_only(folder: Path, mark: str, names: str) -> bool:
    """Whether a folder has the file `mark`, and all its entries match the pattern `names`."""
    entries = {entry.name for entry in folder.iterdir()}
    return mark in entries and all(re.fullmatch(names, entry) for entry in entries)


def write_json(path: Path, value: Any, make_folder: bool = True) -> None:
    """Write `value` as indented UTF-8 JSON, as `atomic_file` does."""
    with atomic_file(path, make_folder) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Convert a value for JSON: NumPy scalars become Python scalars, NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return plain(value.item()) if hasattr(value, "item") else value


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as lower-case hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 over length-prefixed parts, as lower-case hex; (b"a", b"bc") and (b"ab", b"c") differ.

    A memoryview must have items of one byte.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder of fetched and derived files.

    $TOKALIGN_CACHE, else $XDG_CACHE_HOME/tokalign-lab, else ~/.cache/tokalign-lab. A relative $XDG_CACHE_HOME is
    ignored, as its specification requires.
    """
    if own := os.environ.get("TOKALIGN_CACHE"):
        return from_home(own)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "tokalign-lab"


def _files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CHECKSUMS)


def _state(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _checksum(file: Path, whole: bool) -> int:
    """CRC-32 of a file, or of 64 blocks across it if it is large and not `whole`."""
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


@contextmanager
def _next_to(path: Path, make_folder: bool = True) -> Iterator[None]:
    """Create the parent folder of `path` for the block; errors of the folder become an InputError or a DiskError."""
    resolved(path)
    with plain_disk_errors(path):
        try:
            if make_folder:
                path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"'{path}' cannot be written, because a part of it is a file, not a folder.") from None
        except FileNotFoundError:  # nobody can create folders in /proc and the like
            raise InputError(f"'{path}' cannot be written, because no folder can be made there.") from None
        try:
            yield
        except FileNotFoundError as error:
            # The folder may exist again by now; then the missing file is the folder itself or a temporary file in it.
            missing = str(error.filename)
            ours = missing == str(path.parent) or f"{os.sep}.{path.name}-" in missing
            if path.parent.is_dir() and not ours:
                raise
            raise InputError(f"'{path}' cannot be written, because another process has moved its folder.") from None


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system does not support it
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
