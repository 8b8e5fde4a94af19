"""Parts of a lab besides the panels: steps and recorded runs above the tabs, and the tabs Model, Export and Report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path

from tokalign_lab.runs.chain import NO_MODEL, Chain
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_chains

from .common.panel import mark_of
from .common.part import Bar, Box, bar, html, said, shown

STEPS = {
    "pair": ("Pair", "Choose the model and the tokenizer it shall get"),
    "lexicon": ("Lexicon", "Align the two vocabularies, and look at the result"),
    "model": ("Model", "Give the model its new rows"),
    "recovery": ("Recovery", "Tune the model until it is as good as it was"),
    "export": ("Export", "Take the model along"),
}
_RUN_OF = {"lexicon": "align", "model": "rearrange", "recovery": "adapt"}
_WORDS = {"finished": "done", "queued": "waiting", "running": "running", "paused": "paused"}


def step_states(work: Chain) -> dict[str, str]:
    """Return the state of each step: "to do", "waiting", "running", "paused", "done", "ready" or "stopped"."""
    runs = {step: work.find(kind) for step, kind in _RUN_OF.items()}
    states = {step: "to do" if run is None else _WORDS.get(run.state, "stopped") for step, run in runs.items()}
    made = any(states[step] == "done" for step in ("model", "recovery")) and not work.looks_at_recorded
    return {"pair": "to do" if runs["lexicon"] is None else "done", **states, "export": "ready" if made else "to do"}


# What to do about a step that is to do or ready, and the tab that shows how far it is.
_TO_DO = {
    "lexicon": ("choose a pair. Press Is it worth it? for a verdict in about a minute, or Run alignment", "Pair"),
    "model": ("see on the tab Lexicon whether the pair is good, then press Make the model on the tab Model", "Model"),
    "recovery": ("press Rearrange and tune on the tab Recovery: right after a swap a model is much worse", "Recovery"),
    "export": ("take the model along; the tab Export has its folder, and how to load it", "Export"),
}
_RECORDED = "look through the tabs, then press Back to your own runs and choose a pair"


def next_html(states: Mapping[str, str], runs: Path, recorded: bool) -> str:
    """Say what the lab is for, what to do next and where results are.

    Parameters
    ----------
    states : how the steps stand; see `step_states`
    runs : the folder of the runs
    recorded : whether a recorded run is looked at
    """
    step = next((one for one in _TO_DO if states[one] != "done"), "export")
    (words, tab), state, name = _TO_DO[step], states[step], STEPS[step][0]
    if recorded:
        words = _RECORDED
    elif state in ("running", "waiting"):
        words = f"wait, the step {name} is {state}; the tab {tab} shows how far it is"
    elif state in ("paused", "stopped"):
        words = f"see on the tab Runs why the step {name} is {state}, and resume it there"
    return (
        f'<div role="status">This lab gives a language model another tokenizer. <b>Next:</b> {words}.</div>'
        f'<div class="tl-note">Every run and its result is kept in {escape(str(runs.resolve()))}.</div>'
    )


_OFFER = (
    "<b>No runs of yours here yet.</b> You can look at a recorded run first: a real pair, with every figure and curve "
    "as it was measured. Nothing is computed or fetched."
)
_OFFER_MORE = "Recorded runs come with the package; yours stay as they are."


class RecordedBar(Box):
    """Offers recorded runs to look at, or the way back from one.

    Parameters
    ----------
    look : called with the runs to look at, by kind
    leave : called to go back
    """

    def __init__(self, look: Callable[[dict[str, RunFolder]], None], leave: Callable[[], None]) -> None:
        self._chains = {chain["adapt"].name: chain for chain in recorded_chains()}
        self._words = html()
        self._wanted = False
        options = [(chain["adapt"].title, name) for name, chain in self._chains.items()]
        self.choice = self.menu(
            "Recorded run", options=options, tooltip="Which one to look at", layout={"width": "380px"}
        )
        self.open_button = self.button(
            "Recorded runs", self._turn, "Open or close: look at a run that comes with the package"
        )
        self._look = self.button(
            "Look at a recorded run", lambda: look(self._chains[self.choice.value]),
            "Show it in all tabs; your own runs stay as they are",
        )  # fmt: skip
        self._leave = self.button("Back to your own runs", leave, "Show your own runs in all tabs again")
        super().__init__([self._words, bar(self.choice, self._look, self._leave)])
        self.add_class("tl-recorded-bar")

    def show(self, run: RunFolder | None) -> None:
        """Follow the alignment that the lab looks at; None where there is none."""
        looking = run is not None and run.recorded
        shown(self, bool(self._chains) and (looking or run is None or self._wanted))
        shown(self.open_button, bool(self._chains) and run is not None and not looking)
        words = _OFFER if run is None else mark_of(run) or _OFFER_MORE
        self._words.value = f'<div role="status">{words}</div>'
        shown(self._leave, looking)
        self._look.button_style = "primary" if run is None else ""

    def _turn(self) -> None:
        self._wanted = not self._wanted
        shown(self, self._wanted)


class FlowBar(Bar):
    """The steps from a pair to a model, in order, each with its state; a press opens its tab.

    Parameters
    ----------
    go : called with the tab of the step that is pressed
    """

    def __init__(self, go: Callable[[str], object]) -> None:
        self.steps = {tab: self.button(name, partial(go, tab), help) for tab, (name, help) in STEPS.items()}
        self._states: dict[str, str] = {}
        super().__init__(tuple(self.steps.values()))
        self.add_class("tl-flow")

    def show(self, states: dict[str, str]) -> None:
        """Show the state of each step; see `step_states`."""
        for number, (tab, button) in enumerate(self.steps.items(), start=1):
            state = states[tab]
            if self._states.get(tab) != state:
                button.remove_class(f"tl-is-{self._states.get(tab, '').replace(' ', '-')}")
                button.add_class(f"tl-is-{state.replace(' ', '-')}")
                button.description = f"{number} {STEPS[tab][0]}: {state}"
        self._states = dict(states)


class Press(Box):
    """A heading, what a button does, the button, and what came of it.

    Parameters
    ----------
    title, words : HTML
    label, help : of the button
    work : does it, away from the callback; returns what to say, as HTML
    """

    def __init__(self, title: str, words: str, label: str, help: str, work: Callable[[], str]) -> None:
        self._work = work
        self._start = self.button(label, self.start, help, "primary")
        self._told = html()
        super().__init__(
            [html("", f"<h3>{title}</h3><div class='tl-note'>{words}</div>"), bar(self._start, self._told)]
        )

    def start(self) -> None:
        """Do it away from the callback."""
        self._told.value = said("Working …")

        def work() -> None:
            told = ""
            try:
                told = f'<span role="status">{self._work()}</span>'
            finally:
                self._told.value = told

        self.soon(work, self._start)


def report_box(write: Callable[[], Path]) -> Press:
    """Make the button that writes one HTML file; `write` writes it and returns its path."""

    def work() -> str:
        path = write()
        return f"Written: <code>{escape(str(path))}</code>, {path.stat().st_size / 1e6:.1f} MB"

    words = (
        "One HTML file with the pair, the scores, the diagnosis, both maps, the curves, the best and the worst pairs, "
        "and the commands that made them. It needs no network."
    )
    return Press("Report", words, "Write the report", "Write it into the folder of the alignment", work)


def model_box(work: Chain) -> Press:
    """Make the button that gives the model its new rows."""

    def start() -> str:
        return f"Started: {escape(work.rearrange().name)}"

    words = "The source model keeps its layers and gets a row for each target token, as in the lexicon."
    return Press("Make the model", words, "Make the model", "Start it in a process of its own", start)


def export_html(rearranged: RunFolder | None, tuned: RunFolder | None) -> str:
    """Return where the newest model is and how to use it, as HTML."""
    runs = [run for run in (tuned, rearranged) if run is not None]
    if any(run.recorded for run in runs):
        return f'<div class="tl-empty" role="status">{escape(NO_MODEL)}</div>'
    made = next((run for run in runs if run.state == "finished" and (run.path / "model").is_dir()), None)
    if made is None:
        return '<div class="tl-empty" role="status">No model yet: make one on the tab Model.</div>'
    folder = escape(str((made.path / "model").resolve()))
    which = "tuned" if made is tuned else "rearranged, not tuned yet"
    return (
        f"<h3>Export</h3><div class='tl-verdict'>The newest model is {which}. It is an ordinary Hugging Face "
        f"folder: copy it, publish it, or load it by its path.</div><pre class='tl-log' tabindex='0'>{folder}</pre>"
        "<h4>Check it before you use it</h4><pre class='tl-log' tabindex='0'>tokalign-lab check "
        f"{folder}</pre><h4>Write it for llama.cpp</h4><pre class='tl-log' tabindex='0'>tokalign-lab export "
        f"{folder} --gguf model.gguf</pre><h4>Load it</h4><pre class='tl-log' tabindex='0'>"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({folder!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})</pre>"
    )
