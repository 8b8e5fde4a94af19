"""Make tokalign_lab/data/default_text.tar.xz: prose, code and interface texts from pinned packages.

    TOKALIGN_WHEELS=FOLDER python scripts/build_default_text.py

FOLDER contains the wheel of Home Assistant that `tokalign_lab/catalog/assets.py` names. Prose and code are taken from
the packages in `SOURCES` and from the standard library, which must be installed in exactly these versions
(constraints.txt of the commit that added this file). Run it to change the default text. Its result is in the
repository, because torch and the standard library are in no small wheel (docs/decisions/0017-one-default-text.md).

A document is a file, a README or a component; train and held-out parts are disjoint by package and by component.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import platform
import sysconfig
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokalign_lab import catalog
from tokalign_lab.catalog import fetch, homeassistant

TARGET = Path(__file__).parent.parent / "tokalign_lab" / "data" / "default_text.tar.xz"
PYTHON = "3.11.7"
INTERFACE_BYTES = 6_000_000
FILE_BYTES = (1_000, 60_000)  # smaller files contain little text, larger ones are mostly tables
LEAST_PROSE = 200  # minimum length of prose, in characters
SKIPPED_FOLDERS = frozenset(
    [
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
    ]
)


@dataclass(frozen=True)
class Source:
    """A package whose texts are used: its import name, its distribution, and how many bytes of each kind to take."""

    package: str
    distribution: str
    version: str
    prose_bytes: int
    code_bytes: int
    split: str = "train"


SOURCES = (
    Source("stdlib", "", PYTHON, 500_000, 480_000),
    Source("numpy", "numpy", "2.4.6", 380_000, 250_000),
    Source("scipy", "scipy", "1.17.1", 500_000, 280_000),
    Source("pandas", "pandas", "3.1.1", 430_000, 250_000),
    Source("sklearn", "scikit-learn", "1.9.1", 480_000, 230_000),
    Source("torch", "torch", "2.13.0", 480_000, 250_000),
    Source("transformers", "transformers", "5.23.0", 280_000, 300_000),
    Source("datasets", "datasets", "5.2.0", 180_000, 140_000),
    Source("gensim", "gensim", "4.4.0", 230_000, 120_000),
    Source("umap", "umap-learn", "0.5.12", 60_000, 90_000),
    Source("sympy", "sympy", "1.14.0", 380_000, 200_000),
    Source("huggingface_hub", "huggingface-hub", "2.4.0", 180_000, 100_000),
    Source("sentence_transformers", "sentence-transformers", "6.2.0", 130_000, 80_000),
    Source("IPython", "ipython", "9.18.1", 110_000, 80_000),
    Source("accelerate", "accelerate", "1.15.0", 80_000, 60_000),
    Source("pyarrow", "pyarrow", "26.0.1", 80_000, 50_000),
    Source("requests", "requests", "2.34.2", 20_000, 30_000),
    Source("typer", "typer", "0.29.2", 40_000, 30_000),
    Source("rich", "rich", "15.0.0", 40_000, 40_000),
    # Held out completely: one large package with both kinds, and small packages of other authors.
    Source("networkx", "networkx", "3.6.1", 180_000, 110_000, "held_out"),
    Source("jinja2", "jinja2", "3.1.6", 40_000, 40_000, "held_out"),
    Source("tqdm", "tqdm", "4.70.1", 70_000, 30_000, "held_out"),
)


def is_installed(source: Source) -> bool:
    """Whether the package is installed in the pinned version; the build tag of torch (`+cpu`) does not matter."""
    if not source.distribution:
        return platform.python_version() == source.version
    try:
        return importlib.metadata.version(source.distribution).split("+")[0] == source.version
    except importlib.metadata.PackageNotFoundError:
        return False


def package_documents(source: Source, seen: set[bytes]) -> list[dict[str, str]]:
    """Take prose (README and docstrings) and code from one installed package, sorted by name.

    A file gives either its code or its docstrings. Files are chosen in the order of the hash of their path, which
    spreads the choice over the package, until the amount is reached. `seen` has the hashes of the texts already taken
    and is extended.
    """
    documents: list[dict[str, str]] = []
    taken = {"prose": 0, "code": 0}
    wanted = {"prose": source.prose_bytes, "code": source.code_bytes}

    def take(text: str, name: str, kind: str) -> None:
        key, size = hashlib.sha256(text.encode()).digest(), len(text.encode())
        if key not in seen and taken[kind] + size <= wanted[kind]:
            seen.add(key)
            taken[kind] += size
            row = {"text": text, "name": f"{source.package}/{name}", "group": source.package}
            documents.append(row | {"slice": kind, "split": source.split})

    root = root_of(source)
    if source.distribution:
        metadata = importlib.metadata.metadata(source.distribution).json
        readme = str(metadata.get("description", "")).strip()
        if len(readme) >= LEAST_PROSE:
            take(readme, "README", "prose")
    for path, digest in files_of(root):
        kind = "code" if digest[-1] % 3 == 0 else "prose"
        if taken[kind] >= 0.99 * wanted[kind]:
            continue
        content = read(path)
        text = content if kind == "code" else "\n\n".join(docstrings(content, seen))
        if len(text) >= LEAST_PROSE:
            take(text, path.relative_to(root).as_posix(), kind)
    return sorted(documents, key=lambda row: row["name"])


def root_of(source: Source) -> Path:
    """Return the folder of a package's modules."""
    if not source.distribution:
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(source.package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def files_of(root: Path) -> list[tuple[Path, bytes]]:
    """Return the Python files below `root` with the hash of their relative path, in the order of the hashes."""
    found: list[tuple[Path, bytes]] = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) or relative.name.startswith("test_"):
            continue
        if FILE_BYTES[0] <= path.stat().st_size <= FILE_BYTES[1]:
            found.append((path, hashlib.sha256(relative.as_posix().encode()).digest()))
    return sorted(found, key=lambda pair: pair[1])


