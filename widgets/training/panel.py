"""The training monitor: curves, numbers and controls of tuning runs.

A separate process trains. The panel reads the events that the process appends to its run folder, twice a second, in the
one watcher thread of all panels. After a restart of the kernel, a new panel on the same folder shows the whole curve.
Other runs can be overlaid on the first; buttons, numbers and stage bands always belong to the first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd
import plotly.graph_objects as go

from tokalign_lab.errors import InputError
from tokalign_lab.plots.curves import MOST_RUNS, CurveOptions, curves_figure, fitting_smoothing, update_curves
from tokalign_lab.plots.theme import CONFIG, template
from tokalign_lab.runs.control import list_runs
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.folding import ALL_TEXT
from tokalign_lab.runs.following import Reference, RunFeed, measured_text
from tokalign_lab.runs.gallery import plain_title, recorded_runs
from tokalign_lab.runs.words import status_words

from ..common.job import RunControls
from ..common.numbers import cards, meanings
from ..common.panel import Panel, mark_of
from ..common.part import Folds, bar, html, shown, state_html
from ..common.state import LabState
from .curves import OptionsBar, Samples, curves_table, more_numbers, numbers_of, verdict_html
from .forms import AgainForm

LOG_LINES = 15
_CHOOSE = ("Choose a run …", "")
Run = RunFolder | Path | str


class TrainingPanel(Panel):
    """Monitor tuning runs; pause, cancel and resume one, or start it again with other settings.

    Raises `InputError` if a folder contains no run, or if there are no or too many runs.

    Parameters
    ----------
    run : a run or its folder, or several of them, at most `curves.MOST_RUNS`
    reference : bits per byte of the first run's source model with its own tokenizer; by default the result of the
        "measure" run in the same folder, if there is one
    state : shared view
    value, axis, smoothing, part : initial settings of the curves, see `CurveOptions`; by default smoothing fits the
        length of the first run
    watched_by : name of the panel's owner; a new panel of the same owner on the same run stops the earlier one
    """

    figure: go.FigureWidget

    def __init__(
        self,
        run: Run | Sequence[Run],
        reference: float | None = None,
        state: LabState | None = None,
        value: str = CurveOptions.value,
        axis: str = "step",
        smoothing: float | None = None,
        part: str = ALL_TEXT,
        watched_by: str = "",
    ) -> None:
        super().__init__("Training monitor", "tl-train", state)
        self._lock = threading.RLock()  # callbacks and the watcher's thread draw on the same figure
        self.on_runs: Callable[[list[RunFolder]], None] | None = None  # called when other runs are shown
        self._feeds = _feeds_of([run] if isinstance(run, (RunFolder, Path, str)) else run)
        self._reference = Reference(reference, self._feeds[0])
        fitting = fitting_smoothing(self.view.total_steps)
        self._build(CurveOptions(value, axis, fitting if smoothing is None else smoothing, part))
        self._name = f"run{watched_by}:{self._feeds[0].key}"
        self._watch(self._on_new_theme, "theme")
        self._redraw()
        self._follow()

    def _build(self, options: CurveOptions) -> None:
        self._log, self._settings = html(), html()
        self._state_line, self._cards = html("tl-run-state"), html("tl-run-cards")
        self._table, self._note = html(), html("tl-curves-note")
        tooltip, wide = "Share of the steps that are done", w.Layout(width="100%")
        self._progress = self.control(w.FloatProgress, "Progress", tooltip=tooltip, min=0.0, max=1.0, layout=wide)
        self.controls = RunControls(lambda: self.run, self._follow)
        self.again = AgainForm(self._on_started)
        self.curve_bar = OptionsBar(options, self._on_options)
        self.samples = Samples()
        self._other = self.menu(
            "Overlay run", self._on_other, options=[_CHOOSE], tooltip="Draw another run in the same plots"
        )
        self._alone = self.button("Clear overlays", lambda: self.show_runs([self.run]), "Draw only the first run")
        self.figure = go.FigureWidget(curves_figure(self.views, options, self.lab_state.theme, places=MOST_RUNS))
        self.figure._config = self.figure._config | CONFIG
        self._offer_runs()
        self.folds = Folds(
            {
                "Curves": (
                    "axes, smoothing, and other runs to overlay",
                    [bar(self._other, self._alone), self.curve_bar],
                ),
                "Details": (
                    "more numbers, the curves as a table, the settings",
                    [self._cards, self._table, self._settings],
                ),
                "Start again": ("a new run with changed settings", [self.again]),
            }
        )
        top = bar(self._head, self.controls)
        top.add_class("tl-top")  # text of a running job changes its size; the buttons must not move
        self._fill(
            [
                top, self._state_line, self._progress, self._log, self.figure, self._note,
                self.folds, self.samples,
            ],
            self.folds.row,
        )  # fmt: skip

    @property
    def run(self) -> RunFolder:
        """The first run, which the buttons apply to."""
        return self._feeds[0].run

    @property
    def runs(self) -> list[RunFolder]:
        """All runs in the plots."""
        return [feed.run for feed in self._feeds]

    @property
    def view(self) -> Any:
        """The `RunView` of the first run."""
        return self._feeds[0].view

    @property
    def views(self) -> list[Any]:
        """The `RunView` of each run."""
        return [feed.view for feed in self._feeds]

    @property
    def selection(self) -> pd.DataFrame:
        """All measurements so far, one value per row: run, quantity ("what"), step, value."""
        rows = []
        for view in self.views:
            for table, prefix in ((view.trained, ""), (view.measured, "bits_per_byte")):
                for name in table.names():
                    what = " ".join(filter(None, (prefix, name)))
                    rows += [(view.name, what, s, v) for s, v in zip(table.steps, table.column(name), strict=True)]
        return pd.DataFrame(rows, columns=["run", "what", "step", "value"]).dropna(subset="value")

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the runs, the state of the first run, and the settings of the curves."""
        options = self.curve_bar.options
        return super().state | {
            "run": str(self.run.path), "runs": [str(run.path) for run in self.runs],
            "run_state": self.run.state, "share": self.view.share,
            "value": options.value, "axis": options.axis, "smoothing": options.smoothing, "part": options.part,
        }  # fmt: skip

    def show_runs(self, runs: Sequence[Run]) -> None:
        """Show these runs instead of the current ones; a run that stays is not read again.

        Raises `InputError` if a folder contains no run, or if there are no or too many runs.
        """
        feeds = _feeds_of(runs, self._feeds)
        with self._lock:
            self.unfollow(self._name)
            self._name = f"{self._name.split(':')[0]}:{feeds[0].key}"
            self._feeds = feeds
        self._renew()
        if self.on_runs is not None:
            self.on_runs(self.runs)

    def refresh(self) -> None:
        """Read the run folders again from the beginning and draw everything."""
        with self._lock:
            for feed in self._feeds:
                feed.again()
        self._renew()

    def _renew(self) -> None:
        """Find the reference of the current runs, draw them, and follow them."""
        with self._lock:
            self._reference.find_for(self._feeds[0])
        self._offer_runs()
        self._redraw()
        self._follow()

    def _call(self) -> list[str]:
        options, paths = self.curve_bar.options, [str(run.path) for run in self.runs]
        plain = CurveOptions(smoothing=fitting_smoothing(self.view.total_steps))
        changed = {name: value for name, value in vars(options).items() if value != getattr(plain, name)}
        given = self._reference.given
        reference = [] if given is None else [f"reference={given!r}"]
        return [repr(paths if len(paths) > 1 else paths[0]), *reference, *(f"{n}={v!r}" for n, v in changed.items())]

    def _follow(self) -> None:
        """Watch until all runs have ended."""
        self.follow(self._name, self._poll)

    def _poll(self) -> bool:
        """Read new events and redraw what changed; returns whether any run continues."""
        with self._lock:
            left = [feed for feed in self._feeds if feed is self._feeds[0] or (feed.run.path / "run.json").exists()]
            if len(left) < len(self._feeds):  # an overlaid run was deleted
                self._feeds = left
                self._draw()
            changed = [feed.place for feed in self._feeds if feed.poll()]
            found = self._reference.update_view(self._feeds[0])
            self._show_state()  # before the curves, which the page takes longer to draw
            if changed or found:
                self._draw(None if found else changed)
            return self._reference.awaited or any(feed.info["state"] not in ENDED for feed in self._feeds)

    def _on_options(self) -> None:
        self._store_view("training", dict(vars(self.curve_bar.options)))
        self._redraw()

    def _redraw(self) -> None:
        with self._lock:
            self._reference.update_view(self._feeds[0])
            self._show_state()
            self._draw()

    def _draw(self, changed: Sequence[int] | None = None) -> None:
        views, options = self.views, self.curve_bar.options
        placed = {feed.place: feed.view for feed in self._feeds}
        self.curve_bar.offer_reported(views)
        with self.figure.batch_update():
            update_curves(self.figure, placed, options, changed)
        self._table.value = curves_table(placed, options)
        self.samples.show(views)
        numbers, more = numbers_of(self.view), more_numbers(self.view)
        self._cards.value = cards(more) + meanings(list(dict(numbers + more)))
        self.headline(f"Recovery: {plain_title(self.run)}", verdict_html(self.view), numbers)
        self._settings.value = self._settings_html()
        self.mark(mark_of(*self.runs))
        self._note.value = self._note_html()
        self.again.of(self.run, self._feeds[0].info["settings"])

    def _show_state(self) -> None:
        info, asked = self._feeds[0].info, self.run.asked
        state = info["state"]
        self._state_line.value = state_html(
            state, asked, status_words(info, self.view, time.time()), bool(info.get("recorded"))
        )
        self._progress.value = 1.0 if state == "finished" else self.view.share
        self._progress.description = f"{self._progress.value:.0%}"
        shown(self._progress, state != "finished")
        self.controls.show(info["kind"], state, asked)
        shown(self.controls, state != "finished")
        if state in ("failed", "lost"):
            tail = f'<pre class="tl-log" tabindex="0">{escape(self.run.log_tail(LOG_LINES))}</pre>'
            reason = escape(str(info["error"]))
            self._log.value = f'<div role="alert"><b>{reason}</b> Last lines of the log:{tail}</div>'
        else:
            self._log.value = ""

    def _settings_html(self) -> str:
        settings = ", ".join(
            f"{name.replace('_', ' ')} {value if not isinstance(value, list) else ', '.join(map(str, value))}"
            for name, value in self._feeds[0].info["settings"].items() if name not in ("model", "prompts")
        )  # fmt: skip
        where = "It runs in a separate process: closing this page or restarting the kernel does not stop it."
        if self.run.recorded:
            where = "It is not running: the figures are recorded."
        return f"<div class='tl-note'>Settings: {escape(settings)}. {where}</div>"

    def _note_html(self) -> str:
        """Return a note on the overlaid runs: which numbers cannot be compared."""
        if len(self._feeds) == 1:
            return ""
        text, *others_text = (measured_text(feed.info, feed.run.path) for feed in self._feeds)
        pairs = zip(self._feeds[1:], others_text, strict=True)
        others = [f"“{escape(feed.view.name)}”" for feed, other in pairs if other != text]
        odd = f" Not comparable (other held-out text): bits per byte of {', '.join(others)}." * bool(others)
        return f"<div class='tl-note'>Stages, reference and control belong to “{escape(self.view.name)}”.{odd}</div>"

    def _offer_runs(self) -> None:
        """Offer the other tuning runs of the folder as overlays."""
        shown = {feed.key for feed in self._feeds}
        siblings = list_runs(self.run.path.resolve().parent)
        others = [run for run in siblings + recorded_runs() * (not self.run.recorded) if run.info()["kind"] == "adapt"]
        free = [(run.title, str(run.path)) for run in others if str(run.path.resolve()) not in shown]
        self.offer(self._other, [_CHOOSE, *free], "")
        self._other.disabled = len(shown) >= MOST_RUNS or not free
        self._alone.disabled = len(shown) == 1

    def _on_other(self, path: str) -> None:
        if path:
            self.soon(lambda: self.show_runs([*self.runs, path]))  # in a thread: reading many events takes a moment

    def _on_started(self, new: RunFolder) -> None:
        """Show the new run, with the earlier runs as overlays."""
        self.clear_error()
        self.show_runs([new, *self.runs][:MOST_RUNS])

    def _on_new_theme(self, change: Any) -> None:
        with self._lock, self.figure.batch_update():
            self.figure.layout.template = template(change["new"])


def _feeds_of(runs: Sequence[Run], known: Sequence[RunFeed] = ()) -> list[RunFeed]:
    """Return one feed per distinct run; feeds in `known` keep their position in the events and their colour."""
    read = {feed.key: feed for feed in known}
    folders = [run if isinstance(run, RunFolder) else RunFolder(run) for run in runs]
    keys = dict.fromkeys(str(folder.path.resolve()) for folder in folders)
    if not 0 < len(keys) <= MOST_RUNS:
        raise InputError(f"The monitor shows 1 to {MOST_RUNS} runs, not {len(keys)}.")
    taken = {read[key].place for key in keys if key in read}
    free = iter([place for place in range(MOST_RUNS) if place not in taken])
    return [read[key] if key in read else RunFeed(key, next(free)) for key in keys]
