"""What a tokenizer says of each of its ids, as plain arrays that can be kept in a file.

Reading this off a tokenizer of a quarter of a million tokens takes seconds, and transformers has to be imported for
it; reading it back takes a fraction of one. Most of what people look at (labels, overlap, scripts, a lexicon's table)
needs no more than this.
"""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_file, hash_of
from tokalign_lab.spelling import Spelling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("bos", "eos", "unk", "pad")
VERSION = 2  # raise it when the same tokenizer is read otherwise, or the file changes
MOST_HOLES = 1_000_000
"""How many ids without a token are read: no model has so many rows to spare."""
_PROBES = (
    "The café costs 12,345 €, naïve — isn't it?\n\tdef f(x):\n        return x  # ok\r\n",
    "Всё хорошо. 你好,世界。 こんにちは 안녕하세요 مرحبا नमस्ते ไทย 👩‍🚀  \n\n   end",
)


@dataclass(frozen=True)
class TokenTable:
    """The ids of one tokenizer; `Vocabulary` says what each field means.

    Attributes
    ----------
    raw : tuple[str | None, ...]
        Shape (size,): the tokenizer's own string; None for an id that no token has.
    token_bytes : tuple[bytes | None, ...]
        Shape (size,).
    is_control, is_byte_fallback : np.ndarray
        Shape (size,), bool.
    roles : dict[str, int]
        Role -> id.
    kind : str
        How the tokenizer writes bytes, see `spelling.Spelling`.
    algorithm : str
        "BPE", "Unigram", "WordPiece" or "WordLevel".
    fingerprint : str
        See `Vocabulary.fingerprint`.
    suffix : str
        The mark of a token that ends a word, see `spelling.Spelling`.
    """

    raw: tuple[str | None, ...]
    token_bytes: tuple[bytes | None, ...]
    is_control: np.ndarray[Any, np.dtype[np.bool_]]
    is_byte_fallback: np.ndarray[Any, np.dtype[np.bool_]]
    roles: dict[str, int]
    kind: str
    algorithm: str
    fingerprint: str
    suffix: str = ""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> TokenTable:
        """Read a fast tokenizer; `name` is for the error.

        Raises
        ------
        InputError
            If it has no fast version or no tokens.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"The tokenizer '{name}' has no fast version (tokenizer.json); convert it with transformers first."
            )
        tokens: dict[str, int] = tokenizer.get_vocab()
        if not tokens:
            raise InputError(f"The tokenizer '{name}' has an empty vocabulary; give a trained tokenizer.")
        check_ids(tokens, name)
        size = max(tokens.values()) + 1
        raw: list[str | None] = [None] * size
        for token, token_id in tokens.items():
            raw[token_id] = token

        added = tokenizer.added_tokens_decoder
        control = {token_id for token_id, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        is_control = np.zeros(size, dtype=bool)
        is_control[[token_id for token_id in control if token_id < size]] = True

        spelling = Spelling.of(json.loads(tokenizer.backend_tokenizer.to_str()))
        token_bytes, is_byte_fallback = bytes_of_tokens(raw, is_control, set(added), spelling)
        by_role = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ROLES}
        probe_ids = np.concatenate([*encode_plainly(tokenizer, _PROBES), np.zeros(0, np.int32)])
        return cls(
            raw=tuple(raw),
            token_bytes=token_bytes,
            is_control=is_control,
            is_byte_fallback=is_byte_fallback,
            roles={role: int(held) for role, held in by_role.items() if held is not None and held < size},
            kind=spelling.kind,
            algorithm=type(tokenizer.backend_tokenizer.model).__name__,
            fingerprint=hash_of(
                [
                    json.dumps(raw, ensure_ascii=False).encode("utf-8", "surrogatepass"),
                    is_control.tobytes(),
                    probe_ids.astype("<i4").tobytes(),
                ]
            ),
            suffix=spelling.suffix,
        )

    def save(self, path: Path) -> None:
        """Write one `.npz` file."""
        said = {name: getattr(self, name) for name in ("roles", "kind", "algorithm", "fingerprint", "suffix")}
        raw = [None if token is None else token.encode("utf-8", "surrogatepass") for token in self.raw]
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            arrays: dict[str, Any] = _packed("raw", raw) | _packed("bytes", self.token_bytes)
            arrays |= {"is_control": self.is_control, "is_byte_fallback": self.is_byte_fallback}
            np.savez(file, said=np.array(json.dumps(said)), **arrays)

    @classmethod
    def load(cls, path: Path) -> TokenTable | None:
        """Read what `save` wrote; None where there is no such file, or a broken one."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(
                    raw=tuple(
                        None if token is None else token.decode("utf-8", "surrogatepass")
                        for token in _unpacked("raw", arrays)
                    ),
                    token_bytes=tuple(_unpacked("bytes", arrays)),
                    is_control=arrays["is_control"],
                    is_byte_fallback=arrays["is_byte_fallback"],
                    **json.loads(str(arrays["said"])),
                )
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None


