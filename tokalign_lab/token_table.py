"""What a tokenizer says of each of its ids, as plain arrays that can be kept in a file.

Reading this off a tokenizer of a quarter of a million tokens takes seconds, and transformers has to be imported for
it; reading it back takes a fraction of one. Most of what people look at (labels, overlap, scripts, a lexicon's table)
needs no more than this.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Sequence
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
VERSION = 1  # raise it when the same tokenizer is read otherwise, or the file changes
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
    """

    raw: tuple[str | None, ...]
    token_bytes: tuple[bytes | None, ...]
    is_control: np.ndarray[Any, np.dtype[np.bool_]]
    is_byte_fallback: np.ndarray[Any, np.dtype[np.bool_]]
    roles: dict[str, int]
    kind: str
    algorithm: str
    fingerprint: str

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
        )

    def save(self, path: Path) -> None:
        """Write one `.npz` file."""
        said = {name: getattr(self, name) for name in ("roles", "kind", "algorithm", "fingerprint")}
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
        Ids of added tokens, which are matched in the text as they are written.
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
        elif token_id in literal:
            spelled.append(written.encode())
        else:
            fallback[token_id] = spelling.is_byte_fallback(written)
            spelled.append(spelling.bytes_of(written))
    return tuple(spelled), fallback


def encode_plainly(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Tokenise texts in parallel, int32 ids, adding no special tokens and reading none into the text."""
    backend = tokenizer.backend_tokenizer
    before = backend.encode_special_tokens
    # A text that spells "</s>" is text about tokenizers, not the end of a document.
    backend.encode_special_tokens = True
    try:
        encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
    finally:
        backend.encode_special_tokens = before


def _packed(name: str, tokens: list[bytes | None] | tuple[bytes | None, ...]) -> dict[str, np.ndarray[Any, Any]]:
    """All bytes in a row, and the length of each token; -1 for None."""
    lengths = np.array([-1 if token is None else len(token) for token in tokens], dtype=np.int32)
    joined = b"".join(token for token in tokens if token is not None)
    return {f"{name}_lengths": lengths, f"{name}_joined": np.frombuffer(joined, dtype=np.uint8)}


def _unpacked(name: str, arrays: Any) -> list[bytes | None]:
    lengths, joined = arrays[f"{name}_lengths"], arrays[f"{name}_joined"].tobytes()
    ends = np.cumsum(np.maximum(lengths, 0)).tolist()
    return [None if n < 0 else joined[end - n : end] for n, end in zip(lengths.tolist(), ends, strict=True)]