def read(path: Path) -> str:
    """Read a file; "" if it is not UTF-8, because a few old files are Latin-1."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def docstrings(content: str, seen: set[bytes]) -> Iterator[str]:
    """Yield the docstrings of a module, outermost first, each only if no earlier file had it."""
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


def limit(documents: Sequence[dict[str, str]], max_bytes: int) -> list[dict[str, str]]:
    """Keep about `max_bytes`, divided between the languages as evenly as their amounts allow.

    Components are taken in the same fixed order in every language, so the texts stay parallel.
    """
    by_language: dict[str, list[dict[str, str]]] = {}
    for document in documents:
        by_language.setdefault(document["slice"], []).append(document)
    size = lambda document: len(document["text"].encode())  # noqa: E731
    sizes = {language: sum(map(size, part)) for language, part in by_language.items()}
    left, kept = max_bytes, []
    for position, language in enumerate(sorted(sizes, key=lambda code: (sizes[code], code))):
        share = left // (len(sizes) - position)
        taken = 0
        for document in sorted(by_language[language], key=lambda row: hashlib.sha256(row["group"].encode()).digest()):
            if taken + size(document) <= share:
                taken += size(document)
                kept.append(document)
        left -= taken
    return sorted(kept, key=lambda row: (row["slice"], row["group"]))


def licences(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the licence and notice files of every source by name."""
    yield "python/LICENSE.txt", (Path(sysconfig.get_path("stdlib")) / "LICENSE.txt").read_bytes()
    for source in SOURCES[1:]:
        for file in importlib.metadata.files(source.distribution) or ():
            folder, _, name = file.as_posix().partition(".dist-info/")
            name = name.removeprefix("licenses/")
            if folder and "/" not in name and name.upper().startswith(("LICEN", "COPYING", "NOTICE")):
                yield f"{source.distribution}/{name}", Path(str(file.locate())).read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if ".dist-info/" in member and Path(member).name.upper().startswith(("LICEN", "NOTICE")):
                yield f"homeassistant/{Path(member).name}", archive.read(member)


def main() -> None:
    """Write the archive: `documents.jsonl` and the licences, without time stamps or owners."""
    wrong = [source.package for source in SOURCES if not is_installed(source)]
    if wrong:
        raise SystemExit(f"These are not installed in the version that SOURCES pins: {', '.join(wrong)}.")
    seen: set[bytes] = set()
    documents = [document for source in SOURCES for document in package_documents(source, seen)]
    with fetch.wheels_of(catalog.find("homeassistant")) as wheels:
        wheel = wheels["homeassistant"]
        documents += limit(homeassistant.documents(wheel), INTERFACE_BYTES)
        lines = [json.dumps(document, ensure_ascii=False, sort_keys=True) + "\n" for document in documents]
        members = [("documents.jsonl", "".join(lines).encode()), *sorted(licences(wheel))]
    with tarfile.open(TARGET, "w:xz", preset=9) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name if name == "documents.jsonl" else f"licences/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB, {len(documents):,} documents")


if __name__ == "__main__":
    main()
