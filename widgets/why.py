"""Why a pair is what it is, as HTML: where it came from, candidates, what the row is made of, neighbours, contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.evaluation.contexts import Context

EMPTY = (
    '<div class="tl-empty">Choose a row to see why its pair was chosen: where it came from, the other candidates, and '
    "what the new embedding row is made of.</div>"
)


@dataclass(frozen=True)
class Neighbour:
    """A near token, its cosine, and whether its partner is among the other side's neighbours."""

    label: str
    cosine: float
    met: bool


def figure(value: float) -> str:
    """Three decimals, – for what is not known."""
    return f"{value:.3f}" if np.isfinite(value) else "–"


def token(label: str) -> str:
    """Return a token's label as HTML."""
    return f'<span class="tl-token">{escape(label)}</span>'


def why_html(details: Mapping[str, Any]) -> str:
    """Why a target token got its source, as HTML; `details` is from `LexiconView.details`, with `pieces_of`."""
    source = token(details["source"]) if details["source"] else "no single token"
    used = f", its source {details['source_count']:,} times" if details["source_count"] else ""
    parts = [
        f"<h4>{token(details['target'])} ← {source}</h4>",
        f'<p><span class="tl-origin tl-origin-{details["origin"]}">{details["origin"]}</span> '
        f"{escape(ORIGINS[details['origin']])}. Score {figure(details['score'])}, margin "
        f"{figure(details['margin'])}. The text uses the target token {details['target_count']:,} times{used}.</p>",
        _spelled(details),
    ]
    if details["candidates"]:
        parts.append(_ranking("Candidates, best first", "score", details["candidates"]))
    apart = details["output_sources"] and details["output_sources"] != details["sources"]
    if details["sources"]:
        title = "The new input row is mixed from" if apart else "The new row is mixed from"
        parts.append(_ranking(title, "weight", details["sources"]))
        if apart:
            parts.append(_ranking("The new output row is mixed from", "weight", details["output_sources"]))
    else:
        parts.append("<p>The new row rests on no source token of its own.</p>")
    return "".join(parts)


def _spelled(details: Mapping[str, Any]) -> str:
    """Bytes on both sides, and the source tokens that spell the target."""
    if "bytes" not in details:
        return ""
    ours, theirs = details["bytes"]
    if not ours:
        return "<p>A special token: it stands for a role, not for bytes.</p>"
    if ours == theirs:
        return f"<p>Both tokens are the same bytes: <code>{ours}</code>.</p>"
    spelled = ""
    if "pieces" in details:  # known only with the source's tokenizer
        pieces = " ".join(token(label) for label in details["pieces"])
        spelled = f" The source spells it {pieces}." if pieces else " The source cannot spell it."
    return f"<p>Its bytes are <code>{ours}</code>, those of its source <code>{theirs or '–'}</code>.{spelled}</p>"


def _ranking(title: str, measure: str, items: Sequence[tuple[int, str, float]]) -> str:
    longest = max((abs(value) for _, _, value in items), default=1.0) or 1.0
    lines = "".join(
        f'<tr><td>{token(label)}</td><td class="tl-number">{value:.3f}</td>'
        f'<td class="tl-meter"><span style="width:{max(0.0, value) / longest:.0%}"></span></td></tr>'
        for _, label, value in items
    )
    return (
        f'<table class="tl-ranking"><caption>{title}</caption><thead class="tl-hidden"><tr><th>source token</th>'
        f"<th>{measure}</th><th>as a bar</th></tr></thead><tbody>{lines}</tbody></table>"
    )


def neighbours_html(target: Sequence[Neighbour], source: Sequence[Neighbour]) -> str:
    """Nearest tokens in both spaces, side by side; those that are partners of one another are marked."""
    if not target and not source:
        return '<p class="tl-note">Neither token has a vector, so there are no neighbours to show.</p>'
    met = sum(neighbour.met for neighbour in target)
    said = f"{met} of {len(target)} target neighbours have their source among the neighbours on the right (✓)."
    sides = "".join(
        f'<table class="tl-ranking"><caption>{title}</caption><thead class="tl-hidden"><tr><th>token</th>'
        "<th>cosine</th><th>has its partner on the other side</th></tr></thead>"
        f"<tbody>{_lines(found)}</tbody></table>"
        for title, found in (("Near the target token", target), ("Near its source token", source))
    )
    return f'<h4>Neighbours</h4><div class="tl-two">{sides}</div><p class="tl-note">{said}</p>'


def _lines(found: Sequence[Neighbour]) -> str:
    if not found:
        return '<tr><td colspan="3">it has no vector</td></tr>'
    return "".join(
        f'<tr><td>{token(one.label)}</td><td class="tl-number">{one.cosine:.3f}</td>'
        f'<td class="tl-met">{"✓" if one.met else ""}</td></tr>'
        for one in found
    )


def contexts_html(target: tuple[list[Context], int], source: tuple[list[Context], int]) -> str:
    """Where the text uses both tokens."""
    sides = ""
    for title, (found, total) in (("target token", target), ("source token", source)):
        lines = "".join(
            f"<li><span>{escape(one.before)}</span><mark>{escape(one.token)}</mark><span>{escape(one.behind)}</span></li>"
            for one in found
        )
        said = f"{len(found)} of {total:,} places" if found else "The text does not use it"
        sides += f"<p><b>The {title} in the text</b> <small>({said})</small></p><ul class='tl-contexts'>{lines}</ul>"
    return f"<h4>Contexts</h4>{sides}"
