"""A tokenizer as byte strings and roles.

Two tokenizers write the same token differently: GPT-2's `Ġthe`, SentencePiece's `▁the` and WordPiece's `the` are all
the bytes of " the"; SentencePiece's `<0x0A>` and GPT-2's `Ċ` are both a newline. A comparison of strings, as in
TokAlign's `count_dict.py`, misses all of these (6.23 % of Gemma's vocabulary is found in Pythia's by string, 17.24 % by
bytes). Here a token is its bytes, and a special token is its role: bos, eos, pad, unk, or a control string such as
`<|im_start|>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.errors import InputError
from tokalign_lab.passages import passages_of
from tokalign_lab.spelling import visible
from tokalign_lab.token_table import ROLES, TokenTable, encode_plainly, plain_backend

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Source roles for a target's special token, best first: a model without bos (Qwen) separates texts with eos, and pad is
# never attended to, so any separator will do.
_ROLE_SUBSTITUTES = {
    "bos": ("bos", "eos"),
    "eos": ("eos", "bos"),
    "unk": ("unk", "pad", "eos"),
    "pad": ("pad", "eos"),
}

_ENCODE_BATCH_BYTES = 1_000_000  # keeps every core busy, and its encodings fit memory


class Vocabulary:
    """An immutable view of a fast Hugging Face tokenizer.

    Attributes
    ----------
    name : str
        The name it was loaded by: a catalogue name, a path or a hub id.
    size : int
        One more than the highest id of the tokenizer; rows of a model beyond it are padding.
    token_bytes : tuple[bytes | None, ...]
        Shape (size,): the bytes of each token in running text; None for control tokens and holes.
    is_control : np.ndarray
        Shape (size,), bool: special tokens, which have a role and are not text.
    is_hole : np.ndarray
        Shape (size,), bool: ids that no token has.
    is_byte_fallback : np.ndarray
        Shape (size,), bool: SentencePiece's `<0xNN>` tokens.
    roles : dict[str, int]
        "bos", "eos", "unk", "pad" -> id; a role that the tokenizer lacks is absent.
    kind : str
        How the tokenizer writes bytes, see `spelling.Spelling`.
    algorithm : str
        "BPE", "Unigram", "WordPiece" or "WordLevel".
    fingerprint : str
        SHA-256 of the tokens, which of them are control tokens, and the ids of a probe text; two tokenizers with the
        same fingerprint are the same for alignment, even from different files.
    reading : str
        SHA-256 of what decides the ids of a text: tokens with merges or scores, normalizer and pre-tokenizer. Two
        tokenizers with the same fingerprint may cut long numbers differently, for instance.
    """

    def __init__(self, table: TokenTable, tokenizer: Callable[[], PreTrainedTokenizerBase] | None, name: str) -> None:
        self._table = table
        self._make_tokenizer = tokenizer  # None: only the tokens are stored
        self.name = name
        self.size = len(table.raw)
        self.token_bytes = table.token_bytes
        self.is_control = table.is_control
        self.is_hole = np.array([token is None for token in table.raw])
        self.is_byte_fallback = table.is_byte_fallback
        self.roles = table.roles
        self.kind = table.spelling.kind
        self.algorithm = table.algorithm
        self.fingerprint = table.fingerprint
        self.reading = table.reading

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> Vocabulary:
        """Make a vocabulary called `name`. Raises InputError if the tokenizer has no fast version or no tokens."""
        return cls(TokenTable.of(tokenizer, name), lambda: tokenizer, name)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer is stored. Without it `encode`, `decode` and `spans` raise InputError."""
        return self._make_tokenizer is not None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded on first use. Raises InputError if only the tokens are stored."""
        if self._make_tokenizer is None:
            raise InputError(
                f"Only the tokens of '{self.name}' are stored with this run, not its tokenizer, so no text can be "
                "tokenized; align the pair yourself to do that."
            )
        return self._make_tokenizer()

    def save_tokens(self, path: Path) -> None:
        """Write the tokens, without the tokenizer, to a file that `from_tokens` reads."""
        self._table.save(path)

    @classmethod
    def from_tokens(cls, path: Path, name: str) -> Vocabulary | None:
        """Return a vocabulary without its tokenizer; None if `path` is not a file that `save_tokens` wrote."""
        table = TokenTable.load(path)
        return None if table is None else cls(table, None, name)

    def __repr__(self) -> str:
        return f"Vocabulary({self.name!r}, size={self.size}, kind={self.kind!r})"

    @property
    def start_id(self) -> int | None:
        """The special token before a text: bos; eos if there is no bos (Qwen); pad or unk; None."""
        return next((self.roles[role] for role in ("bos", "eos", "pad", "unk") if role in self.roles), None)

    @property
    def start_ids(self) -> list[int]:
        """`start_id` in a list, empty if there is none."""
        return [] if self.start_id is None else [self.start_id]

    def check_rows(self, rows: int, role: str = "model", advice: str = "they do not belong together") -> None:
        """Raise `InputError` if a model has fewer rows than there are ids; the message calls the model `role`."""
        if rows < self.size:
            raise InputError(
                f"The {role} has {rows} rows, but its tokenizer '{self.name}' has ids up to {self.size - 1}; {advice}."
            )

    def raw_token(self, token_id: int) -> str:
        """Return the tokenizer's own string for an id, "" for a hole."""
        return self._table.raw[token_id] or ""

    def ends_word(self, token_id: int) -> bool:
        """Whether a token is marked as the end of a word (`the</w>`); False if the tokenizer has no such mark."""
        return self._table.spelling.ends_word(self.raw_token(token_id))

    def label(self, token_id: int) -> str:
        """Return a readable form: `␣the`, `↵`, `⇥`, `<E4 BD>` for part of a character; "" for a hole only."""
        token = self.token_bytes[token_id]
        return visible(token) if token else self.raw_token(token_id)

    @cached_property
    def _id_of_bytes(self) -> dict[bytes, int]:
        # If several ids spell the same bytes, a normal token comes before a byte-fallback token (which is used only if
        # no other fits), a whole word (`the</w>`) before a part of one (`the`), then the lowest id.
        found: dict[bytes, int] = {}
        ranked = sorted(range(self.size), key=lambda i: (bool(self.is_byte_fallback[i]), not self.ends_word(i), i))
        for token_id in ranked:
            token = self.token_bytes[token_id]
            if token is not None:
                found.setdefault(token, token_id)
        return found

    @cached_property
    def _id_of_raw(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self._table.raw) if token is not None}

    def id_of_raw(self, token: str) -> int | None:
        """Return the id with exactly this tokenizer string, or None."""
        return self._id_of_raw.get(token)

    def id_of_bytes(self, token: bytes) -> int | None:
        """Return the id that spells exactly these bytes (whole words first, byte-fallback ids last), or None."""
        return self._id_of_bytes.get(token)

    def id_of_token(self, other: Vocabulary, token_id: int) -> int | None:
        """Return the id of the token that equals a token of `other`: same bytes, and same marks if both use the marks.

        So `the` is `the` and not `the</w>`. But if `other` writes a byte with its byte-fallback token, and this
        vocabulary has another token for it, then it is that token: a model's rows of tokens that its tokenizer never
        writes are hardly trained. An example is the newline, `<0x0A>` in Llama's tokenizer and a token of its own in
        Gemma's. None for a control token, a hole, and a token that this vocabulary lacks.
        """
        spelled = other.token_bytes[token_id]
        if spelled is None:
            return None
        if self._table.spelling == other._table.spelling:
            same = self.id_of_raw(other.raw_token(token_id))
            written = other.id_of_bytes(spelled) == token_id
            if same is not None and self.token_bytes[same] == spelled and not (self.is_byte_fallback[same] and written):
                return same
        return self.id_of_bytes(spelled)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
        """Tokenise texts in parallel, without special tokens; return one int32 array of ids for each text.

        Special tokens in a text are read as text. Long texts are tokenised in passages (see `passages`).
        """
        encode = partial(encode_plainly, self.tokenizer)
        ids: list[list[np.ndarray[Any, np.dtype[np.int32]]]] = [[] for _ in texts]
        for batch in _batches((place, part) for place, text in enumerate(texts) for part in passages_of(text, encode)):
            for (place, _), encoded in zip(batch, encode([part for _, part in batch]), strict=True):
                ids[place].append(encoded)
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in ids]

    def decode(self, ids: Sequence[int] | np.ndarray[Any, Any]) -> str:
        """Convert ids to text, without control tokens."""
        control = frozenset(self._table.control)  # without byte tokens, which the tokenizer may call special
        return str(self.tokenizer.decode([i for i in map(int, ids) if i not in control], skip_special_tokens=False))

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """Tokenise one text and return (id, start, end) of each token: positions in `text.encode()`, in order.

        If the tokens' bytes are the text's bytes, the spans tile the text exactly, and may split characters. If a
        normaliser changed the text, the spans are the tokenizer's character offsets.
        """
        (ids,) = self.encode([text])
        data = text.encode()
        pieces = [self.token_bytes[i] or b"" for i in ids]
        joined = b"".join(pieces)
        start = 0
        if joined == b" " + data:
            start = -1  # SentencePiece's dummy prefix comes before the text
        elif joined not in (data, data + b" "):  # or its dummy suffix after it
            return self._spans_by_offsets(text)
        result = []
        for token_id, piece in zip(ids, pieces, strict=True):
            end = start + len(piece)
            result.append((int(token_id), min(max(start, 0), len(data)), min(max(end, 0), len(data))))
            start = end
        return result

    def _spans_by_offsets(self, text: str) -> list[tuple[int, int, int]]:
        with plain_backend(self.tokenizer) as backend:
            encoding = backend.encode(text, add_special_tokens=False)
        position = np.cumsum([0] + [len(character.encode()) for character in text])
        return [
            (token_id, int(position[start]), int(position[end]))
            for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]