def bytes_of_tokens(
    raw: Sequence[str | None], is_control: np.ndarray[Any, Any], literal: Collection[int], spelling: Spelling
) -> tuple[tuple[bytes | None, ...], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Read the tokenizer's own strings as bytes.

    Parameters
    ----------
    raw
        The string of each id, None for a hole.
    is_control
        bool (size,), the ids that stand for a role.
    literal
        Ids of added tokens, which are matched in the text as they are written; SentencePiece writes a space in them
        as in all others (Gemma's runs of `▁`).
    spelling
        How the tokenizer writes bytes.

    Returns
    -------
    token_bytes, is_byte_fallback
        As the attributes of `TokenTable`.
    """
    spelled: list[bytes | None] = []
    fallback = np.zeros(len(raw), dtype=bool)
    for token_id, written in enumerate(raw):
        if written is None or is_control[token_id]:
            spelled.append(None)
        elif token_id in literal and spelling.kind != "sentencepiece":
            spelled.append(written.encode())
        else:
            fallback[token_id] = spelling.is_byte_fallback(written)
            spelled.append(spelling.bytes_of(written))
    return tuple(spelled), fallback


def check_ids(tokens: Mapping[Any, int], name: str) -> None:
    """Refuse a tokenizer whose highest id is far beyond its tokens: there is a row and an entry for each id below it.

    Raises
    ------
    InputError
        If more than `MOST_HOLES` ids have no token.
    """
    highest = max(tokens.values(), default=0)
    if highest >= len(tokens) + MOST_HOLES:
        raise InputError(
            f"The tokenizer '{name}' has {len(tokens):,} tokens and {highest:,} as its highest id, so most ids have no "
            "token; the file is damaged, or its tokens have to be numbered again."
        )


_reading = threading.RLock()  # a tokenizer's settings are its own, and two threads may read with one


@contextmanager
def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Iterator[Any]:
    """Yield the backend of a fast tokenizer with everything off that acts on more than the text.

    A tokenizer's file may store truncation, padding, BPE dropout and a post-processor, which are made for batches of
    prompts or for training. None of them may act when a text is read or scored. Special tokens that a text spells
    are read as text: "</s>" in a text is text about tokenizers, not the end of a document. The settings are put back
    at the end, so that the tokenizer is saved as it was.
    """
    backend: Any = tokenizer.backend_tokenizer
    model = backend.model
    with _reading:
        truncation, padding, post_processor = backend.truncation, backend.padding, backend.post_processor
        special, dropout = backend.encode_special_tokens, getattr(model, "dropout", None)
        backend.no_truncation()
        backend.no_padding()
        backend.post_processor = None
        backend.encode_special_tokens = True
        if dropout is not None:
            model.dropout = None
        try:
            yield backend
        finally:
            backend.encode_special_tokens = special
            backend.post_processor = post_processor
            if dropout is not None:
                model.dropout = dropout
            if truncation is not None:
                backend.enable_truncation(**truncation)
            if padding is not None:
                backend.enable_padding(**padding)


def encode_plainly(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Tokenise texts in parallel, int32 ids, by `plain_backend`."""
    with plain_backend(tokenizer) as backend:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def _packed(name: str, tokens: list[bytes | None] | tuple[bytes | None, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """All bytes in a row, and the length of each token; -1 for None."""
    lengths = np.array([-1 if token is None else len(token) for token in tokens], dtype=np.int32)
    joined = b"".join(token for token in tokens if token is not None)
    return {f"{name}_lengths": lengths, f"{name}_joined": np.frombuffer(joined, dtype=np.uint8)}


def _unpacked(name: str, arrays: Any) -> list[bytes | None]:
    lengths, joined = arrays[f"{name}_lengths"], arrays[f"{name}_joined"].tobytes()
    ends = np.cumsum(np.maximum(lengths, 0)).tolist()
    return [None if n < 0 else joined[end - n : end] for n, end in zip(lengths.tolist(), ends, strict=True)]
