"""Spelling one vocabulary's tokens with the tokens of another.

A token that the other vocabulary lacks can still be written there: " unbelievable" as " un" "believ" "able". The
mean of those pieces is what a new row falls back to when there is no vector for it (FVT, Gee et al. 2022), and never
a random row as in TokAlign's script. Every token that has bytes can be spelled: text is tokenised as the other
tokenizer would, and what is not text by itself (a part of a UTF-8 character) is covered by the longest tokens that
fit, in the end by those of single bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokalign_lab.spelling import text_of
from tokalign_lab.vocabulary import Vocabulary


def spell(vocabulary: Vocabulary, tokens: Sequence[bytes]) -> list[list[int]]:
    """Write byte strings as ids of `vocabulary`.

    Parameters
    ----------
    vocabulary
        The vocabulary to spell with.
    tokens
        Byte strings, such as `Vocabulary.token_bytes` of another vocabulary.

    Returns
    -------
    list of list of int
        Ids in order, one list a token. Where a byte cannot be written at all (a tokenizer without bytes or
        without such a character) the list holds what the tokenizer itself makes of the text, without its unknown
        token; it is empty where nothing is left.
    """
    texts = {i: text for i, token in enumerate(tokens) if (text := text_of(token))}
    encoded = dict(zip(texts, vocabulary.encode(list(texts.values())), strict=True))
    unknown = vocabulary.roles.get("unk", -1)
    result = []
    for i, token in enumerate(tokens):
        ids = [int(j) for j in encoded.get(i, ())]
        ids = _without_dummy_prefix(vocabulary, ids, token)
        if _bytes_of(vocabulary, ids) != token:
            covered = _cover(vocabulary, token)
            usable = [j for j in ids if j != unknown and not vocabulary.is_control[j]]
            ids = covered if covered is not None else usable
        result.append(ids)
    return result


def main_piece(vocabulary: Vocabulary, pieces: Sequence[int]) -> int:
    """Return the piece that spells most of a word; it represents the word in lists and scores."""
    return max(pieces, key=lambda piece: len(vocabulary.token_bytes[piece] or b""))


def _bytes_of(vocabulary: Vocabulary, ids: list[int]) -> bytes:
    return b"".join(vocabulary.token_bytes[i] or b"" for i in ids)


def _without_dummy_prefix(vocabulary: Vocabulary, ids: list[int], token: bytes) -> list[int]:
    """SentencePiece puts a space before a text; drop it where it stands alone."""
    if ids and vocabulary.token_bytes[ids[0]] == b" " and _bytes_of(vocabulary, ids) == b" " + token:
        return ids[1:]
    return ids


def _cover(vocabulary: Vocabulary, token: bytes) -> list[int] | None:
    """Longest tokens that fit, from left to right; None if a byte cannot be written."""
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
