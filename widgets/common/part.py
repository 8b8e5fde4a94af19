"""The base class of panels and their parts: controls, work in threads, following runs, errors.

ipywidgets hides exceptions in callbacks, and so do threads. So a part wraps every callback, and its panel shows the
exception: the message of an `InputError`, or any other exception with its traceback. The panel sets `Part.panel` when
the part is added to it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import anywidget
import ipywidgets as w
import traitlets as t

from tokalign_lab.runs.words import state_word

from .background import WATCHER, submit

if TYPE_CHECKING:
    from .panel import Panel

T = TypeVar("T")


class Part:
    """A mixin for boxes that are a part of a panel.

    Attributes
    ----------
    panel : the panel that contains the part; None before the part is added to one: exceptions then reach the caller
    """

    panel: Panel | None = None
    _quiet_in: int | None = None

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Wrap a callback so that the panel shows its exceptions; a closed panel ignores the call."""

        @functools.wraps(callback)
        def safe(*arguments: Any, **named: Any) -> None:
            if self.panel is None:
                callback(*arguments, **named)
            elif not self.panel.closed:
                try:
                    callback(*arguments, **named)
                except Exception as error:
                    self.panel.show_error(error)

        return safe

    def soon(self, work: Callable[[], Any], button: w.Button | None = None) -> None:
        """Run `work` in a thread; `button` is disabled until it is done."""
        if button is None:
            submit(self.guarded(work))
            return
        button.disabled = True

        def run() -> None:
            try:
                work()
            finally:
                button.disabled = False

        submit(self.guarded(run))

    @functools.cached_property
    def _asked(self) -> dict[str, object]:
        """The newest request for each `about`."""
        return {}

    def newest(
        self,
        work: Callable[[Callable[[], bool]], T],
        show: Callable[[T], object] | None = None,
        failed: Callable[[], object] | None = None,
        about: str = "",
        after_s: float = 0.0,
    ) -> None:
        """Compute something in a thread, and show it unless a newer request has arrived meanwhile.

        Parameters
        ----------
        work : called with a function that returns False once a newer request has replaced this one
        show : called with the result of `work`
        failed : called before an error is shown
        about : subject of the request; a newer request about the same subject replaces this one
        after_s : seconds to wait first
        """
        mine = self._asked[about] = object()

        def wanted() -> bool:
            return self._asked[about] is mine and not (self.panel is not None and self.panel.closed)

        def run() -> None:
            if not wanted():
                return
            try:
                found = work(wanted)
            except Exception:
                if not wanted():
                    return
                if failed is not None:
                    failed()
                raise
            if show is not None and wanted():
                show(found)

        submit(self.guarded(run), after_s)

    def drop(self, about: str = "") -> None:
        """Discard the result of the current request with this `about`."""
        self._asked[about] = object()

    def follow(self, name: str, poll: Callable[[], bool]) -> None:
        """Poll now, and then twice a second while `poll` returns True and the panel is open.

        A later call with the same name replaces this one.
        """

        def tick() -> bool:
            continues = False

            def ask() -> None:
                nonlocal continues
                continues = poll()

            self.guarded(ask)()
            return continues

        if tick():
            WATCHER.watch(name, tick)
            if self.panel is not None:
                self.panel.followed[name] = tick

    def unfollow(self, name: str) -> None:
        """Stop following this."""
        tick = self.panel.followed.pop(name, None) if self.panel is not None else None
        if tick is not None:
            WATCHER.stop(name, tick)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within the block, setting a control triggers no callback: only the user's choices do."""
        before, self._quiet_in = self._quiet_in, threading.get_ident()
        try:
            yield
        finally:
            self._quiet_in = before

    def on_value(self, control: w.Widget, action: Callable[[Any], Any]) -> None:
        """Call `action(value)` when the user changes a control."""

        def heard(change: dict[str, Any]) -> None:
            if self._quiet_in != threading.get_ident():
                action(change["new"])

        control.observe(self.guarded(heard), names="value")

    def offer(self, control: w.Dropdown, options: Sequence[Any], value: Any) -> None:
        """Change the options and the value without a callback."""
        with self.quiet():
            if list(control.options) != list(options):
                control.options = options
            control.value = value

    def button(self, label: str, action: Callable[[], Any], help: str, style: str = "") -> w.Button:
        """Make a button with a label; `action` takes no arguments."""
        made = w.Button(description=label, tooltip=help, button_style=style)
        made.layout.width = "auto"
        safe = self.guarded(action)
        made.on_click(lambda _button: safe())
        return made

    def control(
        self, kind: Any, label: str, action: Callable[[Any], Any] | None = None, *, tooltip: str, **more: Any
    ) -> Any:
        """Make a control of the ipywidgets class `kind`; `action` is called with its value when the user changes it."""
        made = kind(description=label, tooltip=tooltip, _dom_classes=[help_class(tooltip)], **more)
        if action is not None:
            self.on_value(made, action)
        return made

    def menu(self, label: str, action: Callable[[Any], Any] | None = None, **more: Any) -> Any:
        """Make a dropdown menu."""
        return self.control(w.Dropdown, label, action, **more)

    def entry(self, label: str, action: Callable[[Any], Any] | None = None, **more: Any) -> Any:
        """Make a field for one line of text."""
        return self.control(w.Text, label, action, **more)

    def check(self, label: str, action: Callable[[Any], Any] | None = None, **more: Any) -> Any:
        """Make a check box as wide as its label."""
        made = self.control(w.Checkbox, label, action, **{"value": False, "indent": False} | more)
        made.layout.width = "auto"
        return made


