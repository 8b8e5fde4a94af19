"""Spelling one vocabulary's tokens with the tokens of another.

A token that the other vocabulary lacks can be written with its tokens: " unbelievable" as " un" "believ" "able". A new
row without a vector is the mean of those pieces (FVT, Gee et al. 2022), not a random row as in TokAlign's script. Text
is tokenised with the other tokenizer; a part of a UTF-8 character is covered by the longest tokens that fit, down to
single bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokalign_lab.spelling import text_of
from tokalign_lab.vocabulary import Vocabulary


def spell(vocabulary: Vocabulary, tokens: Sequence[bytes]) -> list[list[int]]:
    """Write byte strings, such as `Vocabulary.token_bytes` of another vocabulary, as ids of `vocabulary`.

    Returns one list of ids per token. If the tokenizer lacks one of the bytes or characters, the list has its ids of
    the text without the unknown token, and may be empty.
    """
    texts = {i: text for i, token in enumerate(tokens) if (text := text_of(token))}
    encoded = dict(zip(texts, vocabulary.encode(list(texts.values())), strict=True))
    unknown = vocabulary.roles.get("unk", -1)
    result = []
    for i, token in enumerate(tokens):
        ids = _without_dummy_prefix(vocabulary, [int(j) for j in encoded.get(i, ())], token)
        if _bytes_of(vocabulary, ids) != token:
            covered = _cover(vocabulary, token)
            usable = [j for j in ids if j != unknown and not vocabulary.is_control[j]]
            ids = covered if covered is not None else usable
        result.append(ids)
    return result


def main_piece(vocabulary: Vocabulary, pieces: Sequence[int]) -> int:
    """Return the piece with the most bytes; it represents the word in lists and scores."""
    return max(pieces, key=lambda piece: len(vocabulary.token_bytes[piece] or b""))


def _bytes_of(vocabulary: Vocabulary, ids: list[int]) -> bytes:
    return b"".join(vocabulary.token_bytes[i] or b"" for i in ids)


def _without_dummy_prefix(vocabulary: Vocabulary, ids: list[int], token: bytes) -> list[int]:
    """Drop the space that SentencePiece puts before a text, if it is a separate token."""
    if ids and vocabulary.token_bytes[ids[0]] == b" " and _bytes_of(vocabulary, ids) == b" " + token:
        return ids[1:]
    return ids


def _cover(vocabulary: Vocabulary, token: bytes) -> list[int] | None:
    """Cover the bytes greedily by the longest tokens, from left to right; None if a byte has no token."""
    ids, start = [], 0
    while start < len(token):
        for end in range(len(token), start, -1):
            found = vocabulary.id_of_bytes(token[start:end])
            if found is not None:
                ids.append(found)
                start = end
                break
        else:
            return None
    return ids
