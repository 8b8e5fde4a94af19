"""The list of runs with their states, and the curves of selected tuning runs.

The list is read from the folder of runs alone, so it contains the runs of all notebooks, shells and earlier kernels.
The browser gets one page of rows, and the events of a run are read only while its page is shown.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd

from tokalign_lab.plots.curves import MOST_RUNS
from tokalign_lab.runs.control import gallery_root, rename_run, runs_root
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_run
from tokalign_lab.runs.listing import RunList, RunRow
from tokalign_lab.runs.trash import delete_run, deleted_runs, empty_trash, restore_run, trash_bytes
from tokalign_lab.runs.words import size

from ..common.job import RunControls
from ..common.panel import Panel, mark_of
from ..common.part import Bar, Folds, bar, html, state_html
from ..common.state import LabState
from ..common.table import Column, Pages, RowTable
from ..training.panel import TrainingPanel


class TrashBar(Bar):
    """Restores deleted runs, or deletes them permanently.

    Parameters
    ----------
    root : folder of the runs
    after : called with the restored run, or with None after the trash was emptied
    """

    def __init__(self, root: Path, after: Callable[[RunFolder | None], None]) -> None:
        self._root, self._after = root, after
        self._sure = False
        self.undo_button = self.button("Undo delete", self.undo, "Restore the last deleted run")
        self.empty_button = self.button("Empty the trash", self.empty, "Delete permanently; asks for confirmation")
        super().__init__([self.undo_button, self.empty_button])

    def undo(self) -> None:
        """Restore the last deleted run."""
        self._after(restore_run(root=self._root))

    def empty(self) -> None:
        """Ask for a second click, which deletes everything in the trash."""
        if not self._sure:
            self._sure = True
            self.empty_button.description, self.empty_button.button_style = "Click again to delete", "danger"
            return

        def work() -> None:
            empty_trash(self._root)
            self._after(None)

        self.soon(work)

    def show(self) -> None:
        """Show the content of the trash."""
        gone = deleted_runs(self._root)
        self._sure = False
        self.undo_button.disabled = self.empty_button.disabled = not gone
        self.undo_button.description = f"Undo delete: {gone[0].title[:30]}" if gone else "Undo delete"
        held = size(trash_bytes(self._root))
        self.empty_button.button_style = ""
        self.empty_button.description = f"Empty the trash ({held})" if gone else "The trash is empty"


PAGE = 10
_GROUPS = {
    "queued": "running", "running": "running", "finished": "finished", "paused": "stopped", "cancelled": "stopped",
}  # fmt: skip
COLUMNS = (
    Column("shown", "Curves", "Number of the run in the plots below"),
    Column("title", "Name", "name of the run", sortable=True),
    Column("kind", "Kind", "kind of run", sortable=True),
    Column("state", "Status", "state of the run", sortable=True),
    Column("created", "Created", "in local time", sortable=True),
    Column("worked", "Duration", "From creation to end", numeric=True, sortable=True),
    Column("latest", "Latest", "The last numbers or message of the run"),
)


class RunsPanel(Panel):
    """List all runs of a folder: pause, cancel, resume, rename, delete and compare them.

    Parameters
    ----------
    root : folder of the runs; by default $TOKALIGN_RUNS or `./runs`
    state : shared view
    chosen : name of the run that is selected initially
    shown : names of the tuning runs whose curves are shown initially
    kind : show only runs of this kind; "" for all
    """

    def __init__(
        self,
        root: Path | str | None = None,
        state: LabState | None = None,
        chosen: str = "",
        shown: Sequence[str] = (),
        kind: str = "",
    ) -> None:
        super().__init__("Runs", "tl-runs", state)
        self.root = runs_root(root)
        # Callbacks and the watcher's thread change the list and the curves at the same time.
        self._lock, self._curves_lock = threading.RLock(), threading.RLock()
        self._list = RunList(self.root, kind)
        self._chosen = chosen
        self._list.recorded = not any(self.root.glob("*/run.json")) or any(map(recorded_run, [chosen, *shown]))
        self._list.read()
        self._shown: list[str] = [name for name in shown if self._list.run(name) is not None]
        self._named = ""  # the run whose name the field shows
        self.monitor: TrainingPanel | None = None
        self._build(kind)
        self.refresh()
        self.follow(f"runs:{self.root.resolve()}", self._poll)

    def _build(self, kind: str) -> None:
        self._kind = self.menu(
            "Kind", self._on_kind, options=self._kinds([kind]), value=kind, tooltip="Only runs of one kind"
        )
        self._recorded = self.check(
            "Recorded runs too", self._on_recorded, value=self._list.recorded,
            tooltip="Also list the runs that are included in the package; they are read-only",
        )  # fmt: skip
        self.table = RowTable(COLUMNS, "tl-runs-table", self.guarded(self._on_row))
        self.table.on_heading = self.guarded(self._on_heading)
        self.trash = TrashBar(self.root, self._on_trash)
        self.pages = Pages(self.table, PAGE, self._draw, self._where)
        self.controls = RunControls(lambda: self.run, self.refresh)
        self._tick_button = self.button("Show its curves", self.tick, f"Overlay up to {MOST_RUNS} runs")
        self._rename = self.entry(
            "Name",
            placeholder="another name",
            continuous_update=False,
            tooltip="New name of the run",
            layout={"width": "240px"},
        )
        self._rename_button = self.button("Rename", self.rename, "Rename the selected run")
        self._delete = self.button("Delete", self.delete, "Move to the trash; can be undone")
        self._details, self._log = html("tl-run-details"), html()
        self._curves = w.VBox()
        actions = bar(self._tick_button, self.controls, self._rename, self._rename_button, self._delete)
        self.folds = Folds(
            {
                "Filters": ("filters of the list", [bar(self._kind, self._recorded)]),
                "Log": ("the last lines of the selected run's log", [self._log]),
                "Trash": ("restore deleted runs, or delete them permanently", [self.trash]),
            }
        )
        self._fill([self._head, self.folds, self.pages, actions, self._details, self._curves], self.folds.row)

    @property
    def run(self) -> RunFolder | None:
        """The selected run."""
        row = self._row()
        return row.run if row is not None else None

    @property
    def selection(self) -> pd.DataFrame:
        """All listed runs, one per row."""
        return self._list.frame()

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the folder, the selected run and the runs whose curves are shown."""
        return super().state | {
            "root": str(self.root), "chosen": self._chosen, "shown": list(self._shown), "kind": self._list.kind,
            "page": self.pages.page, "found": len(self._list.rows),
        }  # fmt: skip

    def _call(self) -> list[str]:
        given = {"chosen": self._chosen, "shown": self._shown, "kind": self._list.kind}
        return [repr(str(self.root)), *(f"{name}={value!r}" for name, value in given.items() if value)]

    def go_to(self, page: int) -> None:
        """Show a page of the list, counted from 0."""
        with self._lock:
            self.pages.show(self._list.rows, page)
            self._show_chosen(self._row())

    def tick(self) -> None:
        """Show the curves of the selected run, or hide them."""
        run = self.run
        if run is None or run.info()["kind"] != "adapt":
            return
        if run.name in self._shown:
            self._shown.remove(run.name)
        else:
            self._shown = [*self._shown, run.name][-MOST_RUNS:]
        self._repaint()
        self.soon(self._show_curves)

    def rename(self) -> None:
        """Rename the selected run to the text in the field next to the button."""
        if self.run is not None:
            rename_run(self.run, self._rename.value)
            self.clear_error()
            self.refresh()

    def delete(self) -> None:
        """Move the selected run to the trash."""
        run = self.run
        if run is None:
            return
        delete_run(run)
        self._shown = [name for name in self._shown if name != run.name]
        self._chosen = ""
        self.clear_error()
        self.refresh()

    def refresh(self) -> None:
        """Read the folder again and draw everything."""
        with self._lock:
            self._list.read()
        self._repaint()
        self.trash.show()
        self.soon(self._read_page)
        self.soon(self._show_curves)

    def _poll(self) -> bool:
        """Read the folder; called repeatedly while the panel is open, because any process may start runs."""
        with self._lock:
            self._list.read()
        self._read_page()
        return True

    def _read_page(self) -> None:
        """Read the events of the runs on this page, and show them."""
        with self._lock:
            self.pages.items = self._list.rows
            for row in self.pages.shown:
                row.fold()
        self._repaint()

    def _row(self) -> RunRow | None:
        return next((row for row in self._list.rows if row.run.name == self._chosen), None)

    def _repaint(self) -> None:
        """Show the page and the selected run; only changes are sent."""
        states = Counter(_GROUPS.get(row.info["state"], "failed") for row in self._list.rows)
        counts = {"on_disk": len(self._list.rows), **{name: states[name] for name in ("running", "finished", "failed")}}
        ended = f"; {states['stopped']} were stopped and can be resumed" if states["stopped"] else ""
        verdict = f"{counts['running']} running, {counts['failed']} with errors{ended}. Select a row to act on it."
        if self._list.only_recorded:
            listed = "; the list shows the recorded runs of the package" if self._list.rows else ""
            verdict = f"You have no runs here yet{listed}."
        numbers = [(key, str(n)) for key, n in counts.items()]
        self.headline("Runs", verdict, numbers, f"all runs in {self.root}")
        self.go_to(self.pages.page)

    def _draw(self, rows: Sequence[RunRow]) -> None:
        chosen = self._row()
        self.table.sort = list(self._list.sort)
        self.table.show([self._list.key_of(row) for row in rows], [self._cells(row) for row in rows])
        self.table.chosen = -1 if chosen is None else self._list.key_of(chosen)
        if self._list.kind in ("", *self._list.kinds):
            self.offer(self._kind, self._kinds(self._list.kinds), self._list.kind)

    @staticmethod
    def _kinds(kinds: Sequence[str]) -> list[tuple[str, str]]:
        return [("All kinds", ""), *((kind, kind) for kind in kinds if kind)]

    def _where(self, first: int, last: int, n: int) -> str:
        if self._list.only_recorded:
            return f"{first} to {last} of {n} recorded runs" if n else "No runs here yet."
        return f"{first} to {last} of {n} runs" if n else "No runs of this kind."

    def _cells(self, row: RunRow) -> list[str]:
        place = f"✓ {self._shown.index(row.run.name) + 1}" if row.run.name in self._shown else ""
        return [place, *row.cells()]

    def _show_chosen(self, row: RunRow | None) -> None:
        for control in (self._tick_button, self._rename_button, self._delete):
            control.disabled = row is None
        named = "" if row is None else row.run.name
        if named != self._named:  # keep what the user is typing for the selected run
            self._named, self._rename.value = named, "" if row is None else row.title
        if row is None:
            self._tick_button.description = "Show its curves"
            self.controls.none()
            self._details.value = "<div class='tl-empty'>Select a run to see its settings.</div>"
            self._log.value = "<div class='tl-note'>Select a run to see the end of its log.</div>"
            return
        state, asked = row.info["state"], row.run.asked
        self.controls.show(row.info["kind"], state, asked)
        self._tick_button.disabled = row.info["kind"] != "adapt"
        self._tick_button.description = "Hide its curves" if row.run.name in self._shown else "Show its curves"
        recorded = bool(row.info.get("recorded"))
        self._delete.disabled = state == "running" or recorded
        self._rename_button.disabled = recorded
        badge = state_html(state, asked, recorded=recorded)
        self._details.value = f"<h4>{escape(row.title)} {badge}</h4>{mark_of(row.run)}{details_html(row)}"
        if recorded:
            self._log.value = "<div class='tl-note'>A recorded run has no log.</div>"
            return
        tail = escape(row.run.log_tail())
        self._log.value = (
            f"<div class='tl-note'>End of the log:</div><pre class='tl-log' tabindex='0'>{tail}</pre>" if tail else
            "<div class='tl-note'>The log of this run is empty.</div>"
        )  # fmt: skip

    def _show_curves(self) -> None:
        """Show the curves in a monitor, which is built on first use; later calls only change its runs."""
        with self._curves_lock:
            found = (self._list.run(name) for name in self._shown)
            runs = [str(run.path.resolve()) for run in found if run is not None]
            self._curves.layout.display = "" if runs else "none"
            if self.closed or not runs:
                return
            if self.monitor is None:
                self.monitor = TrainingPanel(runs, state=self.lab_state, watched_by="list")
                self.monitor.on_runs = self._on_runs
                self._curves.children = (self.monitor,)
            elif [str(run.path) for run in self.monitor.runs] != runs:
                self.monitor.clear_error()
                self.monitor.show_runs(runs)

    def _on_runs(self, runs: Sequence[RunFolder]) -> None:
        """Mark the runs in the list that the monitor shows, including new ones."""
        here = {self.root.resolve(), gallery_root().resolve()}
        self._shown = [run.name for run in runs if run.path.resolve().parent in here]
        with self._lock:
            self._list.read()
        self._repaint()

    def _on_trash(self, back: RunFolder | None) -> None:
        self._chosen = back.name if back is not None else self._chosen
        self.clear_error()
        self.refresh()

    def _on_row(self, key: int) -> None:
        with self._lock:
            self._chosen = self._list.by_key(key)
        self._repaint()

    def _on_heading(self, key: str) -> None:
        self._list.sort_by(key)
        self.go_to(0)
        self.soon(self._read_page)

    def _on_recorded(self, too: bool) -> None:
        with self._lock:
            self._list.recorded, self.pages.page = too, 0
        self.refresh()

    def _on_kind(self, kind: str) -> None:
        with self._lock:
            self._list.kind, self.pages.page = kind, 0
        self.refresh()


def details_html(row: RunRow) -> str:
    """Return the folder of a run, its error, and its settings, as HTML."""
    error = row.info.get("error")
    facts = {"folder": str(row.run.path)} | {
        name.replace("_", " "): _plain(value) for name, value in row.info["settings"].items()
    }
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<details><summary>Settings</summary><dl>{lines}</dl></details>" + (
        f'<div role="alert">{escape(str(error))}</div>' if error else ""
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
