"""What a run told as HTML: its state, its latest figures, its continuations."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tokalign_lab.runs.folding import ALL_TEXT, RunView
from tokalign_lab.runs.words import figure, size, state_word


def state_html(state: str, asked: str = "", more: str = "", recorded: bool = False) -> str:
    """Return a run's state as a coloured word, and what else there is to say."""
    word = escape(state_word(state, asked, recorded))
    return f'<span role="status"><span class="tl-state tl-state-{escape(state)}">{word}</span> {escape(more)}</span>'


def cards_html(view: RunView) -> str:
    """Return the latest figures of a run, each with its name; nothing before the first."""
    told, bits = view.trained, view.measured.last(ALL_TEXT)
    floor, memory = view.floors.get(ALL_TEXT), told.last("memory")
    cards = [
        (figure(told.last("loss"), 4), "loss (nats a token)", told.last("loss")),
        (figure(told.last("divergence"), 4), "divergence from the teacher", told.last("divergence")),
        (
            figure(bits, 4) + ("" if floor is None else f" (floor {figure(floor, 4)})"),
            "bits a byte of held-out text",
            bits,
        ),
        (figure(told.last("learning_rate")), "learning rate", told.last("learning_rate")),
        (figure(told.last("grad_norm")), "gradient norm", told.last("grad_norm")),
        (figure(told.last("tokens_per_second")), "tokens a second", told.last("tokens_per_second")),
        (figure(told.last("bytes_per_second")), "bytes of text a second", told.last("bytes_per_second")),
        (figure(told.last("tokens")), "tokens read", told.last("tokens")),
        (size(memory or 0), "memory", memory),
    ]
    shown = "".join(
        f'<div class="tl-card"><div class="tl-card-value">{value}</div><div class="tl-card-name">{name}</div></div>'
        for value, name, there in cards
        if there is not None
    )
    return f'<div class="tl-cards">{shown}</div>' if shown else ""


def samples_html(views: Sequence[RunView], left: int, right: int | None) -> str:
    """How each prompt is continued, by each run, at one step and at another side by side.

    Parameters
    ----------
    left, right : steps; no second column where `right` is None
    """
    steps = [left] if right is None else [left, right]
    lines = []
    for prompt in dict.fromkeys(prompt for view in views for prompt in view.samples):
        for view in views:
            texts = view.samples.get(prompt, {})
            if texts:
                cells = "".join(f"<td>{escape(texts.get(step, '–'))}</td>" for step in steps)
                run = f"<td>{escape(view.name)}</td>" if len(views) > 1 else ""
                lines.append(f"<tr><th scope='row'>{escape(prompt)}</th>{run}{cells}</tr>")
    heads = ["Prompt", *(["Run"] if len(views) > 1 else []), *(f"Continued at step {step:,}" for step in steps)]
    head = "".join(f"<th scope='col'>{word}</th>" for word in heads)
    return (
        "<div class='tl-table-scroll'><table class='tl-table tl-texts'><caption>How the model continues the same "
        f"prompts</caption><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
