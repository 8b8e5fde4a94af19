"""All panels of a lab as tabs, in the order of the work.

A tab is built when it is first opened, and rebuilt when its runs have changed. A thread builds it, so that the page
stays responsive. If a step that the tab needs is missing, the tab names that step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from tokalign_lab.runs.chain import NO_MODEL
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import has_result

from .common.background import submit
from .common.job import JobPanel
from .common.panel import Panel
from .common.part import bar, html
from .lab_boxes import FlowBar, RecordedBar, export_html, model_box, next_html, report_box, step_states
from .training.forms import TuneForm

if TYPE_CHECKING:
    from .lab import Lab


TABS = {
    "pair": "Pair",
    "lexicon": "Lexicon",
    "maps": "Maps",
    "diagnosis": "Diagnosis",
    "model": "Model",
    "recovery": "Recovery",
    "export": "Export",
    "compare": "Compare",
    "runs": "Runs",
    "report": "Report",
}
_OF_THE_LEXICON = ("lexicon", "maps", "diagnosis", "compare", "report")


class LabTabs(Panel):
    """All panels of a lab, as tabs."""

    def __init__(self, lab: Lab) -> None:
        super().__init__("tokalign lab", "tl-lab", lab.lab_state)
        self.lab = lab
        self._made_of: dict[str, Any] = {}  # for each tab, the runs that its panels were made from
        self._noting = threading.Lock()
        # One thread per tab: if two panels show one run, only the newer follows it, and it must be the visible one.
        self._making = {name: threading.RLock() for name in TABS}
        self._boxes = {name: w.VBox() for name in TABS}
        self._makers: dict[str, Callable[[], list[w.Widget]]] = {
            "pair": self._make_pair,
            "lexicon": lambda: [lab.panels.lexicon()],
            "maps": lambda: [lab.panels.maps()],
            "diagnosis": lambda: [lab.panels.diagnosis()],
            "model": self._make_model,
            "recovery": self._make_recovery,
            "export": self._make_export,
            "compare": lambda: [lab.panels.compare()],
            "runs": lambda: [lab.panels.runs()],
            "report": lambda: [report_box(lab.report)],
        }
        for name, box in self._boxes.items():
            box.add_class(f"tl-tab-{name}")
        self._tabs = w.Tab(children=list(self._boxes.values()), titles=list(TABS.values()))
        self._tabs.add_class("tl-lab-tabs")
        self._tabs.selected_index = list(TABS).index(self.tab)
        self._tabs.observe(self.guarded(lambda change: self._on_tab(change["new"])), names="selected_index")
        self._recorded = RecordedBar(lab.look_at_recorded, lab.look_at_own)
        self._flow = FlowBar(lambda tab: setattr(self.lab_state, "tab", tab))
        row = bar(self._flow, self._recorded.open_button)
        row.add_class("tl-lab-head")
        self._next = html("tl-what-next")
        self._fill([row, self._next, self._recorded, self._tabs], row)
        self._watch(lambda _change: self._follow(), "work")
        self._watch(self._on_state_tab, "tab")
        lab.work.start_waiting()
        self._follow()

    @property
    def tab(self) -> str:
        """Name of the open tab."""
        return self.lab_state.tab if self.lab_state.tab in TABS else "pair"

    def refresh(self) -> None:
        """Rebuild the open tab."""
        self._made_of.pop(self.tab, None)
        self.clear_error()
        self._show()

    def to_code(self) -> str:
        """Return code that shows the lab again; the view is stored in its folder."""
        return f"from tokalign_lab.widgets import Lab\n\nLab(runs={str(self.lab.runs)!r})"

    def _on_tab(self, index: int) -> None:
        self.lab_state.tab = list(TABS)[index]

    def _on_state_tab(self, _change: Any) -> None:
        self._tabs.selected_index = list(TABS).index(self.tab)
        self._show()

    def _follow(self) -> None:
        """Watch the runs, to show their results as soon as they exist."""
        self.follow(f"lab:{self.lab.runs.resolve()}", self._poll)

    def _poll(self) -> bool:
        self._show()
        return True  # a run may be started or resumed at any time, in any panel or shell

    def _needs(self, tab: str) -> Any:
        """Return the runs that a tab depends on; when they change, the tab is rebuilt."""
        if tab in _OF_THE_LEXICON:
            run = self.lab.work.find("align")
            return None if run is None else (run.name, run.state)
        work = self.lab_state.work
        chain = ("align", "rearrange", "adapt")
        steps = {"pair": chain[:1], "model": chain[:2], "recovery": chain, "export": chain, "runs": ()}[tab]
        made = [has_result(run) for step in chain[1:] if (run := self.lab.work.find(step))]
        return tuple(work.get(step) for step in steps), made if tab in ("model", "export") else []

    def _show(self) -> None:
        """Build the open tab unless it already shows the current runs."""
        run = self.lab.work.find("align")
        self._recorded.show(run)
        states = step_states(self.lab.work)
        self._flow.show(states)
        self._next.value = next_html(states, self.lab.runs, run is not None and run.recorded)
        tab, needs = self.tab, self._needs(self.tab)
        with self._noting:
            if tab in self._made_of and self._made_of[tab] == needs:
                return
            self._made_of[tab] = needs
        if tab in _OF_THE_LEXICON and (needs is None or needs[1] != "finished"):
            self._put(tab, [_words(_why_not(self.lab.work.find("align")))])
            return
        if not self._boxes[tab].children:
            self._put(tab, [_words("Opening …")])

        def work() -> None:
            with self._making[tab]:
                if self._made_of.get(tab) != needs:
                    return  # outdated: the tab has been asked to show another run
                try:
                    self._put(tab, self._makers[tab]())
                except Exception as error:
                    again = self.button("Try again", self.refresh, "Load this tab again")
                    self._put(tab, [_words("This tab could not be shown."), again])
                    self.show_error(error)

        submit(work)

    def _put(self, tab: str, children: list[w.Widget]) -> None:
        if self.closed:
            return
        self.adopt(children)
        box = self._boxes[tab]
        former, box.children = box.children, tuple(children)
        for child in former:
            if child not in children:
                child.close()

    def _make_pair(self) -> list[w.Widget]:
        former = self._boxes["pair"].children
        picker = former[0] if len(former) and isinstance(former[0], Panel) else self.lab.panels.pair()
        run = self.lab.work.find("align")
        if run is None:
            return [picker]
        title = "Aligning {source} with {target}".format_map(run.info()["settings"])
        return [picker, JobPanel(run, title, "the other tabs show the lexicon", self.lab_state)]

    def _make_model(self) -> list[w.Widget]:
        rearranged = self.lab.work.find("rearrange")
        if rearranged is not None:
            return [self.lab.panels.rearranging(rearranged)]
        run = self.lab.work.find("align")
        return [_words(_why_not(run))] if run is None or run.state != "finished" else [model_box(self.lab.work)]

    def _make_recovery(self) -> list[w.Widget]:
        aligned, tuned = self.lab.work.find("align"), self.lab.work.find("adapt")
        if aligned is None:
            return [_words(_why_not(None))]
        made: list[w.Widget] = [] if tuned is None else [self.lab.panels.training(tuned)]
        if aligned.recorded:
            return [*made, _words(NO_MODEL)]
        tune = TuneForm(lambda settings: self.lab.work.tune(**settings), self.lab.tune_defaults)
        return [*made, tune]

    def _make_export(self) -> list[w.Widget]:
        return [w.HTML(export_html(self.lab.work.find("rearrange"), self.lab.work.find("adapt")))]


def _words(text: str) -> w.HTML:
    return w.HTML(f'<div class="tl-empty" role="status">{escape(text)}</div>')


def _why_not(run: RunFolder | None) -> str:
    if run is None:
        return "There is no alignment yet: choose a pair on the tab Pair and click “Run alignment”."
    state = run.state
    if state in ("queued", "running"):
        return "The pair is being aligned; this tab shows the result afterwards. The tab Pair shows the progress."
    return f"Aligning was {state}: {run.info()['error'] or 'see the tab Pair'}"
