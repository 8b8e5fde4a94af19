"""Text as documents: read, split by whole groups, and sample with the proportions of the slices.

A document has a name, a group (its package, its book, its component) and a slice (prose, code, a language). With at
least 20 groups, train and held-out parts share no group. Documents are never joined.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.errors import InputError, first_line, plain_read_errors
from tokalign_lab.files import from_home, hash_of

if TYPE_CHECKING:
    from tokalign_lab.settings.kinds import TextSettings

CODE_SUFFIXES = frozenset(
    {".c", ".cc", ".cpp", ".cs", ".css", ".go", ".h", ".hpp", ".html", ".java", ".js", ".json", ".jsx", ".kt", ".php"}
    | {".pl", ".py", ".r", ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".toml", ".ts", ".tsx", ".yaml", ".yml"}
)
TEXT_SUFFIXES = frozenset({".txt", ".md", ".rst", ".tex", ".csv"}) | CODE_SUFFIXES
_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_COMPRESSED_SUFFIXES = frozenset({".gz", ".zip", ".bz2", ".xz", ".zst"})
HUB_BYTES = 50_000_000
"""UTF-8 bytes read from a hub data set if no `max_bytes` is given: a stream may be endless."""
_FEW_GROUPS = 20  # with fewer, whole groups would be far more than the held-out share
_SHORT_CHARACTERS = 200
_PART = re.compile("(train)|val|dev|test|eval|held")  # how data sets name the parts, such as "dev" or "train_sft"
_MOST_NULS = 0.01  # share of NUL characters; UTF-16 read as UTF-8 has more, at least those of its spaces


@dataclass(frozen=True)
class Document:
    """One text that is never joined to another.

    Attributes
    ----------
    text : the text
    name : its source, such as a file's name and a line's number
    group : documents that the split keeps together (see `split_documents`)
    slice : "prose", "code" or a language code; scores are also reported by slice
    split : "train" or "held_out" if the source specifies it
    """

    text: str
    name: str
    group: str
    slice: str = "prose"
    split: str | None = None


def read_documents(
    sources: str | Path | Sequence[str | Path], max_bytes: int | None = None, seed: int = 0
) -> list[Document]:
    """Read documents from texts of any supported kind.

    Raises `InputError` if no source is given; if one is missing, damaged, compressed, without text or not UTF-8; if the
    split of a document is unknown; or if `max_bytes` is not positive.

    Parameters
    ----------
    sources : str, Path or a sequence of these
        Each is a catalogue name (`default`), a text or code file (one document), a `.jsonl` or `.ndjson` file (field
        `text`; `name`, `group`, `slice` and `split` are optional), a `.parquet` file (column `text`), a folder
        (all such files below it), or `hub:org/name[:config[:split]]` (streamed). A null `text` is left out.
    max_bytes : int, optional
        Take at most this many UTF-8 bytes: a seeded sample of whole documents that keeps the proportions of slices
        and splits (the beginning of one document if no document of a slice is short enough).
    seed : int
        Seed of that sample.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    if not sources:
        raise InputError("No text was given; name a file, a folder, a data set or 'default'.")
    if max_bytes is not None and max_bytes <= 0:
        raise InputError(f"max_bytes is {max_bytes}; give a positive number of bytes, or none for the whole text.")
    documents: list[Document] = []
    for source in sources:
        found = list(_read_source(str(source), max_bytes))
        if not any(document.text.strip() for document in found):
            raise InputError(f"The text '{source}' is empty; give a text with some words in it.")
        documents += [document for document in found if document.text]
    return documents if max_bytes is None else _sample(documents, max_bytes, seed)


def check_sources(sources: Sequence[str | Path]) -> None:
    """Check that texts exist, without reading them or accessing the hub. Raises InputError if one does not exist."""
    for source in sources:
        if not str(source).startswith("hub:"):
            _locate(str(source))


def read_parts(
    settings: TextSettings, needed: Sequence[str] = ("train", "held_out")
) -> tuple[list[Document], list[Document]]:
    """Read the text that settings name; return its train and held-out parts.

    Raises as `read_documents` and `split_documents`.
    """
    documents = read_documents(settings.text, settings.max_bytes, settings.seed)
    return split_documents(documents, settings.held_out_share, settings.seed, needed)


