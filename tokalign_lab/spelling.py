"""How tokenizers write bytes, read off their own description, and how people can read them.

GPT-2 gives each byte a printable stand-in (`Ġ` is a space), SentencePiece writes a space as `▁` and spells rare bytes
as `<0xNN>`, WordPiece marks what continues a word with `##`. Which of these a tokenizer does is in its tokenizer.json.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer writes bytes: read off its tokenizer.json."""

    kind: str  # "byte-level", "sentencepiece", "wordpiece" or "plain"
    byte_fallback: bool = False
    prefix: str = ""

    @classmethod
    def of(cls, state: dict[str, Any]) -> Spelling:
        """Read the way off a parsed tokenizer.json."""
        parts = [
            part["type"]
            for place in ("normalizer", "pre_tokenizer", "decoder")
            for part in _flatten(state.get(place))
            if "type" in part
        ]
        model = state["model"]
        if model.get("type") == "WordPiece":
            return cls("wordpiece", prefix=model.get("continuing_subword_prefix", "##"))
        if "ByteLevel" in parts:
            return cls("byte-level")
        replaces = any(
            part.get("type") == "Replace" and "▁" in (part.get("content"), str(part.get("pattern", {}).get("String")))
            for place in ("normalizer", "decoder")
            for part in _flatten(state.get(place))
        )
        if "Metaspace" in parts or replaces:
            return cls("sentencepiece", byte_fallback=bool(model.get("byte_fallback")) or "ByteFallback" in parts)
        return cls("plain")

    def is_byte_fallback(self, token: str) -> bool:
        """Whether a token is SentencePiece's `<0xNN>`."""
        return self.byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">")

    def bytes_of(self, token: str) -> bytes:
        """Return the bytes that a token (no control token) stands for in running text."""
        if self.kind == "byte-level":
            if all(character in _BYTE_OF_CHARACTER for character in token):
                return bytes(_BYTE_OF_CHARACTER[character] for character in token)
            return token.encode()
        if self.kind == "sentencepiece":
            return bytes([int(token[3:5], 16)]) if self.is_byte_fallback(token) else token.replace("▁", " ").encode()
        if self.kind == "wordpiece":
            if token.startswith(self.prefix):
                return token[len(self.prefix) :].encode()
            # BERT splits before every punctuation mark and CJK character, with or without a space there.
            starts_word = token[:1].isalnum() and not "一" <= token[:1] <= "鿿"
            return (" " + token if starts_word else token).encode()
        return token.encode()


def _flatten(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    inner = [*part.get("normalizers", []), *part.get("pretokenizers", []), *part.get("decoders", [])]
    return [part, *(deep for one in inner for deep in _flatten(one))]


def _byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    stand_ins = {byte: chr(byte) for byte in printable}
    unprintable = [byte for byte in range(256) if byte not in stand_ins]
    stand_ins |= {byte: chr(256 + place) for place, byte in enumerate(unprintable)}
    return [stand_ins[byte] for byte in range(256)]


BYTE_LETTERS = _byte_letters()
"""How byte-level tokenizers write each of the 256 bytes."""
_BYTE_OF_CHARACTER = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}


def visible(token: bytes) -> str:
    """Write bytes so that spaces, line ends, controls and parts of characters can be seen."""
    shown: list[str] = []
    broken: list[str] = []
    for character in token.decode("utf-8", "surrogateescape"):
        if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that is no UTF-8 by itself
            broken.append(f"{ord(character) - 0xDC00:02X}")
            continue
        if broken:
            shown.append(f"<{' '.join(broken)}>")
            broken = []
        shown.append(_visible_character(character))
    if broken:
        shown.append(f"<{' '.join(broken)}>")
    return "".join(shown)


def _visible_character(character: str) -> str:
    named = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    if character in named:
        return named[character]
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs", "Cn", "Co"):
        return f"<U+{ord(character):04X}>"
    return character
