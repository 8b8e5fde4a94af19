"""The texts in this package's `data` folder: the Universal Declaration of Human Rights, and the default text.

The default text has the same bytes on every machine (docs/decisions/0017-one-default-text.md). It has three parts: the
declaration in 27 languages (train part only, since it is surely in every model's training data), prose and code of 22
Python packages, and interface texts of Home Assistant in 13 languages. `scripts/build_default_text.py` made the last
two. Train and held-out parts are disjoint by package and by component.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path


def udhr_documents() -> Iterator[dict[str, str]]:
    """Yield the declaration, one document per language, all in the train part.

    The keys are text, name, group, slice (language code) and split, as in every text of the catalogue.
    """
    packed = (files("tokalign_lab") / "data" / "udhr.jsonl.gz").read_bytes()
    for line in gzip.decompress(packed).decode().splitlines():
        yield json.loads(line)


def write_default_text(path: Path) -> None:
    """Write the default text as JSON lines; slices are "prose", "code" and language codes."""
    write_jsonl(udhr_documents(), path)
    packed = files("tokalign_lab") / "data" / "default_text.tar.xz"
    with packed.open("rb") as file, tarfile.open(fileobj=file, mode="r:xz") as archive, open(path, "ab") as target:
        documents = archive.extractfile("documents.jsonl")
        assert documents is not None
        target.writelines(documents)


def write_jsonl(documents: Iterable[dict[str, str]], path: Path) -> None:
    """Write documents as UTF-8 JSON lines."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            file.write(json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n")
