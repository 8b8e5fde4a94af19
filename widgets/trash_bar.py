"""Undo a deletion, or remove what was deleted for good: the two buttons of the trash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.trash import deleted_runs, empty_trash, restore_run, trash_bytes
from tokalign_lab.runs.words import size
from tokalign_lab.widgets.background import submit
from tokalign_lab.widgets.panel import bar, button


class TrashBar:
    """The trash of a folder of runs.

    Parameters
    ----------
    root : folder of the runs
    guarded : wraps callbacks, so that their errors are shown
    after : called with the run that has come back, or with None when the trash was emptied
    """

    def __init__(
        self,
        root: Path,
        guarded: Callable[..., Callable[..., None]],
        after: Callable[[RunFolder | None], None],
    ) -> None:
        self._root, self._guarded, self._after = root, guarded, after
        self._sure = False
        self.undo_button = button("Undo delete", guarded(self.undo), "tl-undo-delete", "Take back the last deletion")
        self.empty_button = button(
            "Empty the trash", guarded(self.empty), "tl-empty-trash", "Remove for good what was deleted; asks once more"
        )
        self.box = bar(self.undo_button, self.empty_button)

    def undo(self) -> None:
        """Take back the last deletion."""
        self._after(restore_run(root=self._root))

    def empty(self) -> None:
        """Remove what is in the trash for good, when pressed twice."""
        if not self._sure:
            self._sure = True
            self.empty_button.description, self.empty_button.button_style = "Press again: gone for good", "danger"
            return

        def work() -> None:
            empty_trash(self._root)
            self._after(None)

        submit(self._guarded(work))

    def show(self) -> None:
        """Say what is in the trash."""
        gone = deleted_runs(self._root)
        self._sure = False
        self.undo_button.disabled = self.empty_button.disabled = not gone
        self.undo_button.description = f"Undo: delete {gone[0].title[:30]}" if gone else "Undo delete"
        held = size(trash_bytes(self._root))
        self.empty_button.button_style = ""
        self.empty_button.description = f"Empty the trash ({held})" if gone else "The trash is empty"