class Box(Part, w.VBox):
    """Parts stacked vertically without clipping."""

    def __init__(self, children: Sequence[w.Widget] = (), **more: Any) -> None:
        super().__init__(children, **more)
        self.add_class("tl-box")


class Bar(Part, w.HBox):
    """Parts side by side; they wrap if the panel is narrow."""

    def __init__(self, children: Sequence[w.Widget] = (), **more: Any) -> None:
        super().__init__(children, **more)
        self.add_class("tl-bar")


def bar(*children: w.Widget) -> Bar:
    """Put controls side by side."""
    return Bar(children)


class Folds(Box):
    """A row of buttons; each opens or closes a section below the row. All are closed at first.

    Parameters
    ----------
    parts : for the name of each button, a description for its tooltip, and the widgets of the section

    Attributes
    ----------
    on_open : for the name of a section, a function that is called before it opens
    """

    def __init__(self, parts: Mapping[str, tuple[str, Sequence[w.Widget]]]) -> None:
        self.bodies = {name: Box(children) for name, (_, children) in parts.items()}
        self.buttons = {
            name: self.button(name, partial(self.toggle, name), f"Open or close: {words}")
            for name, (words, _) in parts.items()
        }
        self.on_open: dict[str, Callable[[], Any]] = {}
        for name, body in self.bodies.items():
            body.add_class("tl-fold-body")
            self.toggle(name, False)
        self.row = bar(*self.buttons.values())
        super().__init__([self.row, *self.bodies.values()])
        self.add_class("tl-folds")

    def is_open(self, name: str) -> bool:
        """Whether a section is open."""
        return self.bodies[name].layout.display != "none"

    def toggle(self, name: str, yes: bool | None = None) -> None:
        """Open or close a section; by default, whichever it is not."""
        yes = not self.is_open(name) if yes is None else yes
        if yes and name in self.on_open:
            self.on_open[name]()
        shown(self.bodies[name], yes)
        self.buttons[name].remove_class("tl-closed" if yes else "tl-open")
        self.buttons[name].add_class("tl-open" if yes else "tl-closed")


class PressHtml(anywidget.AnyWidget):
    """Shows `html`; calls `on_press` with the value of `data-press` when the user chooses an element that has one."""

    _esm = Path(__file__).parent / "press_html.js"
    html = t.Unicode("").tag(sync=True)

    def __init__(self, on_press: Callable[[str], Any]) -> None:
        super().__init__()
        self.on_press = on_press
        self.on_msg(lambda _widget, content, _buffers: self.on_press(content["pressed"]))


def help_class(tooltip: str) -> str:
    """Return the CSS class that links a control to its tooltip (see `ThemeProbe.help`)."""
    return f"tl-help-{crc32(tooltip.encode())}"


def html(hook: str = "", value: str = "") -> w.HTML:
    """Make a widget that shows HTML, with the CSS class `hook`."""
    made = w.HTML(value=value)
    if hook:
        made.add_class(hook)
    return made


def status_html(words: str, kind: str = "") -> str:
    """Return text as HTML that a screen reader announces; `kind` is a CSS class."""
    style = f' class="{kind}"' if kind else ""
    return f'<div{style} role="status" aria-live="polite">{escape(words)}</div>'


def shown(widget: w.Widget, yes: bool) -> None:
    """Show a widget, or hide it."""
    widget.layout.display = "" if yes else "none"


def state_html(state: str, asked: str = "", more: str = "", recorded: bool = False) -> str:
    """Return a run's state as a coloured word, followed by `more`."""
    word = escape(state_word(state, asked, recorded))
    return f'<span role="status"><span class="tl-state tl-state-{escape(state)}">{word}</span> {escape(more)}</span>'


def token(label: str) -> str:
    """Return a token's label as HTML."""
    return f'<span class="tl-token">{escape(label)}</span>'
