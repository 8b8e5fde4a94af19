"""Convert tiktoken ranks to a Hugging Face fast tokenizer, and guess roles for tokenizer files without them.

transformers has a converter, but it cannot put control tokens before the ranks, as Mistral's Tekken does. The tests
compare this one with the tiktoken library, id by id.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tokalign_lab.errors import InputError
from tokalign_lab.spelling import BYTE_LETTERS
from tokalign_lab.token_table import check_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T", str, bytes)
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHER = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS: dict[str, str] = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_WORDS}|\p{{N}}{{1,3}}|{_OTHER}",
    "qwen": rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_WORDS}|\p{{N}}|{_OTHER}",
    "o200k": "|".join(
        [
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ]
    ),
}
"""Regular expressions that split text into words before merging; a tiktoken file does not contain its own."""

_PATTERN_OF_NAME = dict.fromkeys(("gpt2", "r50k", "p50k", "multilingual"), "gpt2") | {"qwen": "qwen", "o200k": "o200k"}


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read a tiktoken file; each line has a token in base64, a space and its rank.

    Raises `InputError` if the file has another form, two tokens have one rank, a rank is negative or much too high, or
    one of the 256 single bytes has none.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            # Whisper's files write the empty token as "=".
            ranks[base64.b64decode(token, validate=True) if token != b"=" else b""] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise InputError(
                f"{path} is not a tiktoken file: line {number} is not a base64 token and a rank."
            ) from error
    if len(set(ranks.values())) < len(ranks) or min(ranks.values(), default=0) < 0:
        raise InputError(f"{path} is damaged: two tokens have one rank, or a rank is below 0; fetch it again.")
    check_ids(ranks, str(path))
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise InputError(f"{path} is not a byte-level vocabulary: some of the 256 single bytes have no rank in it.")
    return ranks


def pattern_for(path: Path) -> str:
    """Return the name in `PATTERNS` that a tiktoken file's name suggests; "cl100k" by default."""
    name = path.name.lower()
    return next((pattern for part, pattern in _PATTERN_OF_NAME.items() if part in name), "cl100k")


def merges_of(tokens: Iterable[T], ids: Mapping[T, int]) -> list[tuple[T, T]]:
    """Return the pairs of known tokens that make up each token, in the order of `tokens`, for one token by ids."""
    merges: list[tuple[T, T]] = []
    for token in tokens:
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in halves if pair[0] in ids and pair[1] in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges


def byte_level_tokenizer(
    ranks: Mapping[bytes, int], pattern: str, specials: Mapping[str, int], offset: int = 0
) -> Tokenizer:
    """Build a byte-level BPE from tiktoken ranks, with the same ids as tiktoken.

    Parameters
    ----------
    ranks : token -> rank; a lower rank merges earlier
    pattern : regular expression that splits text into words
    specials : control tokens and their ids
    offset : added to a rank to give the id
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    spelled = {token: "".join(BYTE_LETTERS[byte] for byte in token) for token in ranks}
    pairs = merges_of(sorted(ranks, key=ranks.__getitem__), ranks)
    merges = [(spelled[left], spelled[right]) for left, right in pairs]
    vocab = {spelled[token]: rank + offset for token, rank in ranks.items() if token}
    vocab |= specials
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in sorted(specials, key=specials.__getitem__)]
    )
    return tokenizer


@dataclass(frozen=True)
class Roles:
    """Special tokens by role, as the tokenizer's publisher uses them; None for no token."""

    bos: str | None = None
    eos: str | None = None
    unk: str | None = None
    pad: str | None = None
    adds_bos: bool = False


CONVENTIONAL_ROLES: dict[str, tuple[str, ...]] = {
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]", "<|endoftext|>"),
    "eos": ("</s>", "<|end_of_text|>", "<eos>", "[SEP]", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]"),
    "pad": ("<pad>", "[PAD]", "<|finetune_right_pad_id|>"),
}
"""Usual names of special tokens by role, best first, for tokenizer files without roles."""


def roles_by_convention(tokenizer: Tokenizer) -> Roles:
    """Guess the roles of a tokenizer without a `tokenizer_config.json` from its tokens' names."""
    known = {
        role: next((token for token in tokens if tokenizer.token_to_id(token) is not None), None)
        for role, tokens in CONVENTIONAL_ROLES.items()
    }
    return Roles(known["bos"], known["eos"], known["unk"], known["pad"])


def wrap(tokenizer: Tokenizer, roles: Roles) -> PreTrainedTokenizerFast:
    """Make a transformers tokenizer from a `tokenizers.Tokenizer` and its roles."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if roles.adds_bos and roles.bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{roles.bos}:0 $A:0",
            pair=f"{roles.bos}:0 $A:0 {roles.bos}:1 $B:1",
            special_tokens=[(roles.bos, tokenizer.token_to_id(roles.bos))],
        )
    named = {f"{role}_token": token for role in CONVENTIONAL_ROLES if (token := getattr(roles, role)) is not None}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
