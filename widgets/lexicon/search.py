"""Search in the labels and raw strings of a quarter of a million rows.

The index is one long string with one line for each distinct label or raw string ("word"), composed (NFC), case-folded
and with ␣ for SentencePiece's ▁, so that most raw strings need no line of their own. One regular expression scans it
and skips to the next line after each match. If a match crosses a line end, as `[^a]` may, the words that it touches are
searched one by one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from tokalign_lab.errors import InputError

# Syntax that may match a word but not the long string: lookarounds, flags, ends of the text, possessive quantifiers.
_SLOW_SYNTAX = re.compile(r"\(\?(?!:)|\\[AZ]|[*+?}]\+")


class TokenSearch:
    """Search index of the words of each row.

    Parameters
    ----------
    columns : words of all rows, one per row and column; line ends in them are written as ↵
    """

    def __init__(self, *columns: Iterable[str]) -> None:
        line_of = {"": 0}
        lines = [[line_of.setdefault(word.replace("▁", "␣"), len(line_of)) for word in words] for words in columns]
        self._lines = np.array(lines, dtype=np.int32)
        self._text = _joined(line_of)
        self._ends = np.cumsum([len(word) + 1 for word in self._text.split("\n")])
        self._changed: dict[int, str] = {}

    def change(self, row: int, words: Sequence[str]) -> None:
        """Replace the words of a row."""
        self._changed[row] = _joined(word.replace("▁", "␣") for word in words)

    def matching(self, text: str, regex: bool) -> np.ndarray:
        """Return which rows have a word that contains this text or matches this regular expression, bool (rows,).

        Raises `InputError` for an invalid regular expression.
        """
        pattern = _compiled(text, regex)
        found = np.zeros(len(self._ends), dtype=bool)
        if regex and _SLOW_SYNTAX.search(text):
            singly = [(0, len(found))]
        else:
            line = re.compile(rf"(?:{pattern.pattern}).*\n?", pattern.flags)
            spans = np.fromiter(chain.from_iterable(hit.span() for hit in line.finditer(self._text)), dtype=np.int64)
            first = np.searchsorted(self._ends, spans[::2], side="right")
            last = np.searchsorted(self._ends, spans[1::2])
            found[first] = True
            across = last > first
            singly = list(zip(first[across], last[across] + 1, strict=True))
        words = self._text.split("\n") if singly else []
        for start, end in singly:
            found[start:end] = [pattern.search(word) is not None for word in words[start:end]]
        found[0] = False  # "" is not a word
        rows = np.asarray(found[self._lines].any(axis=0))
        for row, changed in self._changed.items():
            rows[row] = any(map(pattern.search, filter(None, changed.split("\n"))))
        return rows


def folded(text: str) -> str:
    """Normalise text for comparison: composed (NFC) and case-folded."""
    return unicodedata.normalize("NFC", text).casefold()


def _joined(words: Iterable[str]) -> str:
    # All words are normalised in one call. No letter composes or folds across a line end, so each word keeps its line.
    return folded("\n".join(word.replace("\n", "↵") for word in words))


def _compiled(text: str, regex: bool) -> re.Pattern[str]:
    """Return the text or the regular expression as a pattern; its spaces and ▁ match ␣, as labels show a space."""
    spaced = text.replace(" ", "␣").replace("▁", "␣")
    if not regex:
        return re.compile(re.escape(folded(spaced)))
    try:
        return re.compile(unicodedata.normalize("NFC", spaced), re.IGNORECASE | re.MULTILINE)
    except re.error as error:
        raise InputError(f"'{text}' is not a regular expression: {error}.") from error
