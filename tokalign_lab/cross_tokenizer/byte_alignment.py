"""Positions where tokens of two tokenizations of one text end at the same byte.

Two tokenizers split a text at different positions, but after some tokens both have read exactly the same bytes. At
these positions, the states and predictions of two models can be compared. `Tokens` has the end of each token of one
tokenization; `align` finds the positions that two tokenizations share.

Positions are counted in bytes of the text. A special token that both sides have (bos, eos) counts as one unit, so the
last token of a document and the eos after it have different positions. Tokens that write nothing have no position: the
`▁` that SentencePiece puts before a text, and special tokens that the other side does not have.

A tokenizer may change the text that it reads (NFC, lower case, runs of spaces). A token is faithful if its bytes are
those of the text. The end of an unfaithful token is not a shared position, and a chunk that contains one is not exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tokalign_lab.token_table import plain_backend
from tokalign_lab.vocabulary import Vocabulary

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Tokens:
    """One tokenization, with the part of the text that each token covers.

    Attributes
    ----------
    ids : int64 (n,)
    starts, ends : int64 (n,), ascending: positions in the text, in bytes (plus one for each earlier special token). If
        the tokenizer dropped part of the text, there is a gap between the end of a token and the start of the next.
    faithful : bool (n,): whether the token writes exactly the bytes from its start to its end
    length : the end of the text. If the tokenizer drops characters, the last token may end earlier.
    """

    ids: Ints
    starts: Ints
    ends: Ints
    faithful: Bools
    length: int

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """Concatenate the tokenizations of consecutive parts of a text."""
        shifts = np.cumsum([0, *(part.length for part in parts)])
        moved = list(zip(parts, shifts.tolist(), strict=False))
        none = np.zeros(0, np.int64)
        return cls(
            np.concatenate([none, *(part.ids for part in parts)]),
            np.concatenate([none, *(part.starts + shift for part, shift in moved)]),
            np.concatenate([none, *(part.ends + shift for part, shift in moved)]),
            np.concatenate([none.astype(bool), *(part.faithful for part in parts)]),
            int(shifts[-1]),
        )

    @property
    def whole(self) -> Bools:
        """Bool (n,): faithful tokens before which nothing was dropped."""
        return self.faithful & (self.starts == np.concatenate([[0], self.ends])[:-1])


@dataclass(frozen=True)
class ByteAlignment:
    """The shared positions of two tokenizations, in order.

    Attributes
    ----------
    pairs : int64 (n, 2): a token of the first and a token of the second that end at the same byte
    exact : bool (n,): whether the tokens of both between the pair before (or the beginning) and this one, the chunk of
        this pair, write the same bytes
    """

    pairs: Ints
    exact: Bools

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def chunks(self) -> Ints:
        """int64 (n, 2, 2): first token and the one after the last of each pair's chunk, by side: [chunk, side]."""
        ends = self.pairs + 1
        starts = np.concatenate([np.zeros((min(1, len(ends)), 2), np.int64), ends[:-1]])
        return np.stack([starts, ends], axis=2)


def align(first: Tokens, second: Tokens) -> ByteAlignment:
    """Find the positions where a token of each of two tokenizations ends; the pairs ascend in both columns."""
    positions = [np.flatnonzero((side.ends > side.starts) & side.faithful) for side in (first, second)]
    _, one, other = np.intersect1d(
        first.ends[positions[0]], second.ends[positions[1]], assume_unique=True, return_indices=True
    )
    pairs = np.stack([positions[0][one], positions[1][other]], axis=1).astype(np.int64)
    # unfaithful tokens up to and including each token; an exact chunk has none on either side
    exact = np.ones(len(pairs), dtype=bool)
    for column, side in enumerate((first, second)):
        so_far = np.cumsum(~side.whole)[pairs[:, column]]
        exact &= np.diff(so_far, prepend=0) == 0
    return ByteAlignment(pairs, exact)


def special(token_id: int, units: int) -> Tokens:
    """Return one special token of this many units; 0 if the other side has no such token."""
    place = np.zeros(1, np.int64)
    return Tokens(place + token_id, place, place + units, np.ones(1, dtype=bool), units)


def tokenize(text: str, vocabulary: Vocabulary) -> Tokens:
    """Tokenize a text without special tokens and find the byte where each token ends.

    If the tokens spell the text, all are faithful. If the tokenizer changed the text, its character offsets give the
    part of the text for each token, and the tokens that spell this part are faithful.

    Parameters
    ----------
    text : valid Unicode, without lone surrogates
    vocabulary : the tokenizer
    """
    if not text:
        return Tokens.joined([])
    (ids,) = vocabulary.encode([text])
    data = text.encode()
    spelled = [vocabulary.token_bytes[i] for i in ids.tolist()]
    lengths = np.array([len(token or b"") for token in spelled], dtype=np.int64)
    joined = b"".join(token or b"" for token in spelled)
    known = all(token is not None for token in spelled)
    if known and joined == data:
        return consecutive(ids.astype(np.int64), lengths)
    if known and joined == b" " + data:  # SentencePiece puts a space before the text
        lengths[0] -= 1
        return consecutive(ids.astype(np.int64), lengths)
    return _by_offsets(text, ids.astype(np.int64), spelled, vocabulary)


def consecutive(ids: Ints, lengths: Ints) -> Tokens:
    """Concatenate tokens with these numbers of bytes; int64 (n,) both."""
    ends = np.cumsum(lengths)
    return Tokens(ids, ends - lengths, ends, np.ones(len(ids), dtype=bool), int(ends[-1]) if len(ends) else 0)


def writes_space_first(vocabulary: Vocabulary) -> bool:
    """Return whether a tokenizer puts a space before a text."""
    (ids,) = vocabulary.encode(["a"])
    return b"".join(vocabulary.token_bytes[i] or b"" for i in ids.tolist()) == b" a"


def _by_offsets(text: str, ids: Ints, spelled: Sequence[bytes | None], vocabulary: Vocabulary) -> Tokens:
    """Locate the tokens of a tokenizer that changed the text by its character offsets."""
    with plain_backend(vocabulary.tokenizer) as backend:
        offsets = backend.encode(text, add_special_tokens=False).offsets
    data = text.encode()
    byte_of = np.cumsum([0] + [len(character.encode()) for character in text]).tolist()
    starts, ends, faithful, place = [], [], [], 0
    for piece, (first, last) in zip(spelled, offsets, strict=True):
        end, before = max(place, byte_of[last]), place
        place = min(max(place, byte_of[first]), end)
        # offsets of words leave out the space that the token writes before its word
        if (
            piece is not None
            and place > before
            and data[place - 1 : place] == b" " == piece[:1] != data[place : place + 1]
        ):
            place -= 1
        if piece is not None and not place and piece[:1] == b" " and data[:1] != b" ":
            piece = piece[1:]
        # if a token ends inside a character, its offset is only the character
        fits = piece is not None and place + len(piece) <= end and data.startswith(piece, place)
        starts.append(place)
        place = place + len(piece) if fits and piece is not None else end
        ends.append(place)
        faithful.append(fits)
    return Tokens(ids, np.array(starts, np.int64), np.array(ends, np.int64), np.array(faithful, dtype=bool), len(data))
