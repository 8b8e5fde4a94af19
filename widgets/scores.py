"""Figures at the head of a panel: a value, its name, and what it means, never one without the other two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tokalign_lab.alignment.lexicon import ORIGINS

if TYPE_CHECKING:
    from tokalign_lab.widgets.lexicon_view import LexiconView

Card = tuple[str, str, str]  # name, value, meaning


def head_html(view: LexiconView, scores: Mapping[str, Any] | None, edited: int) -> str:
    """Return the head of the inspector: the pair, figures, where rows came from; `edited` is how many by hand."""
    names = view.lexicon.provenance
    title = f"{names['source']['name']} → {names['target']['name']}"
    said = f", {edited:,} of them edited by hand (the scores are of the recipe's rows)" if edited else ""
    return (
        f"<h3>Lexicon: {escape(title)}</h3><div class='tl-note'>recipe “{escape(str(names['recipe']))}”, "
        f"{len(view.lexicon):,} target tokens{said}, learned from {names.get('text_bytes', 0) / 1e6:.2f} MB of text"
        f"</div>"
        f"{cards_html(score_cards(view, scores))}{origins_html(view.origin_counts)}"
    )


def score_cards(view: LexiconView, scores: Mapping[str, Any] | None) -> list[Card]:
    """Return the figures of a lexicon; what was not measured is not shown."""
    used = view.count > 0
    text = view.count.sum() or 1
    copied = view.origin.isin(("identical", "role")).to_numpy()
    cards = [
        ("Spelled alike", f"{copied.mean():.1%}", "target tokens whose bytes (or role) the source vocabulary has too"),
        ("Spelled alike in the text", f"{view.count[copied].sum() / text:.1%}", "the same, by use in the text"),
        ("Seen in the text", f"{used.mean():.1%}", "target tokens the text uses at all; spelling decides on the rest"),
    ]  # fmt: skip
    measured = dict(scores or {})
    lexicon = measured.get("lexicon", measured)
    for key, (name, meaning) in _MEASURES.items():
        for direction, arrow in (
            ("target_to_source", "target → source"),
            ("source_to_target", "source → target"),
        ):
            value = (lexicon.get(key) or {}).get(direction)
            if value is not None:
                cards.append((f"{name}, {arrow}", f"{value:.3f}", meaning))
    for key, (name, meaning) in _TWINS.items():
        if key in measured.get("held_out", {}):
            cards.append((name, f"{measured['held_out'][key]:.1%}", meaning))
    return cards


_MEASURES = {
    "bleu1": (
        "BLEU-1",
        "share of words that survive when held-out text is written in one side's tokens, each replaced by its partner, "
        "and read back",
    ),
    "sentence_score": (
        "Sentence score",
        "cosine of the sentence embeddings of a text and of the same text sent through the lexicon (what the paper "
        "calls BERTScore)",
    ),
    "bert_score": (
        "BERTScore",
        "F1 of matching each token's embedding in a text with its most similar one in the same text sent through the "
        "lexicon, and back (Zhang et al. 2020); the packaged encoder reads English",
    ),
}
_TWINS = {
    "p_at_1": (
        "Twin found, P@1",
        "shared tokens that were hidden from the recipe and found their own twin first",
    ),
    "p_at_10": ("Twin in ten, P@10", "hidden shared tokens whose twin is among the first ten candidates"),
}


def cards_html(cards: Sequence[Card]) -> str:
    """Figures side by side; the meaning is under a "What do these mean?" and in each figure's tooltip."""
    boxes = "".join(
        f'<div class="tl-card" title="{escape(meaning)}"><div class="tl-card-value">{escape(value)}</div>'
        f'<div class="tl-card-name">{escape(name)}</div></div>'
        for name, value, meaning in cards
    )
    meanings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, _, meaning in cards)
    return (
        f'<div class="tl-cards">{boxes}</div><details class="tl-note"><summary>What do these mean?</summary>'
        f"<dl>{meanings}</dl></details>"
    )


def origins_html(counts: Mapping[str, int]) -> str:
    """Where the rows came from: a stacked bar, and the same in words."""
    total = sum(counts.values()) or 1
    ordered = [(name, counts[name]) for name in ORIGINS if counts.get(name)]
    stack = "".join(
        f'<span class="tl-origin-{name}" style="flex-grow:{n / total:.4f}" title="{name}: {n:,}"></span>'
        for name, n in ordered
    )
    words = "".join(
        f'<li title="{escape(ORIGINS[name])}"><span class="tl-origin tl-origin-{name}">{name}</span> '
        f"{n:,} <small>({n / total:.1%})</small></li>"
        for name, n in ordered
    )
    return f'<div class="tl-stack" aria-hidden="true">{stack}</div><ul class="tl-origins">{words}</ul>'