def split_documents(
    documents: Sequence[Document],
    held_out_share: float = 0.05,
    seed: int = 0,
    needed: Sequence[str] = ("train", "held_out"),
) -> tuple[list[Document], list[Document]]:
    """Split into a train part and a held-out part.

    Documents with a `split` go to that part. The others are held out by whole groups, drawn by seed; a held-out copy of
    a train document is dropped. With fewer than 20 groups, the last share of each document (cut at a nearby line end or
    space) is held out. Raises `InputError` if the share is not between 0 and 1, or one of the `needed` parts would be
    empty.
    """
    if not 0 < held_out_share < 1:
        raise InputError(f"The held-out share is {held_out_share}; give a number between 0 and 1, such as 0.05.")
    train = [document for document in documents if document.split == "train"]
    held_out = [document for document in documents if document.split == "held_out"]
    free = [document for document in documents if document.split is None]
    groups = sorted({document.group for document in free})
    if len(groups) < _FEW_GROUPS:
        for document in free:
            head, tail = _cut(document, held_out_share)
            train += [head] if head.text else []
            held_out += [tail] if tail.text else []
    else:
        drawn = np.random.default_rng(seed).permutation(len(groups))[: max(1, round(held_out_share * len(groups)))]
        held = {groups[i] for i in drawn}
        train += [document for document in free if document.group not in held]
        known = {document.text for document in train}  # a copy in another group would be scored after it was read
        held_out += [document for document in free if document.group in held and document.text not in known]
    for name, found in (("train", train), ("held_out", held_out)):
        if name in needed and not found:
            if name == "held_out" and len(groups) >= _FEW_GROUPS:
                raise InputError("Every held-out document is also in the train part; remove the copies from the text.")
            if free or not documents:
                raise InputError("The text is too short to hold a part of it out; give more than a few lines.")
            raise InputError(f"No document of the text is in the split '{name}'; give text for that split too.")
    return train, held_out


