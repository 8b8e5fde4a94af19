"""Documents as token ids on disk.

Ids are in one flat memory-mapped file with an offset per document, so that windows stay inside documents and a corpus
may be larger than memory. A tokenised corpus is cached under the hash of its text and its tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.documents import Document, text_hash
from tokalign_lab.errors import InputError
from tokalign_lab.files import cache_folder, cached_folder, hash_of, write_json
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.token_table import VERSION

if TYPE_CHECKING:
    from tokalign_lab.vocabulary import Vocabulary

_BATCH_BYTES = 4_000_000  # text that is encoded and then written


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as the ids of one vocabulary.

    Attributes
    ----------
    ids : shape (n_tokens,), int32, memory-mapped: all documents, one after the other
    offsets : shape (n_documents + 1,), int64: document i is `ids[offsets[i]:offsets[i + 1]]`
    byte_lengths : shape (n_documents,), int64: UTF-8 bytes of each document
    vocabulary_fingerprint, reading : hashes of the tokenizer, and of how it cuts text (see `Vocabulary`)
    text_hash : hash of the text
    """

    ids: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    byte_lengths: np.ndarray[Any, Any]
    vocabulary_fingerprint: str
    text_hash: str
    reading: str = ""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, document: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        return self.ids[self.offsets[document] : self.offsets[document + 1]]

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of the whole text."""
        return int(self.byte_lengths.sum())

    @property
    def document_of(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Index of each token's document, int64 (n_tokens,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def counts(self, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Count how often each id occurs in the text: shape (size,), int64."""
        return np.bincount(self.ids, minlength=size).astype(np.int64)

    @classmethod
    def build(cls, documents: Sequence[Document], vocabulary: Vocabulary, progress: Progress = silent) -> Corpus:
        """Tokenise documents in parallel, or load the result from the cache. Raises InputError if there are none."""
        if not documents:
            raise InputError("There is no text to tokenise; give at least one document.")
        hashed = text_hash(documents)
        parts = [hashed, vocabulary.fingerprint, vocabulary.reading, str(VERSION)]
        key = hash_of(item.encode() for item in parts)

        def write(temporary: Path) -> None:
            lengths = np.array([len(d.text.encode("utf-8", "surrogatepass")) for d in documents], np.int64)
            offsets = np.zeros(len(documents) + 1, np.int64)
            with open(temporary / "ids.i32", "wb") as file:
                for first, encoded in _encode(documents, vocabulary, lengths, progress):
                    for place, ids in enumerate(encoded, start=first):
                        file.write(np.asarray(ids, "<i4").tobytes())
                        offsets[place + 1] = offsets[place] + len(ids)
            np.save(temporary / "offsets.npy", offsets)
            np.save(temporary / "byte_lengths.npy", lengths)
            of_vocabulary = {"vocabulary_fingerprint": vocabulary.fingerprint, "reading": vocabulary.reading}
            write_json(temporary / "corpus.json", {**of_vocabulary, "text_hash": hashed, "name": vocabulary.name})

        return cls.load(cached_folder(cache_folder() / "corpora" / key[:32], write))

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Open a corpus that `build` wrote, without reading the ids into memory. Raises InputError if there is none."""
        if not (folder / "corpus.json").is_file():
            raise InputError(f"There is no tokenised corpus in '{folder}'; build one with Corpus.build.")
        meta = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        offsets = np.load(folder / "offsets.npy")
        # NumPy cannot memory-map an empty file
        ids = np.memmap(folder / "ids.i32", np.int32, "r") if offsets[-1] else np.zeros(0, np.int32)
        lengths = np.load(folder / "byte_lengths.npy")
        return cls(ids, offsets, lengths, meta["vocabulary_fingerprint"], meta["text_hash"], meta.get("reading", ""))


@dataclass(frozen=True)
class TokenizedPair:
    """One text in two tokenisations, the input of alignment.

    `source_corpus[i]` and `target_corpus[i]` are the ids of `documents[i]`.
    """

    source: Vocabulary
    target: Vocabulary
    source_corpus: Corpus
    target_corpus: Corpus
    documents: list[Document]


def tokenize_pair(
    source: Vocabulary, target: Vocabulary, documents: Sequence[Document], progress: Progress = silent
) -> TokenizedPair:
    """Tokenise a text with both vocabularies, or load the result from the cache.

    Raises InputError if there are no documents, or only the tokens of a vocabulary are stored (`has_tokenizer`).
    """
    return TokenizedPair(
        source=source,
        target=target,
        source_corpus=Corpus.build(documents, source, progress=part(progress, 0.0, 0.5)),
        target_corpus=Corpus.build(documents, target, progress=part(progress, 0.5, 1.0)),
        documents=list(documents),
    )


def _encode(
    documents: Sequence[Document], vocabulary: Vocabulary, lengths: np.ndarray[Any, Any], progress: Progress
) -> Iterator[tuple[int, list[np.ndarray[Any, Any]]]]:
    ends = np.cumsum(lengths)
    first = 0
    while first < len(documents):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BATCH_BYTES)))
        progress(done / max(1, int(ends[-1])), f"tokenising with {vocabulary.name}")
        yield first, vocabulary.encode([document.text for document in documents[first:last]])
        first = last
