"""Write the report, and say where it is."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as w

from tokalign_lab.widgets.background import submit
from tokalign_lab.widgets.panel import bar, button


class ReportBox(w.VBox):
    """A button that writes one HTML file.

    Parameters
    ----------
    write : writes it and returns its path
    guarded : wraps a callback so that its errors are seen (`Panel.guarded`)
    """

    def __init__(self, write: Callable[[], Path], guarded: Callable[..., Callable[..., None]]) -> None:
        self._write, self._guarded = write, guarded
        self._start = button("Write the report", guarded(self.start), "tl-report", style="primary")
        self._told = w.HTML()
        words = w.HTML(
            "<h3>Report</h3><div class='tl-note'>One HTML file with the pair, the scores, the diagnosis, both maps, "
            "the curves, the best and the worst pairs, and the commands that made them. It needs no network.</div>"
        )
        super().__init__([words, bar(self._start, self._told)])

    def start(self) -> None:
        """Write it away from the callback."""
        self._start.disabled = True
        self._told.value = '<span role="status">Writing …</span>'

        def work() -> None:
            try:
                path = self._write()
                size = path.stat().st_size / 1e6
                self._told.value = (
                    f'<span role="status">Written: <code>{escape(str(path))}</code>, {size:.1f} MB</span>'
                )
            except Exception:
                self._told.value = ""
                raise
            finally:
                self._start.disabled = False

        submit(self._guarded(work))