def excerpts(documents: Sequence[Document], max_bytes: int, longest: int = 2_000, seed: int = 0) -> list[Document]:
    """Sample passages of about `max_bytes` UTF-8 bytes in total, in the proportions of the slices, for measurements.

    A passage has at most `longest` characters and ends at a line end in its second half, if there is one.
    """
    passages = []
    for document in documents:
        start = 0
        while start < len(document.text):
            end = min(start + longest, len(document.text))
            if end < len(document.text):
                end = document.text.rfind("\n", start + longest // 2, end) + 1 or end
            passages.append(replace(document, text=document.text[start:end], name=f"{document.name}@{start}"))
            start = end
    return _sample(passages, max_bytes, seed)


def text_hash(documents: Sequence[Document]) -> str:
    """SHA-256 of the documents' texts in order, as hex."""
    return hash_of(document.text.encode("utf-8", "surrogatepass") for document in documents)


def n_bytes(documents: Sequence[Document]) -> int:
    """UTF-8 bytes of all documents."""
    return sum(len(document.text.encode("utf-8", "surrogatepass")) for document in documents)


def _locate(source: str) -> Path:
    """Return the file or folder of a source; a catalogue text is fetched if no file has that name."""
    from tokalign_lab import catalog

    if not source:  # the path "" is the current folder
        raise InputError("The name of a text is empty; name a file, a folder, a data set or 'default'.")
    path = from_home(source)
    if not path.exists() and catalog.is_known(source) and catalog.find(source).kind == "text":
        path = catalog.get(source)
    if not path.exists():
        raise InputError(f"There is no text '{source}'; give a file, a folder, 'default', or hub:org/name.")
    return path


def _read_source(source: str, max_bytes: int | None) -> Iterator[Document]:
    if source.startswith("hub:"):
        yield from _read_hub(source.removeprefix("hub:"), max_bytes or HUB_BYTES)
        return
    path = _locate(source)
    if path.is_dir():
        below = sorted(path.rglob("*"))
        files = [file for file in below if file.is_file()]
        saved = next(
            (file.parent for file in files if file.name == "state.json" and any(file.parent.glob("*.arrow"))), None
        )
        if saved is not None:  # its JSON files describe the data set
            raise InputError(
                f"'{saved}' is a data set that `save_to_disk` wrote, which is not read; write it as Parquet: "
                "datasets.load_from_disk(...).to_parquet('text.parquet')."
            )
        _check_unread(path, below)
        files = [file for file in files if _readable(file.relative_to(path))]
        if not files:
            raise InputError(f"The folder '{path}' holds no text, JSONL or Parquet file; name another.")
        for file in files:
            yield from _read_file(file, name=file.relative_to(path).as_posix())
    else:
        if path.suffix.lower() in _COMPRESSED_SUFFIXES:
            raise InputError(f"'{path}' is compressed; unpack it first.")
        yield from _read_file(path, name=path.name)


def _check_unread(folder: Path, below: Sequence[Path]) -> None:
    """Refuse compressed texts, and links to folders elsewhere, among the entries below a folder: neither is read."""
    shown = [entry for entry in below if not _hidden(entry.relative_to(folder))]
    compressed = [x for x in shown if x.suffix.lower() in _COMPRESSED_SUFFIXES]
    packed = [x for x in compressed if "." not in x.stem or _readable(Path(x.stem))]  # wiki.gz, c4.json.gz
    if packed:
        raise InputError(
            f"'{folder}' holds compressed texts ({len(packed)}), such as '{packed[0]}'; unpack them first."
        )
    inside = folder.resolve()
    linked = [x for x in shown if x.is_symlink() and x.is_dir() and not x.resolve().is_relative_to(inside)]
    if linked:
        raise InputError(
            f"'{folder}' holds links to other folders ({len(linked)}), such as '{linked[0]}', which are not followed; "
            "remove them, and name those folders as texts too."
        )


def _hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def _readable(path: Path) -> bool:
    return not _hidden(path) and path.suffix.lower() in TEXT_SUFFIXES | {*_JSONL_SUFFIXES, ".parquet"}


def _read_file(path: Path, name: str) -> Iterator[Document]:
    suffix = path.suffix.lower()
    if suffix in _JSONL_SUFFIXES:
        yield from _read_jsonl(path, name)
    elif suffix == ".parquet":
        yield from _read_parquet(path, name)
    else:
        try:
            text = path.read_bytes().decode("utf-8-sig")  # read_text would turn CRLF into LF
        except UnicodeDecodeError as error:
            raise InputError(f"'{path}' is not UTF-8 text (byte {error.start}); convert it first.") from error
        if text.count("\0") > _MOST_NULS * len(text):
            raise InputError(f"'{path}' is not UTF-8 text: too many of its characters are NUL; convert it first.")
        yield Document(text, name, group=name, slice="code" if suffix in CODE_SUFFIXES else "prose")


def _read_jsonl(path: Path, name: str) -> Iterator[Document]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line.decode("utf-8-sig"))
                json.dumps(fields, ensure_ascii=False).encode("utf-8")
            except (UnicodeDecodeError, UnicodeEncodeError) as error:  # or a lone surrogate
                raise InputError(
                    f"'{path}' line {number} is not UTF-8 text ({error.reason}); convert it first."
                ) from error
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"'{path}' line {number} is no JSON ({first_line(error)}); each line must be an object."
                ) from error
            if not isinstance(fields, dict) or not isinstance(fields.get("text", 0), str | None):
                raise InputError(
                    f"'{path}' line {number} has no field 'text' with a string; rename the field that has it."
                )
            if fields["text"] is not None:
                yield _document(fields, f"{name}:{number}")


def _read_parquet(path: Path, name: str) -> Iterator[Document]:
    import pyarrow.parquet as pq

    with plain_read_errors(lambda reason: f"'{path}' is not a readable Parquet file ({reason}); write it again."):
        file = pq.ParquetFile(path)
        if "text" not in file.schema_arrow.names:
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"'{path}' has no column 'text' (it has {names}); rename the one that has it.")
        number = 0
        for batch in file.iter_batches(1_000):
            for fields in batch.to_pylist():
                number += 1
                if not isinstance(fields["text"], str | None):
                    raise InputError(
                        f"'{path}' row {number} has a {type(fields['text']).__name__} in the column 'text'; write a "
                        "string there, or rename the column that has it."
                    )
                if fields["text"] is not None:
                    yield _document(fields, f"{name}:{number}")


