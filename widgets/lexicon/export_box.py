"""Writing the lexicon, or the rows found, to a file in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as w
import numpy as np

from tokalign_lab.alignment.export import FORMATS, export_rows

from ..common.background import submit
from ..common.panel import bar, button
from .view import LexiconView


class ExportBox(w.VBox):
    """Exports rows.

    Parameters
    ----------
    view : the lexicon as it is shown
    found : answers the target ids that the filters have left, in order
    folder : where files go
    guarded : wraps callbacks so that their errors are shown
    """

    def __init__(
        self,
        view: LexiconView,
        found: Callable[[], np.ndarray],
        folder: Path,
        guarded: Callable[[Callable[..., None]], Callable[..., None]],
    ) -> None:
        self._view, self._found, self._folder, self._guarded = view, found, folder, guarded
        self.format = w.Dropdown(options=[(name, ending) for ending, name in FORMATS.items()], description="Export as")
        self.format.add_class("tl-export-format")
        self.rows = w.Dropdown(options=[("All rows", "all"), ("Rows found", "found")], description="Rows")
        self.rows.add_class("tl-export-rows")
        self.go = button("Export", self.export, "tl-export", f"Write a file into {folder}")
        self.status = w.HTML()
        self.status.add_class("tl-export-status")
        super().__init__([w.HTML("<h4>Export</h4>"), bar(self.format, self.rows, self.go, self.status)])

    def export(self) -> None:
        """Write the file, and say where it is."""
        rows = self._found() if self.rows.value == "found" else None
        path = self._folder / f"lexicon-{self.rows.value}{self.format.value}"
        self._say(f"Writing {path.name} …")

        def work() -> None:
            try:
                vocabularies = self._view.labels.vocabularies
                export_rows(self._view.lexicon, path, rows, vocabularies["source"], vocabularies["target"])
            except Exception:
                self._say("")
                raise
            n = len(self._view.lexicon) if rows is None else len(rows)
            self._say(f"{n:,} rows written to {path.resolve()}")

        submit(self._guarded(work))

    def _say(self, words: str) -> None:
        self.status.value = f'<span role="status" aria-live="polite">{escape(words)}</span>'
