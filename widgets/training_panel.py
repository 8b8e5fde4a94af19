"""The training monitor: a run folder, watched.

Nothing here trains. The job is a process of its own; this reads what it appends to its run folder, twice a second, in
the one watcher thread of all panels. A restarted kernel makes a new panel on the same folder and has the whole curve.
"""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets as w
import pandas as pd
import plotly.graph_objects as go

from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.widgets.background import WATCHER, submit
from tokalign_lab.widgets.figures import curves_figure, update_curves
from tokalign_lab.widgets.panel import Panel, bar, button
from tokalign_lab.widgets.run_view import STATE_WORDS, RunView, status_words, view_of
from tokalign_lab.widgets.state import LabState
from tokalign_lab.widgets.theme import CONFIG, template

LOG_LINES = 15
DEFAULT_STEPS = 100  # `AdaptSettings.steps`, when the run's settings do not say


class TrainingPanel(Panel):
    """Watch, cancel and resume a tuning run.

    Parameters
    ----------
    run : run folder, or its path
    floor : bits per byte of the source model with its own tokenizer, or a "measure" run that finds it out
    state : shared view
    """

    def __init__(
        self,
        run: RunFolder | Path | str,
        floor: float | RunFolder | None = None,
        state: LabState | None = None,
    ) -> None:
        super().__init__("Training monitor", "tl-train", state)
        self.run = run if isinstance(run, RunFolder) else RunFolder(run)
        info = self.run.reconcile()
        self._floor_run = floor if isinstance(floor, RunFolder) else None
        self._floor = floor if isinstance(floor, float) else None
        self._drawn = False
        self._events, self._offset = self.run.events()
        self._find_floor()
        self.view = self._folded(info)
        self._build(info)
        self._watch(self._on_new_theme, "theme")
        self._name = f"run:{self.run.path.resolve()}"
        self._look()
        self._follow()

    def _build(self, info: dict[str, Any]) -> None:
        self._state_line = w.HTML()
        self._state_line.add_class("tl-run-state")
        self._progress = w.FloatProgress(min=0.0, max=1.0, description="Progress", layout=w.Layout(width="100%"))
        self._cancel = button("Cancel", self.cancel, "tl-cancel", "Stop at the next step; the last checkpoint stays")
        self._resume = button("Resume", self.resume, "tl-resume", "Go on from the last checkpoint")
        self.figure = go.FigureWidget(curves_figure(self.view, self.lab_state.theme))
        self.figure._config = self.figure._config | CONFIG
        self._table, self._samples, self._log = w.HTML(), w.HTML(), w.HTML()
        self._samples.add_class("tl-samples")
        settings = info["settings"]
        told = ", ".join(
            f"{name.replace('_', ' ')} {value if not isinstance(value, list) else ', '.join(map(str, value))}"
            for name, value in settings.items() if name not in ("model", "prompts")
        )  # fmt: skip
        heading = w.HTML(
            f"<h3>Tuning: {escape(self.run.name)}</h3><div class='tl-note'>{escape(told)}. It runs in its own process: "
            "closing this page or restarting the kernel does not stop it.</div>"
        )
        line = bar(self._state_line, self._cancel, self._resume)
        self._fill([heading, line, self._progress, self.figure, self._table, self._samples, self._log])

    @property
    def selection(self) -> pd.DataFrame:
        """Everything measured so far: step, what, value."""
        view = self.view
        rows = [("loss", s, v) for s, v in zip(view.steps, view.losses, strict=True)]
        rows += [("bits_per_byte", s, v) for s, v in zip(view.evaluated_at, view.bits_per_byte, strict=True)]
        return pd.DataFrame(rows, columns=["what", "step", "value"])

    @property
    def state(self) -> dict[str, Any]:
        """The shared view, the run, and how far it is."""
        return super().state | {
            "run": str(self.run.path),
            "run_state": self.run.state,
            "share": self.view.share,
        }

    def cancel(self) -> None:
        """Ask the run to stop; returns at once."""
        self.run.request_cancel()
        self._cancel.disabled = True
        self._cancel.description = "Cancelling …"

    def resume(self) -> None:
        """Go on from the last checkpoint; the process starts away from this callback."""
        self._resume.disabled = True

        def work() -> None:
            self.run.resume()
            self._follow()

        submit(self.guarded(work))

    def refresh(self) -> None:
        """Read the run folder again from the beginning and draw everything."""
        self._events, self._offset, self._drawn = [], 0, False
        self._look()

    def close(self) -> None:
        """Stop watching; the run goes on."""
        if not self.closed:
            WATCHER.stop(self._name, self._tick)
        super().close()

    def _follow(self) -> None:
        if self.run.info()["state"] not in ENDED or self._awaits_floor():
            WATCHER.watch(self._name, self._tick)

    def _tick(self) -> bool:
        """One look; False when there is nothing more to come."""
        if self.closed:
            return False
        try:
            ended = self._look()
        except Exception as error:  # a thread's exceptions are seen by no one: the panel must say them
            self.show_error(error)
            return False
        return not ended or self._awaits_floor()

    def _awaits_floor(self) -> bool:
        return self._floor is None and self._floor_run is not None and self._floor_run.info()["state"] not in ENDED

    def _look(self) -> bool:
        """Read what is new, repaint what changed; returns whether the run has ended."""
        info = self.run.reconcile()
        events, self._offset = self.run.events(self._offset)
        self._events += events
        self._find_floor()
        told = any(event.get("kind") != "heartbeat" for event in events)
        if told or not self._drawn or self.view.floor != self._floor:
            before, self.view = self.view, self._folded(info)
            if before != self.view:
                with self.figure.batch_update():
                    update_curves(self.figure, self.view, self.lab_state.theme)
            self._show_figures()
            self._drawn = True
        elif events:
            self.view.last_sign = events[-1].get("time")
        self._show_state(info)
        return info["state"] in ENDED

    def _folded(self, info: dict[str, Any]) -> RunView:
        return view_of(self._events, int(info["settings"].get("steps", DEFAULT_STEPS)), self._floor)

    def _find_floor(self) -> None:
        if self._floor is None and self._floor_run is not None:
            try:
                found = [e for e in self._floor_run.events()[0] if e.get("kind") == "evaluation"]
            except InputError:
                return
            self._floor = float(found[-1]["bits_per_byte"]) if found else None

    def _show_state(self, info: dict[str, Any]) -> None:
        state, running = info["state"], info["state"] in ("running", "queued")
        asked = running and self.run.cancel_file.exists()
        word = "cancelling" if asked else STATE_WORDS[state]
        self._state_line.value = (
            f'<span role="status"><span class="tl-state tl-state-{state}">{word}</span> '
            f"{escape(status_words(info, self.view, time.time()))}</span>"
        )
        self._progress.value = 1.0 if state == "finished" else self.view.share
        self._progress.description = f"{self._progress.value:.0%}"
        self._cancel.disabled = not running or asked
        self._cancel.description = "Cancelling …" if asked else "Cancel"
        self._resume.disabled = state not in ("cancelled", "failed", "lost")
        if state in ("failed", "lost"):
            tail = f'<pre class="tl-log">{escape(self.run.log_tail(LOG_LINES))}</pre>'
            self._log.value = (
                f'<div role="alert"><b>{escape(str(info["error"]))}</b> The last lines of its log:{tail}</div>'
            )
        else:
            self._log.value = ""

    def _show_figures(self) -> None:
        """Return the curves' table twin, and the samples."""
        view = self.view
        measured = [
            "<th scope='row'>Held-out text, bits a byte</th>",
            *(f"<td>{v:.3f}</td>" for v in view.bits_per_byte),
        ]
        head = "".join(f"<th scope='col'>step {step:,}</th>" for step in view.evaluated_at)
        if view.bits_per_byte:
            floor = "" if view.floor is None else (
                "<div class='tl-note'>The source model with its own tokenizer, the floor to come back to: "
                f"{view.floor:.3f}.</div>"
            )  # fmt: skip
            self._table.value = (
                f"<div class='tl-table-scroll'><table class='tl-table tl-figures'><thead><tr><th></th>{head}</tr>"
                f"</thead><tbody><tr>{''.join(measured)}</tr></tbody></table></div>{floor}"
            )
        if view.samples:
            self._samples.value = samples_html(view)

    def _on_new_theme(self, change: Any) -> None:
        with self.figure.batch_update():
            self.figure.layout.template = template(change["new"])


def samples_html(view: RunView) -> str:
    """How each prompt is continued, first and latest measurement."""
    by_prompt: dict[str, list[tuple[int, str]]] = {}
    for step, prompt, text in view.samples:
        by_prompt.setdefault(prompt, []).append((step, text))
    lines = []
    for prompt, texts in by_prompt.items():
        for step, text in texts if len(texts) == 1 else (texts[0], texts[-1]):
            lines.append(f"<tr><td>step {step:,}</td><td><b>{escape(prompt)}</b></td><td>{escape(text)}</td></tr>")
    return (
        "<table class='tl-table tl-texts'><caption>How the model continues a prompt: at first, and now</caption><tbody>"
        f"{''.join(lines)}</tbody></table>"
    )
