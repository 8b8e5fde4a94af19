"""JupyterLab's theme and clipboard, as Python sees them.

A plotly figure does not follow the page. `ThemeProbe` is an invisible widget that reports light or dark; panels set
their figure's template (`plots.theme`) from it. It also brings the style sheets of all panels (css/) to
the page, and puts text on the clipboard.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t

_HERE = Path(__file__).parent


class ThemeProbe(anywidget.AnyWidget):
    """Reports the page's theme; `label` becomes the accessible name of the panel around it.

    Attributes
    ----------
    on_copied : called with whether the page could put a text on the clipboard
    """

    _esm = _HERE / "theme.js"
    _css = "\n".join(file.read_text(encoding="utf-8") for file in sorted((_HERE / "css").glob("*.css")))
    dark = t.Bool(False).tag(sync=True)
    seen = t.Bool(False).tag(sync=True)  # False until a page has answered
    label = t.Unicode("").tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.on_copied: Callable[[bool], None] | None = None
        self.on_msg(self._on_message)

    def copy(self, text: str) -> None:
        """Have the page put a text on the clipboard."""
        self.send({"copy": text})

    def _on_message(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        if self.on_copied is not None and "copied" in content:
            self.on_copied(bool(content["copied"]))
