"""Everything that can be a source or a target, in a table that can be searched: what it is, from where, is it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as w

from tokalign_lab.catalog.choices import Choice, choices

from ..common.panel import bar, button
from ..common.table import Column, RowTable
from ..lexicon.search import folded

PAGE = 12
COLUMNS = (
    Column("name", "Name", "what to type in the fields above", kind="token"),
    Column("kind", "Kind", "a model has a tokenizer; a tokenizer alone cannot be rearranged"),
    Column("what", "What it is"),
    Column("where", "Comes from"),
    Column("here", "On this machine"),
    Column("licence", "Licence"),
)


class ChoiceList(w.VBox):
    """A searchable list of models and tokenizers.

    Parameters
    ----------
    use : called with "source" or "target" and a name
    guarded : wraps a callback so that its errors are seen (`Panel.guarded`)
    folders : where models and tokenizers of the user's own are looked for
    """

    def __init__(
        self,
        use: Callable[[str, str], None],
        guarded: Callable[[Callable[..., None]], Callable[..., None]],
        folders: Sequence[Path | str] = (),
    ) -> None:
        self._use, self._folders = use, folders
        self._all: list[Choice] = []
        self._found: list[int] = []
        self._page = 0
        self._search = w.Text(description="Find", placeholder="part of a name, a kind, a script …")
        self._search.add_class("tl-choice-search")
        self._search.observe(guarded(lambda _change: self.show(0)), names="value")
        self.table = RowTable(COLUMNS)
        self.table.observe(guarded(self._on_row), names="chosen")
        self._where = w.HTML()
        self._pages = [
            button("Previous", guarded(lambda: self.show(self._page - 1)), "tl-choice-previous"),
            button("Next", guarded(lambda: self.show(self._page + 1)), "tl-choice-next"),
        ]
        self._uses = [
            button(f"Use as {side}", guarded(lambda side=side: self._take(side)), f"tl-use-{side}")
            for side in ("source", "target")
        ]
        super().__init__([self._search, self.table, bar(*self._uses, self._where, *self._pages)])
        self.add_class("tl-choice-list")

    def refresh(self) -> None:
        """Look again at what there is."""
        self._all = choices(self._folders)
        self.show(0)

    def show(self, page: int) -> None:
        """Show this page of what fits the search."""
        needle = folded(self._search.value.strip())
        self._found = [i for i, choice in enumerate(self._all) if needle in folded(_words(choice))]
        self._page = min(max(page, 0), max(0, (len(self._found) - 1) // PAGE))
        first = self._page * PAGE
        keys = self._found[first : first + PAGE]
        self.table.caption = "Models and tokenizers that can be chosen"
        self.table.chosen = -1
        self._on_row(None)
        self.table.show(keys, [_cells(self._all[key]) for key in keys])
        shown = f"{first + 1} to {first + len(keys)} of {len(self._found)}" if keys else "nothing fits this search"
        self._where.value = f'<span role="status">{shown}</span>'
        self._pages[0].disabled, self._pages[1].disabled = not self._page, first + PAGE >= len(self._found)

    def _on_row(self, _change: object) -> None:
        for control in self._uses:
            control.disabled = self.table.chosen < 0

    def _take(self, side: str) -> None:
        self._use(side, self._all[self.table.chosen].name)


def _cells(choice: Choice) -> list[str]:
    here = "yes" if choice.here else f"no, {choice.size_bytes / 1e6:,.0f} MB to fetch"
    return [choice.name, choice.kind, choice.description or "–", choice.where, here, choice.licence or "–"]


def _words(choice: Choice) -> str:
    return " ".join((choice.name, choice.kind, choice.where, choice.description, choice.licence))
