"""Count the bytes of a text that its tokens do not spell.

A tokenizer without byte fallback encodes unknown characters as an unknown token, a normalizer may drop spaces or case,
and WordPiece drops line ends. The model does not predict dropped text, so a measure per byte has to count it
(docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokalign_lab.token_table import plain_backend
from tokalign_lab.vocabulary import Vocabulary


def unspelled_bytes(vocabulary: Vocabulary, text: str, ids: Iterable[int]) -> int:
    """Count the UTF-8 bytes of a text that its tokens do not spell.

    0 if the tokens spell the text, with or without a dummy space at one end. Otherwise the tokens are compared with the
    text at their offsets. Counted are the bytes between the common prefix and the common suffix, and text that no token
    covers. One space next to a token that begins a word (WordPiece) or ends one (`</w>`) belongs to the token.

    Parameters
    ----------
    vocabulary : a vocabulary with its tokenizer
    text : valid Unicode, without lone surrogates
    ids : from `Vocabulary.encode`
    """
    data = text.encode()
    joined = b"".join(vocabulary.token_bytes[i] or b"" for i in ids)
    if joined in (data, b" " + data, data + b" "):
        return 0
    missing = end = 0
    ends_word = False
    for start, stop, group in _groups(vocabulary, text):
        spelled = b"".join(vocabulary.token_bytes[i] or b"" for i in group)
        gap = text[end:start]
        if gap.endswith(" ") and spelled.startswith(b" "):
            gap, spelled = gap[:-1], spelled[1:]
        elif gap.startswith(" ") and ends_word:
            gap = gap[1:]
        missing += len(gap.encode()) + _differing(text[start:stop].encode(), spelled)
        end = stop
        ends_word = vocabulary.ends_word(group[-1])
    return missing + len(text[end:].encode())


def _groups(vocabulary: Vocabulary, text: str) -> Iterator[tuple[int, int, list[int]]]:
    """Yield character spans of the text with their ids; tokens that share a character are in one group."""
    with plain_backend(vocabulary.tokenizer) as backend:
        encoding = backend.encode(text, add_special_tokens=False)
    group: list[int] = []
    first = last = 0
    for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
        if group and start >= last > first:
            yield first, last, group
            group = []
        if not group:
            first = last = start
        group.append(token_id)
        last = max(last, stop)
    if group:
        yield first, last, group


def _differing(wanted: bytes, spelled: bytes) -> int:
    """Count the bytes of `wanted` that are not in `spelled`.

    They are those between the common prefix and the common suffix, or before and after `spelled` if it is in `wanted`.
    """
    if wanted == spelled or b" " + wanted == spelled:
        return 0
    if spelled in wanted:  # a token that takes the spaces around it
        return len(wanted) - len(spelled)
    shorter = min(len(wanted), len(spelled))
    head = next((i for i in range(shorter) if wanted[i] != spelled[i]), shorter)
    tail = next((i for i in range(shorter - head) if wanted[-1 - i] != spelled[-1 - i]), shorter - head)
    return len(wanted) - head - tail
