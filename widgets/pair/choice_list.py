"""A searchable table of all possible sources and targets: description, origin, and whether it is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tokalign_lab.catalog.choices import Choice, choices

from ..common.part import Box
from ..common.table import Column, Pages, RowTable
from ..lexicon.search import folded

PAGE = 12
_CAPTION = "Models and tokenizers that can be chosen"
COLUMNS = (
    Column("name", "Name", "the name to type in the fields above", kind="token"),
    Column("kind", "Kind", "only a model can be rearranged; any tokenizer can be the target"),
    Column("what", "Description", "what it is, and the size of its vocabulary"),
    Column("where", "Origin", "where it comes from"),
    Column("here", "On this machine", "whether it works without a download"),
    Column("licence", "Licence", "terms of use"),
)


class ChoiceList(Box):
    """A searchable list of models and tokenizers.

    Parameters
    ----------
    use : called with "source" or "target" and a name
    folders : folders to search for the user's models and tokenizers
    """

    def __init__(self, use: Callable[[str, str], None], folders: Sequence[Path | str] = ()) -> None:
        self._use, self._folders = use, folders
        self._all: list[Choice] = []
        self._search = self.entry(
            "Find",
            lambda _text: self.show(),
            placeholder="part of a name, a kind …",
            tooltip="Part of a name, a kind, a description or a licence",
        )
        self.table = RowTable(COLUMNS, on_row=lambda _key: self._allow(), caption=_CAPTION)
        self._uses = [
            self.button(f"Use as {side}", partial(self._take, side), f"Use the selected row as {side}")
            for side in ("source", "target")
        ]
        self._pages = Pages(self.table, PAGE, self._draw, _where, before=self._uses)
        super().__init__([self._search, self._pages])
        self.add_class("tl-choice-list")

    def refresh(self) -> None:
        """Reload the list of choices."""
        self._all = choices(self._folders)
        self.show()

    def show(self) -> None:
        """Show the first page of the search results."""
        needle = folded(self._search.value.strip())
        self._pages.show([i for i, choice in enumerate(self._all) if needle in folded(_words(choice))])

    def _draw(self, keys: Sequence[int]) -> None:
        self.table.chosen = -1
        self.table.show(keys, [_cells(self._all[key]) for key in keys])
        self._allow()

    def _allow(self) -> None:
        for control in self._uses:
            control.disabled = self.table.chosen < 0

    def _take(self, side: str) -> None:
        self._use(side, self._all[self.table.chosen].name)


def _where(first: int, last: int, n: int) -> str:
    return f"{first} to {last} of {n}" if n else "no results for this search"


def _cells(choice: Choice) -> list[str]:
    here = "yes" if choice.here else f"no, {choice.size_bytes / 1e6:,.0f} MB to fetch"
    return [choice.name, choice.kind, choice.description or "–", choice.where, here, choice.licence or "–"]


def _words(choice: Choice) -> str:
    return " ".join((choice.name, choice.kind, choice.where, choice.description, choice.licence))
