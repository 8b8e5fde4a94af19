"""The lab's own text: something real and multilingual, with code, on any machine and without a hub.

Three sources, most of it already on the disk: the declaration of human rights in 27 languages (in the repository;
surely in every model's training data, so only ever trained on), prose and code of packages that the environment
holds, and interface texts of Home Assistant in 13 languages. A document is a file, a README or a component; train and
held-out parts are disjoint by package and by component. The same environment gives the same bytes.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tokalign_lab.catalog import homeassistant
from tokalign_lab.progress import Progress

_log = logging.getLogger("tokalign_lab")

_REVISION = "1"  # of the selection below; part of the cache key
_INTERFACE_BYTES = 6_000_000
_FILE_BYTES = (1_000, 60_000)  # smaller files say little, larger ones are mostly tables
_LEAST_PROSE = 200
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "_vendor",
        "_vendored",
        "conftest",
        "ensurepip",
        "externals",
        "extern",
        "idlelib",
        "lib2to3",
        "site-packages",
        "test",
        "testing",
        "tests",
        "third_party",
        "tkinter",
        "turtledemo",
        "vendored",
    }
)


@dataclass(frozen=True)
class Source:
    """A package whose texts are used: its import name, its distribution, and how many bytes of each kind to take."""

    package: str
    distribution: str
    prose_bytes: int
    code_bytes: int
    split: str = "train"


SOURCES: tuple[Source, ...] = (
    Source("stdlib", "", 500_000, 480_000),
    Source("numpy", "numpy", 380_000, 250_000),
    Source("scipy", "scipy", 500_000, 280_000),
    Source("pandas", "pandas", 430_000, 250_000),
    Source("sklearn", "scikit-learn", 480_000, 230_000),
    Source("torch", "torch", 480_000, 250_000),
    Source("transformers", "transformers", 280_000, 300_000),
    Source("datasets", "datasets", 180_000, 140_000),
    Source("gensim", "gensim", 230_000, 120_000),
    Source("umap", "umap-learn", 60_000, 90_000),
    Source("sympy", "sympy", 380_000, 200_000),
    Source("huggingface_hub", "huggingface-hub", 180_000, 100_000),
    Source("sentence_transformers", "sentence-transformers", 130_000, 80_000),
    Source("IPython", "ipython", 110_000, 80_000),
    Source("accelerate", "accelerate", 80_000, 60_000),
    Source("pyarrow", "pyarrow", 80_000, 50_000),
    Source("requests", "requests", 20_000, 30_000),
    Source("typer", "typer", 40_000, 30_000),
    Source("rich", "rich", 40_000, 40_000),
    # Wholly held out: one large package with both kinds, and small ones of other authors.
    Source("networkx", "networkx", 180_000, 110_000, "held_out"),
    Source("jinja2", "jinja2", 40_000, 40_000, "held_out"),
    Source("tqdm", "tqdm", 70_000, 30_000, "held_out"),
)


def default_documents(interface: Sequence[dict[str, str]], progress: Progress | None = None) -> list[dict[str, str]]:
    """Put the default text together.

    Parameters
    ----------
    interface : sequence of dict
        Documents of `homeassistant.documents`; about 6 MB of them are used.
    progress : Progress, optional
        Called with each package.

    Returns
    -------
    list of dict
        Keys text, name, group, slice ("prose", "code" or a language code) and split ("train" or "held_out").
    """
    documents = list(udhr_documents())
    seen: set[bytes] = set()
    for position, source in enumerate(SOURCES):
        if progress is not None:
            progress(position / len(SOURCES), f"text of {source.package}")
        documents += package_documents(source, seen)
    return documents + homeassistant.limit(interface, _INTERFACE_BYTES)


def udhr_documents() -> Iterator[dict[str, str]]:
    """Yield the declaration of human rights, one document a language, all of it for training."""
    packed = (files("tokalign_lab") / "data" / "udhr.jsonl.gz").read_bytes()
    for line in gzip.decompress(packed).decode().splitlines():
        yield json.loads(line)


def package_documents(source: Source, seen: set[bytes]) -> list[dict[str, str]]:
    """Take prose (README and docstrings) and code from one installed package.

    A file gives either its code or its docstrings, never both. Files are chosen in the order of the hash of their
    path, which spreads the choice over the package, until the amount is reached.

    Parameters
    ----------
    source : Source
        The package and the amounts.
    seen : set of bytes
        Hashes of texts already taken; extended here.

    Returns
    -------
    list of dict
        Documents in the order of their names; empty when the package is not installed (which is logged).
    """
    root = _root_of(source.package)
    if root is None:
        _log.info("The default text leaves out %s, which is not installed here", source.package)
        return []
    documents: list[dict[str, str]] = []
    taken = {"prose": 0, "code": 0}
    wanted = {"prose": source.prose_bytes, "code": source.code_bytes}

    def take(text: str, name: str, kind: str) -> None:
        key = hashlib.sha256(text.encode()).digest()
        if key not in seen and taken[kind] + len(text.encode()) <= wanted[kind]:
            seen.add(key)
            taken[kind] += len(text.encode())
            row = {"text": text, "name": f"{source.package}/{name}", "group": source.package}
            documents.append(row | {"slice": kind, "split": source.split})

    readme = _readme(source.distribution)
    if len(readme) >= _LEAST_PROSE:
        take(readme, "README", "prose")
    for path, digest in _files_of(root):
        kind = "code" if digest[-1] % 3 == 0 else "prose"
        if taken[kind] >= 0.99 * wanted[kind]:
            continue
        content = _read(path)
        text = content if kind == "code" else "\n\n".join(_docstrings(content, seen))
        if len(text) >= _LEAST_PROSE:
            take(text, path.relative_to(root).as_posix(), kind)
    return sorted(documents, key=lambda row: row["name"])


def environment_key() -> str:
    """Short hash of what the default text is made from: this Python's and the packages' versions."""
    versions = [_REVISION, sys.version.split()[0]]
    for source in SOURCES[1:]:
        try:
            versions.append(f"{source.distribution} {importlib.metadata.version(source.distribution)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{source.distribution} -")
    return hashlib.sha256("\n".join(versions).encode()).hexdigest()[:12]


def write_jsonl(documents: Iterable[dict[str, str]], path: Path) -> None:
    """Write documents as UTF-8 JSON lines."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            file.write(json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n")


def _root_of(package: str) -> Path | None:
    if package == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _files_of(root: Path) -> list[tuple[Path, bytes]]:
    """Python files below `root` with the hash of their relative path, in the order of that hash."""
    found: list[tuple[Path, bytes]] = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not _SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) or relative.name.startswith("test_"):
            continue
        if _FILE_BYTES[0] <= path.stat().st_size <= _FILE_BYTES[1]:
            found.append((path, hashlib.sha256(relative.as_posix().encode()).digest()))
    return sorted(found, key=lambda pair: pair[1])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:  # a few old files are Latin-1
        return ""


def _docstrings(content: str, seen: set[bytes]) -> Iterator[str]:
    """Yield the docstrings of a module, outermost first, each only if no file before had it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(content)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
            key = hashlib.sha256(text.encode("utf-8", "replace")).digest()
            if text and key not in seen:
                seen.add(key)
                yield text.encode("utf-8", "replace").decode()


def _readme(distribution: str) -> str:
    if not distribution:
        return ""
    try:
        return str(importlib.metadata.metadata(distribution).json.get("description", "")).strip()
    except importlib.metadata.PackageNotFoundError:
        return ""