@dataclass(frozen=True)
class Overlap:
    """The part of the target vocabulary that the source has.

    `target_size` is the number of target tokens. `raw_count` of them have a string that is in the source vocabulary
    (the papers' count). `bytes_count` have bytes that a source token has, or are control tokens with the same string.
    """

    target_size: int
    raw_count: int
    bytes_count: int

    @property
    def raw_share(self) -> float:
        """Share of the target vocabulary found by string, 0 to 1."""
        return self.raw_count / self.target_size

    @property
    def bytes_share(self) -> float:
        """Share of the target vocabulary found by bytes, 0 to 1."""
        return self.bytes_count / self.target_size


@dataclass(frozen=True)
class SharedTokens:
    """Tokens that both vocabularies have.

    `source_ids` and `target_ids` are int64 (n,), pairs in order of the target id; a source id may occur more than once.
    """

    source_ids: np.ndarray[Any, np.dtype[np.int64]]
    target_ids: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.target_ids)


def shared_tokens(source: Vocabulary, target: Vocabulary, by: str = "bytes") -> SharedTokens:
    """Find the target tokens that the source has.

    `by` is "bytes": the token's bytes, without control tokens (see `shared_roles`); "raw": the tokenizer's string, with
    control tokens, as the papers count; or "none": nothing is shared. Raises InputError for another `by`.
    """
    if by not in ("bytes", "raw", "none"):
        raise InputError(f"There is no overlap '{by}'; choose 'bytes', 'raw' or 'none'.")
    found: Iterable[int | None] = ()
    if by == "raw":
        holes = target.is_hole.tolist()
        found = (None if hole else source.id_of_raw(target.raw_token(i)) for i, hole in enumerate(holes))
    elif by == "bytes":
        found = (source.id_of_token(target, target_id) for target_id in range(target.size))
    pairs = [(target_id, source_id) for target_id, source_id in enumerate(found) if source_id is not None]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return SharedTokens(source_ids=table[:, 1].copy(), target_ids=table[:, 0].copy())


