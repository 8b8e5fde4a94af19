"""The base class of all panels: theme, error messages, "Copy as code", closing."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from pprint import pformat
from typing import Any

import anywidget
import ipywidgets as w
import pandas as pd
import traitlets as t
from ipywidgets.widgets.widget_description import DescriptionWidget

from tokalign_lab.errors import InputError
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.gallery import recorded_words

from .background import later
from .numbers import Number, cards
from .part import Bar, Part, help_class, html, shown
from .state import LabState

_HERE = Path(__file__).parent
# A page reports to the model of a figure after drawing it. If that model is closed, the page's console shows an error.
FIGURE_S = 5.0


class ThemeProbe(anywidget.AnyWidget):
    """Reports the page's theme, copies text to the clipboard, and sets tooltips and the panel's accessible name.

    Attributes
    ----------
    label : accessible name of the panel
    on_copied : called with whether the page could copy a text to the clipboard
    help : tooltips by `help_class`, because ipywidgets shows no tooltip for a control that has a label
    """

    _esm = _HERE / "theme.js"
    _css = "\n".join(file.read_text(encoding="utf-8") for file in sorted((_HERE / "css").glob("*.css")))
    dark = t.Bool(False).tag(sync=True)
    seen = t.Bool(False).tag(sync=True)  # False until a page has answered
    label = t.Unicode("").tag(sync=True)
    help: t.Dict[str, str] = t.Dict().tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.on_copied: Callable[[bool], None] | None = None
        self.on_msg(self._on_message)

    def copy(self, text: str) -> None:
        """Copy a text to the page's clipboard."""
        self.send({"copy": text})

    def _on_message(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if self.on_copied is not None and "copied" in content:
            self.on_copied(bool(content["copied"]))


class Panel(Part, w.VBox):
    """A box of widgets that shows one `LabState`.

    Parameters
    ----------
    name : name of the panel, for headings and screen readers
    hook : its CSS class, `tl-...`
    state : shared view; by default the panel makes a new one

    Attributes
    ----------
    figure : the panel's plot, None if it has none; closed `FIGURE_S` seconds after the panel, when no page draws it
    closed : whether `close` was called
    align_run : the run passed to `of_run`; None for a panel that was made in another way
    """

    figure: w.Widget | None = None
    align_run: RunFolder | None = None

    def __init__(self, name: str, hook: str, state: LabState | None) -> None:
        self.lab_state = state if state is not None else LabState()
        self._observed: list[tuple[Callable[..., None], list[str]]] = []
        self.closed = False
        self.panel = self
        self.followed: dict[str, Callable[[], bool]] = {}
        self._probe = ThemeProbe(label=name)
        self._error, self._badge, self._code = html("tl-error"), html("tl-badge"), html("tl-code")
        self._head = html()
        for empty in (self._error, self._badge, self._code):
            shown(empty, False)
        self._copy = self.button("Copy as code", self.copy_code, "Copy code that shows this view again")
        self._copy.add_class("tl-copy-code")
        super().__init__()
        self.add_class("tl-panel")
        self.add_class(hook)
        self._probe.observe(self._on_theme, names=["dark", "seen"])
        self._probe.on_copied = self._show_code

    def __repr__(self) -> str:
        """Return the panel's name. Cells call this, and the method of ipywidgets would copy every figure of the panel.

        Such a copy fails while a thread draws on the figure.
        """
        return f"<{type(self).__name__}: {self._probe.label}>"

    def _fill(self, children: Sequence[w.Widget], row: Bar) -> None:
        """Add all parts. The button "Copy as code" comes last in `row`, which is among them."""
        row.children = (*row.children, self._copy)
        self.children = (self._probe, self._error, self._badge, *children, self._code)
        self.adopt(children)

    def headline(self, title: str, verdict: str, numbers: Sequence[Number] = (), note: str = "") -> None:
        """Show the panel's title, one sentence with the verdict, and the key numbers.

        Parameters
        ----------
        title, note : text; the note follows the title in small print
        verdict : the sentence, as HTML; if it ends in "…", it is styled as work in progress
        numbers : keys of `numbers.MEANINGS`, with their values
        """
        about = f" <small>{escape(note)}</small>" if note else ""
        busy = " tl-busy" * verdict.endswith("…")
        written = (
            f"<h3>{escape(title)}{about}</h3>"
            f'<div class="tl-verdict{busy}" role="status" aria-live="polite">{verdict}</div>'
            f"{cards(numbers)}"
        )
        if self._head.value != written:
            self._head.value = written

    def adopt(self, children: Iterable[w.Widget]) -> None:
        """Set this panel as the `panel` of these parts and their children, and collect their tooltips."""
        with self._probe.hold_sync():
            for child in children:
                if isinstance(child, Panel):
                    continue
                if isinstance(child, Part):
                    child.panel = self
                if isinstance(child, DescriptionWidget) and child.tooltip:
                    self._probe.help = {**self._probe.help, help_class(child.tooltip): child.tooltip}
                self.adopt(getattr(child, "children", ()))

    def _on_theme(self, _change: object) -> None:
        self.lab_state.theme = "dark" if self._probe.dark else "light"

    def mark(self, words: str) -> None:
        """Show a notice above the whole panel; "" removes it."""
        if self._badge.value != words:
            self._badge.value = words
            shown(self._badge, bool(words))

    def _watch(self, callback: Callable[..., None], *names: str) -> None:
        """Call `callback(change)` when these traits of the shared state change, until the panel is closed."""
        safe = self.guarded(callback)
        self.lab_state.observe(safe, names=list(names))
        self._observed.append((safe, list(names)))

    def _store_view(self, name: str, values: dict[str, Any]) -> None:
        """Store this panel's view in the shared state, so that it opens in the same way next time."""
        if self.lab_state.looks.get(name) != values:
            self.lab_state.looks = {**self.lab_state.looks, name: values}

    def show_error(self, error: Exception) -> None:
        """Show an error in the panel."""
        if isinstance(error, InputError):
            message = escape(str(error))
        else:
            trace = "".join(traceback.format_exception(error))
            message = (
                f"{escape(type(error).__name__)}: {escape(str(error))}"
                f"<details><summary>Where this happened</summary><pre>{escape(trace)}</pre></details>"
            )
        self._error.value = f'<div role="alert"><b>This did not work.</b> {message}</div>'
        shown(self._error, True)

    def clear_error(self) -> None:
        """Remove the last error."""
        self._error.value = ""
        shown(self._error, False)

    @property
    def state(self) -> dict[str, Any]:
        """The view as plain values."""
        return self.lab_state.to_dict()

    @property
    def selection(self) -> pd.DataFrame:
        """The selected tokens, one per row."""
        chosen = self.lab_state.selection
        return pd.DataFrame({"space": [chosen.space] * len(chosen.ids), "token_id": list(chosen.ids)})

    def to_code(self) -> str:
        """Return a cell that shows this view again.

        A panel that was not made by `of_run` appears with the names of its arguments, which the user has to fill in.
        """
        name, given = type(self).__name__, [*self._call(), "state=state"]
        call = f"{name}({', '.join(given)})"
        if self.align_run is not None:
            call = f"{name}.of_run({', '.join([repr(str(self.align_run.path)), *given])})"
        view = pformat(self._changed_view(), width=110)
        return f"from tokalign_lab.widgets import LabState, {name}\n\nstate = LabState().restore({view})\n{call}"

    def copy_code(self) -> None:
        """Copy the code of `to_code` to the page's clipboard, and show it below the panel."""
        self._probe.copy(self.to_code())

    def _show_code(self, copied: bool) -> None:
        outcome = "Copied. Paste it into a cell." if copied else "Copying was blocked; select the code and copy it."
        self._code.value = (
            f'<details{"" if copied else " open"}><summary><span role="status">{outcome}</span></summary>'
            f'<pre tabindex="0">{escape(self.to_code())}</pre></details>'
        )
        shown(self._code, True)

    def _changed_view(self) -> dict[str, Any]:
        """Return the shared state that `to_code` has to set: all values that differ from the defaults."""
        fresh = LabState().to_dict()
        return {key: value for key, value in self.lab_state.to_dict().items() if value != fresh[key]}

    def _call(self) -> list[str]:
        """Arguments of the call that `to_code` writes, as code; for `of_run`, those after the run."""
        return []

    def refresh(self) -> None:
        """Redraw everything from the state."""

    def close(self) -> None:
        """Stop following the state and remove the panel from the page."""
        if self.closed:
            return
        self.closed = True
        for name in list(self.followed):
            self.unfollow(name)
        for callback, names in self._observed:
            self.lab_state.unobserve(callback, names=names)
        _close_all(self.children, self.figure)
        super().close()
        if self.figure is not None:
            later(partial(_close_all, [self.figure]), FIGURE_S)


def _close_all(children: Sequence[w.Widget], but: w.Widget | None = None) -> None:
    for child in children:
        if child is but:
            continue
        if not isinstance(child, Panel):  # a panel closes its own children
            _close_all(getattr(child, "children", ()), but)
        child.close()


def mark_html(words: str) -> str:
    """Return the notice of a recorded run as HTML: date and machine, and details that open by a click.

    `words` is from `recorded_words`; "" gives "".
    """
    if not words:
        return ""
    made, _, rest = re.sub("`(.*?)`", r"<code>\1</code>", escape(words)).partition(". ")
    what, _, how = made.partition(": ")
    return (
        f'<div class="tl-recorded" role="note"><details><summary><b>{what}</b>: {how}.</summary>{rest}</details></div>'
    )


def mark_of(*runs: RunFolder) -> str:
    """Return the notice of the first recorded run among these runs; "" if there is none."""
    return mark_html(next((words for run in runs if (words := recorded_words(run.info()))), ""))
