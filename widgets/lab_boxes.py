"""Parts of the lab that are not panels: steps and recorded runs above the tabs; the tabs Model, Export and Report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path

from tokalign_lab.runs.chain import NO_MODEL, Chain
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import plain_title, recorded_chains
from tokalign_lab.runs.results import has_result, lost_result

from .common.panel import mark_of
from .common.part import Bar, Box, bar, html, shown, status_html

STEPS = {
    "pair": ("Pair", "Choose the model and its new tokenizer"),
    "lexicon": ("Lexicon", "Align the two vocabularies and check the result"),
    "model": ("Model", "Replace the embedding rows of the model"),
    "recovery": ("Recovery", "Tune the model to recover its quality"),
    "export": ("Export", "Use the model elsewhere"),
}
_RUN_OF = {"lexicon": "align", "model": "rearrange", "recovery": "adapt"}
_WORDS = {"finished": "done", "queued": "waiting", "running": "running", "paused": "paused"}


def step_states(work: Chain) -> dict[str, str]:
    """Return the state of each step: "to do", "waiting", "running", "paused", "done", "missing", "ready" or "stopped".

    "missing" is a lexicon or model that was deleted after its run had finished; "not included", that of a recorded run.
    """
    runs = {step: work.find(kind) for step, kind in _RUN_OF.items()}
    states = {step: "to do" if run is None else _WORDS.get(run.state, "stopped") for step, run in runs.items()}
    states |= {step: "missing" for step, run in runs.items() if run is not None and lost_result(run)}
    made = any(run is not None and has_result(run) for run in (runs["model"], runs["recovery"]))
    export = "not included" if work.shows_recorded else "ready" if made else "to do"
    return {"pair": "to do" if runs["lexicon"] is None else "done", **states, "export": export}


# What to do for a step that is "to do" or "ready", and the tab that shows its progress.
_TO_DO = {
    "lexicon": ("choose a pair. Click “Is it worth it?” for a verdict in about a minute, or “Run alignment”", "Pair"),
    "model": ("check the alignment on the tab Lexicon, then click “Make the model” on the tab Model", "Model"),
    "recovery": ("click “Rearrange and tune” on the tab Recovery: before tuning, the model is much worse", "Recovery"),
    "export": ("use the model; the tab Export shows its folder and how to load it", "Export"),
}
_MAKE_AGAIN = "To make it again, first delete its run on the tab Runs"
_RECORDED = "explore the tabs, then click “Back to your own runs”"


def next_html(states: Mapping[str, str], runs: Path, recorded: bool) -> str:
    """Return the purpose of the lab, what to do next and where the results are stored, as HTML.

    Parameters
    ----------
    states : state of each step; see `step_states`
    runs : folder of the runs
    recorded : whether a recorded run is shown
    """
    active = (one for one in _TO_DO if states[one] in ("running", "waiting"))
    steps = [*_TO_DO]
    done = [number for number, one in enumerate(steps, start=1) if states[one] == "done"]
    step = next(active, None) or steps[max(done, default=0)]  # what led to a finished step is no longer needed
    (words, tab), state, name = _TO_DO[step], states[step], STEPS[step][0]
    if recorded:
        words = _RECORDED
    elif state in ("running", "waiting"):
        words = f"wait: the step {name} is {state}; the tab {tab} shows its progress"
    elif state in ("paused", "stopped"):
        words = f"the step {name} is {state}; see why on the tab Runs, and resume it there"
    elif state == "missing":
        words = f"the result of the step {name} was deleted. {_MAKE_AGAIN}"
    return (
        f'<div role="status">This lab replaces the tokenizer of a language model. <b>Next:</b> {words}.</div>'
        f'<div class="tl-note">All runs and results are stored in {escape(str(runs.resolve()))}.</div>'
    )


_OFFER = (
    "<b>You have no runs here yet.</b> You can look at a recorded run first: a real pair with all its measurements "
    "and curves. Nothing is computed or downloaded."
)
_OFFER_MORE = "Recorded runs are included in the package. Your own runs do not change."


class RecordedBar(Box):
    """Buttons that show a recorded run in all tabs, or the user's own runs again.

    Parameters
    ----------
    show : called with the recorded runs to show, by kind
    leave : called to show the user's own runs again
    """

    def __init__(self, show: Callable[[dict[str, RunFolder]], None], leave: Callable[[], None]) -> None:
        self._chains = {chain["adapt"].name: chain for chain in recorded_chains()}
        self._words = html()
        self._wanted = False
        options = [(plain_title(chain["adapt"]), name) for name, chain in self._chains.items()]
        self.choice = self.menu(
            "Recorded run", options=options, tooltip="The recorded run to show", layout={"width": "380px"}
        )
        self.open_button = self.button("Recorded runs", self._toggle, "Show or hide the runs included in the package")
        self._show = self.button(
            "Look at a recorded run", lambda: show(self._chains[self.choice.value]),
            "Show it in all tabs; your own runs do not change",
        )  # fmt: skip
        self._leave = self.button("Back to your own runs", leave, "Show your own runs in all tabs again")
        super().__init__([self._words, bar(self.choice, self._show, self._leave)])
        self.add_class("tl-recorded-bar")

    def show(self, run: RunFolder | None) -> None:
        """Show when and how a recorded alignment was made, or offer the recorded runs if `run` is None."""
        recorded = run is not None and run.recorded
        shown(self, bool(self._chains) and (recorded or run is None or self._wanted))
        shown(self.open_button, bool(self._chains) and run is not None and not recorded)
        words = _OFFER if run is None else mark_of(run) or _OFFER_MORE
        self._words.value = f'<div role="status">{words}</div>'
        shown(self._leave, recorded)
        self._show.button_style = "primary" if run is None else ""
        self._show.description = "Show this recorded run" if recorded else "Look at a recorded run"

    def _toggle(self) -> None:
        self._wanted = not self._wanted
        shown(self, self._wanted)


class FlowBar(Bar):
    """One button per step from a pair to a model, in order, with the state of the step; a click opens its tab.

    Parameters
    ----------
    go : called with the tab of the clicked step
    """

    def __init__(self, go: Callable[[str], object]) -> None:
        self.steps = {tab: self.button(name, partial(go, tab), help) for tab, (name, help) in STEPS.items()}
        self._states: dict[str, str] = {}
        super().__init__(tuple(self.steps.values()))
        self.add_class("tl-flow")

    def show(self, states: dict[str, str]) -> None:
        """Show the state of each step; see `step_states`."""
        for tab, button in self.steps.items():
            state = states[tab]
            if self._states.get(tab) != state:
                button.remove_class(f"tl-is-{self._states.get(tab, '').replace(' ', '-')}")
                button.add_class(f"tl-is-{state.replace(' ', '-')}")
                button.description = f"{STEPS[tab][0]}: {state}"
        self._states = dict(states)


class ActionBox(Box):
    """A heading, a description, a button, and the outcome of the button's action.

    Parameters
    ----------
    title, words : heading and description, as HTML
    label, help : label and tooltip of the button
    work : the action, called in a thread; returns its outcome as HTML
    """

    def __init__(self, title: str, words: str, label: str, help: str, work: Callable[[], str]) -> None:
        self._work = work
        self._start = self.button(label, self.start, help, "primary")
        self._outcome = html()
        super().__init__(
            [html("", f"<h3>{title}</h3><div class='tl-note'>{words}</div>"), bar(self._start, self._outcome)]
        )

    def start(self) -> None:
        """Run the action in a thread."""
        self._outcome.value = status_html("Working …")

        def work() -> None:
            outcome = ""
            try:
                outcome = f'<span role="status">{self._work()}</span>'
            finally:
                self._outcome.value = outcome

        self.soon(work, self._start)


def report_box(write: Callable[[], Path]) -> ActionBox:
    """Make the button that writes the report; `write` writes it and returns its path."""

    def work() -> str:
        path = write()
        return f"Written: <code>{escape(str(path))}</code>, {path.stat().st_size / 1e6:.1f} MB"

    words = (
        "One HTML file with the pair, the scores, the diagnosis, both maps, the curves, the best and the worst rows, "
        "and the commands that made them. It needs no network."
    )
    return ActionBox("Report", words, "Write the report", "Write the report into the folder of the alignment", work)


def model_box(work: Chain) -> ActionBox:
    """Make the button that starts the "rearrange" run."""

    def start() -> str:
        return f"Started: {escape(work.rearrange().name)}"

    words = (
        "The model keeps its layers. Each target token gets an embedding row, computed as the lexicon specifies. Then "
        "the output is calibrated to the token frequencies in the text of the alignment and in the source model's "
        "predictions."
    )
    return ActionBox("Make the model", words, "Make the model", "Make the model in a separate process", start)


def export_html(rearranged: RunFolder | None, tuned: RunFolder | None) -> str:
    """Return where the newest model is and how to use it, as HTML."""
    runs = [run for run in (tuned, rearranged) if run is not None]
    if any(run.recorded for run in runs):
        return f'<div class="tl-empty" role="status">{escape(NO_MODEL)}</div>'
    made = next((run for run in runs if has_result(run)), None)
    deleted = any(lost_result(run) for run in runs)
    if made is None:
        words = f"The model was deleted. {_MAKE_AGAIN}." if deleted else "No model yet: make one on the tab Model."
        return f'<div class="tl-empty" role="status">{words}</div>'
    folder = str((made.path / "model").resolve())
    untuned = "the tuned one was deleted" if deleted else "not tuned yet"
    which = "tuned" if made is tuned else f"rearranged, {untuned}"
    argument = shlex.quote(folder)
    load = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({folder!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})"
    )
    code = {
        "Check it before you use it": f"tokalign-lab check {argument}",
        "Write it for llama.cpp": f"tokalign-lab export {argument} --gguf model.gguf",
        "Publish it on the Hugging Face hub": f"tokalign-lab export {argument} --push-to-hub ORGANISATION/NAME",
        "Load it": load,
    }
    return (
        f"<h3>Export</h3><div class='tl-verdict'>The newest model is {which}. It is an ordinary Hugging Face "
        f"folder: copy, publish or load it.</div>{_code_html(folder)}"
        + "".join(f"<h4>{heading}</h4>{_code_html(lines)}" for heading, lines in code.items())
    )


def _code_html(lines: str) -> str:
    return f"<pre class='tl-log' tabindex='0'>{escape(lines)}</pre>"
