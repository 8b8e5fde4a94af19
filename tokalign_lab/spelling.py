"""How tokenizers write bytes, according to their tokenizer.json, and readable labels and scripts of tokens.

GPT-2 writes each byte as a printable character (`Ġ` is a space), SentencePiece writes a space as `▁` and rare bytes as
`<0xNN>`, WordPiece marks a token that continues a word with `##`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer writes bytes.

    Attributes
    ----------
    kind : "byte-level", "sentencepiece", "wordpiece" (a token without `prefix` begins a word) or "plain"
    byte_fallback : whether `<0xNN>` is a byte
    prefix : mark of a token that continues a word (`##`); "" for none
    suffix : mark of a token that ends a word (`</w>`); "" for none
    space : how SentencePiece writes a space
    """

    kind: str
    byte_fallback: bool = False
    prefix: str = ""
    suffix: str = ""
    space: str = "▁"

    @classmethod
    def of(cls, state: dict[str, Any]) -> Spelling:
        """Read the spelling from a parsed tokenizer.json."""
        model = state["model"]
        before, cuts, after = (_flatten(state.get(place)) for place in ("normalizer", "pre_tokenizer", "decoder"))
        types = {part.get("type") for part in [*before, *cuts, *after]}
        prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
        if "ByteLevel" in types:
            return cls("byte-level", False, prefix, suffix)
        spaces = [part["replacement"] for part in [*cuts, *after] if part.get("type") == "Metaspace"]
        replaced = [(part["pattern"].get("String"), part["content"]) for part in before if part["type"] == "Replace"]
        replaced += [(part["content"], part["pattern"].get("String")) for part in after if part["type"] == "Replace"]
        spaces += [mark for space, mark in replaced if mark == "▁" or (space == " " and mark and not mark.isspace())]
        fallback = bool(model.get("byte_fallback")) or "ByteFallback" in types
        if spaces:
            return cls("sentencepiece", fallback, prefix, suffix, spaces[0])
        if model.get("type") == "WordPiece":
            pieces = (token.removeprefix(prefix) for token in model["vocab"])
            has_spaces = any(piece != piece.strip(" ") for piece in pieces)  # nothing removes them from the text
            return cls("plain" if has_spaces else "wordpiece", prefix=prefix)
        drops_spaces = any(
            (part["type"] in _DROP_SPACES and part.get("delimiter", " ") == " ")
            or (part.get("behavior") == "Removed" and {" ", r"\s", r"\s+"} & {*part.get("pattern", {}).values()})
            for part in cuts
        )
        by_words = drops_spaces and (prefix or model.get("type") == "WordLevel")
        return cls("wordpiece" if by_words else "plain", fallback, prefix, suffix)

    def replaced(self, state: dict[str, Any]) -> list[str]:
        """List the patterns and replacements of the decoder in a parsed tokenizer.json, except the mark of spaces.

        A token that has one of them may differ from its `bytes_of`.
        """
        found: list[str] = []
        for part in _flatten(state.get("decoder")):
            if part["type"] == "Replace":
                pair = [*part["pattern"].values(), part["content"]]
                found += pair if pair != [self.space, " "] else []
            elif part["type"] in ("CTC", "Strip") and part.get("content") != " ":
                found.append(part.get("word_delimiter_token") or part["content"])
        return found

    def is_byte_fallback(self, token: str) -> bool:
        """Whether a token is SentencePiece's `<0xNN>`."""
        return self.byte_fallback and token.startswith("<0x") and bool(_BYTE_TOKEN.fullmatch(token))

    def ends_word(self, token: str) -> bool:
        """Whether a token has the mark of a word's end."""
        return bool(self.suffix) and token.endswith(self.suffix)

    def bytes_of(self, token: str) -> bytes:
        """Return the bytes of a token (not a control token) in running text, without any marks."""
        if token.startswith("<0x") and self.is_byte_fallback(token):
            return bytes([int(token[3:5], 16)])
        begins_word = True
        if self.prefix and token.startswith(self.prefix) and token != self.prefix:
            begins_word, token = False, token[len(self.prefix) :]
        if self.suffix and token.endswith(self.suffix):
            token = token[: -len(self.suffix)]
        if self.kind == "byte-level":
            try:
                return token.translate(_BYTE_OF_LETTER).encode("latin-1")
            except UnicodeEncodeError:  # a character that represents no byte
                return token.encode()
        if self.kind == "sentencepiece":
            return token.replace(self.space, " ").encode()
        # BERT splits before every punctuation mark and CJK character, whether or not a space precedes it.
        if self.kind == "wordpiece" and begins_word and token[:1].isalnum() and not "一" <= token[:1] <= "鿿":
            return b" " + token.encode()
        return token.encode()


