"""Models and tokenizers to choose from, their origin, and whether they are on this machine.

They are the catalogue's assets, those in the hub's cache, and those in folders that the caller names. Nothing is loaded
and the network is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokalign_lab.catalog.assets import Asset, assets, find, is_known
from tokalign_lab.catalog.resolve import cached_path
from tokalign_lab.files import from_home

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
_MOST_IN_A_FOLDER = 200


@dataclass(frozen=True)
class Choice:
    """A model or tokenizer that `load_vocabulary` loads by name.

    Attributes
    ----------
    name : a catalogue name, a hub id or a path
    kind : "model" (with its tokenizer) or "tokenizer"
    where : "packaged", "hub cache", "hub" or "folder"
    here : whether it is on this machine
    size_bytes : bytes to fetch; 0 if it is here
    description, licence : for display; empty if unknown
    """

    name: str
    kind: str
    where: str
    here: bool
    size_bytes: int = 0
    description: str = ""
    licence: str = ""


def choices(folders: Sequence[Path | str] = ()) -> list[Choice]:
    """Return all choices: packaged, in the hub's cache, in these folders, and in their subfolders named `model`."""
    found = [_packaged(asset) for asset in assets() if asset.kind in ("model", "tokenizer")]
    return [*found, *_hub_cached(), *_in_folders(folders)]


def where_from(name: str) -> Choice:
    """Return the choice for a typed name; an unknown name is assumed to be a hub id."""
    if is_known(name):
        return _packaged(find(name))
    path = from_home(name)
    if path.exists():
        return Choice(name, _kind(path), "folder", True)
    cached = {choice.name: choice for choice in _hub_cached()}
    return cached.get(name, Choice(name, "tokenizer", "hub", False))


def _packaged(asset: Asset) -> Choice:
    here = cached_path(asset.name) is not None
    to_fetch = 0 if here else asset.size_bytes
    return Choice(asset.name, asset.kind, "packaged", here, to_fetch, asset.description, asset.licence)


def _hub_cached() -> Iterator[Choice]:
    from huggingface_hub import constants

    for folder in _sorted(Path(constants.HF_HUB_CACHE), "models--*"):
        for snapshot in _sorted(folder / "snapshots", "*"):
            if _has_tokenizer(snapshot):
                name = folder.name.removeprefix("models--").replace("--", "/")
                yield Choice(name, _kind(snapshot), "hub cache", True)
                break


def _in_folders(folders: Iterable[Path | str]) -> Iterator[Choice]:
    for folder in folders:
        inside = _sorted(Path(folder), "*") + _sorted(Path(folder), "*/model")
        for path in [path for path in inside if path.is_dir() and _has_tokenizer(path)][:_MOST_IN_A_FOLDER]:
            yield Choice(str(path), _kind(path), "folder", True)


def _kind(folder: Path) -> str:
    weights = (folder / "config.json").is_file() and any(_sorted(folder, pattern) for pattern in _WEIGHTS)
    return "model" if weights else "tokenizer"


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in _TOKENIZER_FILES)


def _sorted(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:  # no permission to read: nothing to choose
        return []