def _read_hub(spec: str, max_bytes: int) -> Iterator[Document]:
    """Stream a hub data set: `org/name`, `org/name:config` or `org/name:config:split`."""
    from datasets import load_dataset

    name, config, split = [*spec.split(":"), "", ""][:3]
    try:
        stream = load_dataset(name, config or None, split=split or "train", streaming=True)
        taken = 0
        for number, fields in enumerate(stream, start=1):
            if not isinstance(fields.get("text", 0), str | None):
                raise InputError(
                    f"The data set '{name}' has no column 'text' with strings (it has {', '.join(fields)})."
                )
            if fields["text"] is not None:
                yield _document({"text": fields["text"]}, f"{name}:{number}")
            taken += len((fields["text"] or "").encode("utf-8", "surrogatepass"))
            if taken >= max_bytes:
                return
    except InputError:
        raise
    except Exception as error:  # the hub's client raises many types
        raise InputError(
            f"The data set '{name}' could not be read from the hub ({first_line(error)}); "
            "check its name and the network."
        ) from error


def _document(fields: dict[str, Any], name: str) -> Document:
    stated = {field: fields.get(field) for field in ("name", "group", "slice", "split")}
    given = {field: str(value) for field, value in stated.items() if value not in (None, "")}  # a group may be 0
    part = _PART.match(given["split"].lower()) if "split" in given else None
    if "split" in given and part is None:
        raise InputError(f"The split of {name} is {given['split']!r}; name it 'train' or 'held_out', or leave it out.")
    return Document(
        text=fields["text"],
        name=given.get("name", name),
        group=given.get("group", given.get("name", name)),
        slice=given.get("slice", "prose"),
        split=None if part is None else "train" if part[1] else "held_out",
    )


def _sample(documents: list[Document], max_bytes: int, seed: int) -> list[Document]:
    lengths = np.array([len(document.text.encode("utf-8", "surrogatepass")) for document in documents])
    if lengths.sum() <= max_bytes:
        return documents
    strata: dict[tuple[str, str], list[int]] = {}
    for place, document in enumerate(documents):
        strata.setdefault((document.slice, document.split or ""), []).append(place)
    kept: dict[int, Document] = {}
    for (name, split), places in sorted(strata.items()):
        left = round(max_bytes * lengths[places].sum() / lengths.sum())
        own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}/{split}".encode()).digest()[:8], "little")
        drawn = [int(place) for place in np.random.default_rng(own_seed).permutation(places)]
        for place in drawn:
            if lengths[place] <= left:
                kept[place] = documents[place]
                left -= int(lengths[place])
        if not any(place in kept for place in drawn) and left:  # no document is short enough: the beginning of one
            start = documents[drawn[0]].text.encode("utf-8", "surrogatepass")[:left].decode("utf-8", "ignore")
            kept[drawn[0]] = replace(documents[drawn[0]], text=start)
    return [kept[place] for place in sorted(kept) if kept[place].text]


def _cut(document: Document, share: float) -> tuple[Document, Document]:
    """Split off about the last `share` of a document: at a line end, else at a space, else anywhere.

    The tail is half to twice the share; in a short document, up to 200 characters but not more than half.
    """
    text, size = document.text, len(document.text)
    wanted = max(1, round(size * share))
    most = max(2 * wanted, min(_SHORT_CHARACTERS, size // 2))
    at = goal = max(size - wanted, 0)
    for end in ("\n", " "):
        before = text.rfind(end, max(size - most, goal // 2, 1) - 1, goal) + 1
        after = text.find(end, goal, size - max(1, wanted // 2)) + 1
        if before or after:
            at = before or after
            break
    fields = {"name": document.name, "group": document.group, "slice": document.slice}
    return Document(text[:at], split="train", **fields), Document(text[at:], split="held_out", **fields)