_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_DROP_SPACES = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "CharDelimiterSplit"})


def _flatten(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    inner = [*part.get("normalizers", []), *part.get("pretokenizers", []), *part.get("decoders", [])]
    return [part, *(deep for one in inner for deep in _flatten(one))]


def _byte_letters() -> list[str]:
    """GPT-2's printable character for each byte (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = count(256)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_LETTERS = _byte_letters()
"""How byte-level tokenizers write each of the 256 bytes."""
_NO_BYTE = dict.fromkeys(range(256), "\N{REPLACEMENT CHARACTER}")
_BYTE_OF_LETTER = _NO_BYTE | {ord(letter): byte for byte, letter in enumerate(BYTE_LETTERS)}


def visible(token: bytes) -> str:
    """Write bytes so that spaces, line ends, controls and parts of characters are visible."""
    text = token.decode("utf-8", "surrogateescape")  # bytes that are not UTF-8 become U+DC80 to U+DCFF
    if text.isprintable():  # most tokens of most vocabularies
        return text.replace(" ", "␣")
    parts = re.split("([\udc80-\udcff]+)", text)
    return "".join(
        f"<{' '.join(f'{ord(byte) - 0xDC00:02X}' for byte in part)}>"
        if i % 2
        else "".join(map(_visible_character, part))
        for i, part in enumerate(parts)
    )


def _visible_character(character: str) -> str:
    named = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    if character in named:
        return named[character]
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Zs", "Cn", "Co"):
        return f"<U+{ord(character):04X}>"
    return character


NEVER_IN_UTF8 = tuple(bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100)))
"""Bytes that do not occur in UTF-8."""


def text_of(token: bytes | None) -> str:
    """Return the text of a token; "" for no token and for a part of a character."""
    try:
        return (token or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""


def script_of(token: bytes) -> str:
    """Return the script of most of a token's letters: "Latin", "Han", "Arabic", ...

    It is the first word of a letter's Unicode name ("CYRILLIC SMALL LETTER A"); Chinese characters are "Han". A token
    without letters is "digits", "whitespace" or "symbols" (punctuation, emoji); one that is not UTF-8 is "bytes".
    """
    if token.strip(b" ").isalpha():  # letters of ASCII, as most tokens are
        return "Latin"
    text = text_of(token)
    if token and not text:
        return "bytes"
    found = list(map(_script_of_character, text))
    letters = [name for name in found if name not in WITHOUT_LETTERS]
    if letters:
        return max(dict.fromkeys(letters), key=letters.count)
    return next((name for name in ("digits", "symbols") if name in found), "whitespace")


WITHOUT_LETTERS = ("digits", "whitespace", "symbols", "bytes")
"""The results of `script_of` that are not a script."""
_SCRIPT_OF_WORD = {"Cjk": "Han", "Katakana-Hiragana": "Katakana", "Masculine": "Latin", "Feminine": "Latin"}
_WIDTHS = ("FULLWIDTH", "HALFWIDTH")
# Letters and marks of no script: mathematical alphabets, modifier letters, combining accents, variation selectors.
_NO_SCRIPT = (
    "Black-Letter", "Caron", "Combining", "Double-Struck", "Mathematical", "Micro", "Modifier", "Script", "Variation"
)  # fmt: skip


@cache
def _script_of_character(character: str) -> str:
    category = unicodedata.category(character)
    if category[0] == "N":
        return "digits"
    if character.isspace() or category == "Cc":
        return "whitespace"
    words = unicodedata.name(character, "").split()
    if category[0] not in "LM" or not words:
        return "symbols"
    name = (words[1] if words[0] in _WIDTHS else words[0]).title()
    return "symbols" if name in _NO_SCRIPT else _SCRIPT_OF_WORD.get(name, name)