def shared_roles(source: Vocabulary, target: Vocabulary) -> dict[int, int]:
    """Match special tokens by role: target id -> source id.

    bos, eos, unk and pad match the source's token of that role, or of the nearest role it has; if one id has several
    roles, bos comes first and pad last. Other control tokens match if their strings are equal.
    """
    matched: dict[int, int] = {}
    for role in ROLES:
        held = (other for other in _ROLE_SUBSTITUTES[role] if other in source.roles)
        # a token of the text that is also this role comes last
        substitute = min(held, key=lambda other: not source.is_control[source.roles[other]], default=None)
        if role in target.roles and target.is_control[target.roles[role]] and substitute is not None:
            matched.setdefault(target.roles[role], source.roles[substitute])
    for target_id in np.flatnonzero(target.is_control):
        source_id = source.id_of_raw(target.raw_token(int(target_id)))
        if source_id is not None and source.is_control[source_id]:
            matched.setdefault(int(target_id), source_id)
    return matched


def overlap(source: Vocabulary, target: Vocabulary) -> Overlap:
    """Count the target tokens that the source has, by string and by bytes.

    In both counts, control tokens are shared if their strings are equal, so the counts differ only in how text is
    compared. Source: TokAlign table 5, whose "raw" figures this reproduces exactly.
    """
    raw = shared_tokens(source, target, by="raw")
    by_bytes = shared_tokens(source, target, by="bytes")
    control = int(target.is_control[raw.target_ids].sum())
    return Overlap(target_size=int((~target.is_hole).sum()), raw_count=len(raw), bytes_count=len(by_bytes) + control)


def _batches(passages: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    batch: list[tuple[int, str]] = []
    held = 0
    for place, passage in passages:
        if held > _ENCODE_BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append((place, passage))
        held += len(passage)
    yield batch
