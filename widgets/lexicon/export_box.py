"""Writing the lexicon, or the rows found, to a file in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tokalign_lab.alignment.lexicon.export import FORMATS, export_rows

from ..common.part import Box, bar, html, said
from .view import LexiconView


class ExportBox(Box):
    """Exports rows.

    Parameters
    ----------
    view : the lexicon as it is shown
    found : answers the target ids that the filters have left, in order
    folder : where files go
    """

    def __init__(self, view: LexiconView, found: Callable[[], np.ndarray], folder: Path) -> None:
        self._view, self._found, self._folder = view, found, folder
        formats = [(name, ending) for ending, name in FORMATS.items()]
        self.format = self.menu("Export as", "tl-export-format", options=formats)
        self.rows = self.menu("Rows", "tl-export-rows", options=[("All rows", "all"), ("Rows found", "found")])
        self.go = self.button("Export", self.export, "tl-export", f"Write a file into {folder}")
        self.status = html("tl-export-status")
        super().__init__([html("", "<h4>Export</h4>"), bar(self.format, self.rows, self.go, self.status)])

    def export(self) -> None:
        """Write the file, and say where it is."""
        rows = self._found() if self.rows.value == "found" else None
        path = self._folder / f"lexicon-{self.rows.value}{self.format.value}"
        self.status.value = said(f"Writing {path.name} …")

        def work() -> None:
            try:
                vocabularies = self._view.labels.vocabularies
                export_rows(self._view.lexicon, path, rows, vocabularies["source"], vocabularies["target"])
            except Exception:
                self.status.value = ""
                raise
            n = len(self._view.lexicon) if rows is None else len(rows)
            self.status.value = said(f"{n:,} rows written to {path.resolve()}")

        self.soon(work)
