"""JupyterLab's theme, as Python sees it.

A plotly figure does not follow the page. `ThemeProbe` is an invisible widget that reports light or dark; panels set
their figure's template (`plots.theme`) from it. It also brings the style sheets of all panels (css/) to the page.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets as t

_HERE = Path(__file__).parent


class ThemeProbe(anywidget.AnyWidget):
    """Reports the page's theme; `label` becomes the accessible name of the panel around it."""

    _esm = _HERE / "theme.js"
    _css = "\n".join(file.read_text(encoding="utf-8") for file in sorted((_HERE / "css").glob("*.css")))
    dark = t.Bool(False).tag(sync=True)
    seen = t.Bool(False).tag(sync=True)  # False until a page has answered
    label = t.Unicode("").tag(sync=True)
