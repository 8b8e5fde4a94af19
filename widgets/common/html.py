"""HTML that several panels show."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tokalign_lab.runs.words import state_word


def state_html(state: str, asked: str = "", more: str = "", recorded: bool = False) -> str:
    """Return a run's state as a coloured word, and what else there is to say."""
    word = escape(state_word(state, asked, recorded))
    return f'<span role="status"><span class="tl-state tl-state-{escape(state)}">{word}</span> {escape(more)}</span>'


def token(label: str) -> str:
    """Return a token's label as HTML."""
    return f'<span class="tl-token">{escape(label)}</span>'


def card(value: str, name: str, meaning: str = "", style: str = "") -> str:
    """Return a figure with its name under it; `value` and `name` are HTML, `meaning` is text for a tooltip."""
    title = f' title="{escape(meaning)}"' if meaning else ""
    return (
        f'<div class="tl-card{style and " " + style}"{title}><div class="tl-card-value">{value}</div>'
        f'<div class="tl-card-name">{name}</div></div>'
    )


def cards(made: Sequence[str]) -> str:
    """Return cards side by side; nothing where there are none."""
    return f'<div class="tl-cards">{"".join(made)}</div>' if made else ""
