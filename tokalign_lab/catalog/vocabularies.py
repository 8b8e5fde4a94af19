"""Load a `Vocabulary` by name; its token table is cached by the content of the tokenizer's files.

Reading Gemma 3's 262,144 tokens takes some seconds, mostly in transformers; the cached table takes a few tenths of a
second. The tokenizer itself is loaded on first use. Tokenizers of the hub and single files are not cached.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tokalign_lab.catalog.resolve import load_tokenizer, tokenizer_folder
from tokalign_lab.errors import DiskError, InputError
from tokalign_lab.files import CHECKSUMS, cache_folder, cached_folder, hash_of, sha256_of
from tokalign_lab.token_table import VERSION, TokenTable
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Weights do not affect a tokenizer, and hashing them would take longer than reading it.
_WEIGHTS = frozenset({".safetensors", ".bin", ".gguf", ".pt", ".pth", ".onnx", ".h5", ".msgpack"})


def load_vocabulary(name: str) -> Vocabulary:
    """Load the tokenizer called `name` (see `load_tokenizer`) as a `Vocabulary` with that name.

    Raises `InputError` if nothing of that name exists or it cannot be read.
    """
    folder = tokenizer_folder(name)
    if folder is None:
        return Vocabulary.from_tokenizer(load_tokenizer(name), name)
    key = _key(folder)
    made: list[Vocabulary] = []

    def read(temporary: Path) -> None:
        tokenizer = load_tokenizer(name)
        table = TokenTable.of(tokenizer, name)
        made.append(Vocabulary(table, lambda: tokenizer, name))
        table.save(temporary / "tokens.json.xz")

    try:
        kept = cached_folder(cache_folder() / "vocabularies" / key[:32], read)
        table = TokenTable.load(kept / "tokens.json.xz")
    except DiskError:  # without the cache, the next load is slow
        table = None
    if made:
        return made[0]
    if table is None:
        return Vocabulary.from_tokenizer(load_tokenizer(name), name)
    return Vocabulary(table, partial(_tokenizer_of, name, folder, key), name)


def _tokenizer_of(name: str, folder: Path, key: str) -> PreTrainedTokenizerBase:
    if _key(folder) != key:
        raise InputError(f"The tokenizer's files in {folder} have changed since '{name}' was loaded; load it again.")
    return load_tokenizer(name)


def _key(folder: Path) -> str:
    """Return a hash of the files that a tokenizer may be read from, and of the versions of the libraries."""
    found = (file for file in folder.iterdir() if file.is_file())
    files = sorted(file for file in found if file.suffix not in _WEIGHTS and file.name != CHECKSUMS)
    parts = [f"{package} {version(package)}" for package in ("transformers", "tokenizers")]
    parts += [f"table {VERSION}", *(f"{file.name} {sha256_of(file)}" for file in files)]
    return hash_of(part.encode() for part in parts)
