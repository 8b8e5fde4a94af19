"""Search in the labels and raw strings of a quarter of a million rows.

All words of all rows are one long string, one word a line and an empty line behind each row, composed (NFC) and
without case. A plain text is found by the substring search of C; a regular expression by one `finditer` whose matches
go on to the end of their row, so that no row costs more than one step of Python.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tokalign_lab.errors import InputError

_ACROSS = re.compile(r"\\[nrxuUN0AZ]|\(\?[a-zA-Z-]*s")  # may look beyond its line, or begin or end with the text
_OUTSIDE = {r"\s": r"[^\S\n]", r"\W": r"[^\w\n]", r"\D": r"[^\d\n]"}


class TokenSearch:
    """The words of each row, ready to be searched.

    Parameters
    ----------
    rows : the words of each row; line ends in them are written as ↵
    """

    def __init__(self, rows: Iterable[Sequence[str]]) -> None:
        # folded all at once; no letter composes or folds across a line end, so that rows stay where they are
        self._text = folded("".join(_lines(words) for words in rows))
        ends = [match.end() for match in re.finditer("\n\n", self._text)]
        self._starts = np.array([0, *ends[:-1]][: len(ends)], dtype=np.int64)
        self._changed: dict[int, str] = {}

    def change(self, row: int, words: Sequence[str]) -> None:
        """Search these words for the row from now on."""
        self._changed[row] = folded(_lines(words))

    def matching(self, text: str, regex: bool) -> np.ndarray:
        """Which rows have a word with this text, or one that the regular expression finds; bool (rows,).

        Raises
        ------
        InputError
            For a regular expression that cannot be read.
        """
        find = _regex(text) if regex else _plain(text)
        found = np.zeros(len(self._starts), dtype=bool)
        places = np.array(find(self._text), dtype=np.int64)
        rows = np.searchsorted(self._starts, places, side="right") - 1
        ends = np.append(self._starts[1:], len(self._text))
        found[rows[places < ends[rows] - 1]] = True  # what is found in the empty line is in no word
        for row, words in self._changed.items():
            found[row] = any(place < len(words) - 1 for place in find(words))
        return found


def folded(text: str) -> str:
    """Text for comparing: composed (NFC) and without case."""
    return unicodedata.normalize("NFC", text).casefold()


def _lines(words: Sequence[str]) -> str:
    kept = dict.fromkeys(word.replace("\n", "↵") for word in words if word)  # a label is often the raw string too
    return "\n".join(kept) + "\n\n"


def _plain(text: str) -> Callable[[str], list[int]]:
    needle = folded(text.replace(" ", "␣"))

    def find(within: str) -> list[int]:
        places, at = [], within.find(needle)
        while at >= 0:
            places.append(at)
            row_end = within.find("\n\n", at)  # one hit a row is enough
            at = within.find(needle, max(row_end, at + 1))
        return places

    return find


def _regex(text: str) -> Callable[[str], list[int]]:
    wanted = unicodedata.normalize("NFC", text.replace(" ", "␣"))
    flags = re.IGNORECASE | re.MULTILINE
    try:
        plain = re.compile(wanted, flags)
    except re.error as error:
        raise InputError(f"'{text}' is not a regular expression: {error}.") from error
    within_line = one_line(wanted)
    if within_line is not None:
        pattern = re.compile(rf"(?:{within_line}).*(?:\n.+)*", flags)
        return lambda within: [match.start() for match in pattern.finditer(within)]

    def find(within: str) -> list[int]:
        places, start = [], 0
        while start < len(within):
            end = within.find("\n", start)
            match = plain.search(within, start, end) if end > start else None
            if match:
                places.append(match.start())
            start = end + 1
        return places

    return find


def one_line(pattern: str) -> str | None:
    """Rewrite a regular expression so that it matches within one line only; None where that cannot be decided."""
    if _ACROSS.search(pattern) or pattern.startswith("(?"):
        return None
    result, at, in_class = [], 0, False
    while at < len(pattern):
        piece = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
        if in_class and piece in _OUTSIDE:
            return None  # a class that holds \s holds the line end too
        if piece == "[" and not in_class:
            in_class = True
            if pattern[at + 1 : at + 2] == "^":
                piece = r"[^\n"
                at += 1
                if pattern[at + 1 : at + 2] == "]":  # a bracket that stands first is itself
                    piece, at = piece + r"\]", at + 1
            elif pattern[at + 1 : at + 2] == "]":
                piece, at = r"[\]", at + 1
            at += 1
        else:
            in_class = in_class and piece != "]"
            at += len(piece)
        result.append(_OUTSIDE.get(piece, piece))
    return "".join(result)
