"""Search in the labels and raw strings of a quarter of a million rows.

All words of all rows form one long string, with one word per line and an empty line after each row, composed (NFC) and
case-folded. One regular expression scans it and skips to the next row after each hit, so that a row costs at most one
Python step. If a hit crosses the end of its line, as `[^a]` may, the words of that row are searched one by one.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tokalign_lab.errors import InputError

# What may find nothing in the long string although it finds a word: lookarounds, flags, the ends of the text.
_LOOKS_BEYOND = re.compile(r"\(\?(?!:)|\\[AZ]|[*+?}]\+")


class TokenSearch:
    """Search index of the words of each row.

    Parameters
    ----------
    rows : the words of each row; line ends in them are written as ↵
    """

    def __init__(self, rows: Iterable[Sequence[str]]) -> None:
        # folded all at once; no letter composes or folds across a line end, so that rows stay where they are
        self._text = folded("".join(_lines(words) for words in rows))
        self._ends = [match.end() for match in re.finditer("\n\n", self._text)]
        self._changed: dict[int, str] = {}

    def change(self, row: int, words: Sequence[str]) -> None:
        """Replace the words of a row."""
        self._changed[row] = folded(_lines(words))

    def matching(self, text: str, regex: bool) -> np.ndarray:
        """Which rows have a word with this text, or one that the regular expression finds; bool (rows,).

        Raises
        ------
        InputError
            For a regular expression that cannot be read.
        """
        find = _finder(text, regex)
        found = np.zeros(len(self._ends), dtype=bool)
        if regex and _LOOKS_BEYOND.search(text):
            found[:] = [_in_words(find, words) for words in self._text.split("\n\n")[:-1]]
        else:
            at = 0
            while (hit := find(self._text, at)) and hit.start() < len(self._text):
                row = bisect_right(self._ends, hit.start())
                start, at = self._ends[row - 1] if row else 0, self._ends[row]
                in_one_word = hit.end() <= at - 2 and "\n" not in hit[0]
                found[row] = in_one_word or _in_words(find, self._text[start:at])
        for row, words in self._changed.items():
            found[row] = _in_words(find, words)
        return found


def folded(text: str) -> str:
    """Normalise text for comparison: composed (NFC) and case-folded."""
    return unicodedata.normalize("NFC", text).casefold()


def _lines(words: Sequence[str]) -> str:
    kept = dict.fromkeys(word.replace("\n", "↵") for word in words if word)  # a label is often the raw string too
    return "\n".join(kept) + "\n\n"


def _finder(text: str, regex: bool) -> Callable[..., re.Match[str] | None]:
    """Return what finds the text, or the expression, from a place in a string on; a space finds the sign for it."""
    spaced = text.replace(" ", "␣")
    if not regex:
        return re.compile(re.escape(folded(spaced))).search
    try:
        return re.compile(unicodedata.normalize("NFC", spaced), re.IGNORECASE | re.MULTILINE).search
    except re.error as error:
        raise InputError(f"'{text}' is not a regular expression: {error}.") from error


def _in_words(find: Callable[[str], object], words: str) -> bool:
    return any(map(find, filter(None, words.split("\n"))))
