"""HTML whose elements can be clicked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t


class PressHtml(anywidget.AnyWidget):
    """Shows `html`; calls `on_press` with the value of `data-press` when the user chooses an element that has one."""

    _esm = Path(__file__).parent / "press_html.js"
    html = t.Unicode("").tag(sync=True)

    def __init__(self, on_press: Callable[[str], Any]) -> None:
        super().__init__()
        self.on_press = on_press
        self.on_msg(lambda _widget, content, _buffers: self.on_press(content["pressed"]))
