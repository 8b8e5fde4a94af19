"""Edit pairs by hand, with undo, redo and pins; export the lexicon or the filtered rows to a file."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np

from tokalign_lab.alignment.lexicon.edits import Edit, LexiconEdits
from tokalign_lab.alignment.lexicon.export import FORMATS, export_rows
from tokalign_lab.vocabulary import Vocabulary

from ..common.part import Box, bar, html, status_html, token
from ..common.state import LabState
from .view import LexiconView

_LISTED = 50
_DONE = {"choose": "now from", "reject": "rejected", "restore": "as the recipe made it"}


class EditBox(Box):
    """Controls that edit the pair of one target token.

    Parameters
    ----------
    view : the lexicon with edits applied
    edits : stores the edits
    state : holds the pins
    on_edit : called with the id of the edited target token
    """

    def __init__(self, view: LexiconView, edits: LexiconEdits, state: LabState, on_edit: Callable[[int], None]) -> None:
        self._view, self._edits, self._state, self._on_edit = view, edits, state, on_edit
        self._target_id = -1
        self.choice = self.menu("Source token", tooltip="The token to copy the row from")
        self.search = self.entry(
            "Find source token",
            lambda _text: self._find(),
            placeholder="a source token, or its id",
            tooltip="Search all source tokens; the results appear in “Source token”",
        )
        self.note = self.entry("Note", placeholder="reason (optional)", tooltip="Your reason, stored with the edit")
        self.choose = self.button("Use this source", self._choose, "Copy the selected source token's row")
        self.reject = self.button("Reject the pair", self._reject, "Use the mean of the pieces that spell the token")
        self.restore = self.button("Restore the recipe's pair", self._restore, "Remove the edit of this token")
        self.pin = self.button("Pin", self._pin, "Mark this token with a star on the maps")
        self.undo = self.button("Undo", lambda: self._step(edits.undo), "Undo the last edit")
        self.redo = self.button("Redo", lambda: self._step(edits.redo), "Redo the last undone edit")
        self.status = html("tl-edit-status")
        super().__init__(
            [
                bar(self.choice, self.search, self.note),
                bar(self.choose, self.reject, self.restore, self.pin, self.undo, self.redo),
                self.status,
            ]
        )
        self.show(-1)

    def show(self, target_id: int) -> None:
        """Show the actions for this target token; -1: no token."""
        self._target_id = target_id
        self.search.value = ""
        self._offer_candidates()
        self.refresh()

    def refresh(self) -> None:
        """Update the list of edits, and disable the actions that are not possible."""
        none = self._target_id < 0
        current = self._edits.current()
        self.reject.disabled = self.note.disabled = self.pin.disabled = self.search.disabled = none
        self.choose.disabled = none or self.choice.value is None
        self.restore.disabled = self._target_id not in current
        self.undo.disabled, self.redo.disabled = not self._edits.done, not self._edits.undone
        pinned = ("target", self._target_id) in self._state.pins
        self.pin.description = "Unpin" if pinned else "Pin"
        where = f", stored in {self._edits.path}" if self._edits.path else ", kept in memory only"
        summary = f"{len(current)} token{'s' * (len(current) != 1)} edited{where}." if current else "Nothing is edited."
        self.status.value = status_html(summary, "tl-note") + self._history()

    def _offer_candidates(self) -> None:
        if self._target_id < 0:
            self.choice.options = []
            return
        details, current = self._view.details(self._target_id), int(self._view.source_of[self._target_id])
        offered = {i: f"{label}  (score {score:.3f})" for i, label, score in details["candidates"]}
        for i in (current, *(i for i, _, _ in details["sources"])):  # a row built from pieces has no candidates
            if i >= 0:
                offered.setdefault(i, f"{self._view.labels.of('source', i)}  (id {i})")
        listed = [(words, i) for i, words in offered.items()]
        self.choice.options = listed
        other = next((i for _, i in listed if i != current), current)
        self.choice.value = other if listed else None

    def _find(self) -> None:
        text = self.search.value
        if not text:
            self._offer_candidates()
            self.refresh()
            return

        def show(found: list[int]) -> None:
            self.choice.options = [(f"{self._view.labels.of('source', i)}  (id {i})", i) for i in found]
            self.choice.value = found[0] if found else None
            self.refresh()

        self.newest(lambda _wanted: self._view.find_sources(text), show)

    def _history(self) -> str:
        if not self._edits.done:
            return ""
        lines = "".join(f"<li>{self._words(edit)}</li>" for edit in reversed(self._edits.done[-_LISTED:]))
        return f'<details class="tl-note"><summary>All edits, latest first</summary><ol>{lines}</ol></details>'

    def _words(self, edit: Edit) -> str:
        label = self._view.labels.of
        source = f" {token(label('source', edit.source_id))}" if edit.action == "choose" else ""
        note = f": {escape(edit.note)}" if edit.note else ""
        return (
            f"{token(label('target', edit.target_id))} {_DONE[edit.action]}{source} "
            f"<small>{escape(edit.time)}</small>{note}"
        )

    def _choose(self) -> None:
        self._edits.choose(self._target_id, int(self.choice.value), *self._vocabularies, self.note.value.strip())
        self._edited(self._target_id)

    def _reject(self) -> None:
        self._edits.reject(self._target_id, *self._vocabularies, self.note.value.strip())
        self._edited(self._target_id)

    @property
    def _vocabularies(self) -> tuple[Vocabulary | None, Vocabulary | None]:
        both = self._view.labels.vocabularies
        return both["source"], both["target"]

    def _restore(self) -> None:
        self._edits.restore(self._target_id, self.note.value.strip())
        self._edited(self._target_id)

    def _step(self, step: Callable[[], Edit | None]) -> None:
        edit = step()
        if edit is not None:
            self._edited(edit.target_id)

    def _pin(self) -> None:
        self._state.pin("target", self._target_id)
        self.refresh()

    def _edited(self, target_id: int) -> None:
        self.note.value = ""
        self.refresh()
        self._on_edit(target_id)


class ExportBox(Box):
    """Controls that export rows to a file.

    Parameters
    ----------
    view : the lexicon with edits applied
    found : returns the target ids of the filtered rows, in order
    folder : folder of the exported files
    """

    def __init__(self, view: LexiconView, found: Callable[[], np.ndarray], folder: Path) -> None:
        self._view, self._found, self._folder = view, found, folder
        formats = [(name, ending) for ending, name in FORMATS.items()]
        self.format = self.menu("Export as", options=formats, tooltip="File format")
        self.rows = self.menu(
            "Rows",
            options=[("All rows", "all"), ("Rows found", "found")],
            tooltip="The whole lexicon, or only the filtered rows",
        )
        self.go = self.button("Export", self.export, f"Write a file into {folder}")
        self.status = html()
        super().__init__([bar(self.format, self.rows, self.go, self.status)])

    def export(self) -> None:
        """Write the file, and show its path."""
        rows = self._found() if self.rows.value == "found" else None
        path = self._folder / f"lexicon-{self.rows.value}{self.format.value}"
        self.status.value = status_html(f"Writing {path.name} …")

        def work() -> None:
            try:
                vocabularies = self._view.labels.vocabularies
                export_rows(self._view.lexicon, path, rows, vocabularies["source"], vocabularies["target"])
            except Exception:
                self.status.value = ""
                raise
            n = len(self._view.lexicon) if rows is None else len(rows)
            self.status.value = status_html(f"{n:,} rows written to {path.resolve()}")

        self.soon(work)
