"""Recorded runs on the screen: the mark that every panel of one carries, and the offer to look at one."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_chains, recorded_words

from .part import Box, bar, html, shown

_OFFER = (
    "<b>No runs of yours here yet.</b> You can look at a recorded run first: a real pair, with every figure and curve "
    "as it was measured. Nothing is computed or fetched."
)
_OFFER_MORE = "Recorded runs come with the package; yours stay as they are."


def mark_html(words: str) -> str:
    """Return the mark of a recorded run: when and how it was made in view, details one click away; "" for no words."""
    if not words:
        return ""
    made, _, rest = words.partition(". ")
    what, _, how = made.partition(": ")
    return (
        f'<div class="tl-recorded" role="note"><details><summary><b>{escape(what)}</b>: {escape(how)}.</summary>'
        f"{escape(rest)}</details></div>"
    )


def mark_of(*runs: RunFolder) -> str:
    """Return the mark of the first of these runs that is a recorded one; "" where none is."""
    return mark_html(next((words for run in runs if (words := recorded_words(run.info()))), ""))


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
