"""Scores of a lexicon and of parts of it as HTML: name, figure and meaning of each, and the documents behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.evaluation.part_scores import MEASURES

from ..common.html import card, cards
from .view import LexiconView

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
    told = [
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
                told.append((f"{name}, {arrow}", f"{value:.3f}", meaning))
    for key, (name, meaning) in _TWINS.items():
        if key in measured.get("held_out", {}):
            told.append((name, f"{measured['held_out'][key]:.1%}", meaning))
    return told


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


def cards_html(told: Sequence[Card]) -> str:
    """Figures side by side; the meaning is under a "What do these mean?" and in each figure's tooltip."""
    meanings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, _, meaning in told)
    made = cards([card(escape(value), escape(name), meaning) for name, value, meaning in told])
    return f'{made}<details class="tl-note"><summary>What do these mean?</summary><dl>{meanings}</dl></details>'


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


PART_WORDS = {
    "all": "All tokens",
    "filter": "Found by the filter",
    "selection": "Selected",
    "edited": "Edited by hand",
}
MEASURE_WORDS = {
    "bleu1": (
        "BLEU-1",
        "mean over held-out documents that hold one of these tokens: the document is written in target tokens, each is "
        "replaced by its source token, and compared with the source's own tokens (clipped unigram precision times "
        "brevity penalty); n documents",
    ),
    "match": (
        "Match at these tokens",
        "the same precision at the places of these tokens only: the share of their uses whose source token the "
        "document has too, each as often as it is there; n uses, intervals over documents",
    ),
    "sentence_score": (
        "Sentence score",
        "mean over the same documents (200 at most) of the cosine between sentence embeddings of the text before and "
        "after (what the papers call BERTScore); n documents",
    ),
    "bert_score": (
        "BERTScore",
        "mean over the same documents of the F1 of matching token embeddings (Zhang et al. 2020); the packaged encoder "
        "reads English; n documents",
    ),
    "p_at_1": (
        "P@1",
        "of those of these tokens that both vocabularies have and that were hidden from the recipe: the share whose "
        "twin was found first; it judges the vectors, so that edits do not change it; n hidden tokens",
    ),
}
_INTERVALS = "In brackets the 95 % bootstrap interval. All are from target to source."


def parts_html(scores: Mapping[str, Any]) -> str:
    """Scores by part as a table, with n, interval and definition; `scores` is `PartScores.to_dict()`."""
    columns = [(PART_WORDS.get(part, part), found) for part, found in scores["parts"].items()]
    if scores["before"]:
        columns = []
        for part, found in scores["parts"].items():
            words = PART_WORDS.get(part, part)
            columns += [
                (f"{words}, before", scores["before"][part]),
                (f"{words}, now", found),
                (f"{words}, change", scores["changes"][part]),
            ]
    head = "".join(f'<th scope="col">{escape(words)}</th>' for words, _ in columns)
    lines = ""
    for measure in MEASURES:
        if any(measure in found for _, found in columns):
            name, meaning = MEASURE_WORDS[measure]
            cells = "".join(
                f"<td>{_interval(found.get(measure), words.endswith('change'))}</td>" for words, found in columns
            )
            lines += f'<tr><th scope="row" title="{escape(meaning)}">{name}</th>{cells}</tr>'
    meanings = "".join(f"<dt>{name}</dt><dd>{escape(meaning)}</dd>" for name, meaning in MEASURE_WORDS.values())
    return (
        f'<div class="tl-table-scroll"><table class="tl-table tl-parts"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
        f'<details class="tl-note"><summary>What do these mean?</summary><p>{_INTERVALS}</p>'
        f"<dl>{meanings}</dl></details>"
    )


def _interval(interval: Mapping[str, Any] | None, signed: bool = False) -> str:
    if interval is None:
        return "–"
    sign = "+" if signed else ""
    low, high = interval["low"], interval["high"]
    return (
        f"<b>{interval['mean']:{sign}.3f}</b> <small>[{low:{sign}.3f}, {high:{sign}.3f}], n = {interval['n']:,}</small>"
    )


def documents_html(documents: Sequence[Mapping[str, Any]]) -> str:
    """Documents, worst first, each as original against round trip with the differences marked."""
    if not documents:
        return '<p class="tl-note">No held-out document holds these tokens.</p>'
    shown = "".join(_document(document, number == 0) for number, document in enumerate(documents))
    return (
        "<h4>Documents that lose most</h4><p class='tl-note'>Above, the text in the source's own tokens; below, the "
        "same text in target tokens, each replaced by its source token. <del>Struck</del>: lost. "
        f"<ins>Underlined</ins>: came in its place; ∅ is a token without any source.</p>{shown}"
    )


def _document(document: Mapping[str, Any], is_open: bool) -> str:
    before, after = differences(document["original"], document["mapped"])
    name = f"{escape(document['name'])} ({escape(document['slice'])})"
    return (
        f"<details class='tl-document'{' open' * is_open}><summary>BLEU-1 {document['bleu1']:.3f}: {name}</summary>"
        f'<div class="tl-round"><b>Original</b><p>{before}</p><b>Round trip</b><p>{after}</p></div></details>'
    )


def differences(original: Sequence[str], mapped: Sequence[str]) -> tuple[str, str]:
    """Both token sequences as HTML: what only the original has in <del>, what only the round trip has in <ins>."""
    before, after = "", ""
    for kind, a, b, c, d in SequenceMatcher(None, original, mapped, autojunk=False).get_opcodes():
        lost, came = _read(original[a:b]), _read(mapped[c:d])
        before += lost if kind == "equal" else f"<del>{lost}</del>" * bool(lost)
        after += came if kind == "equal" else f"<ins>{came}</ins>" * bool(came)
    return before, after


def _read(labels: Sequence[str]) -> str:
    """Tokens as running text: a space mark becomes a space, so that lines can be broken there."""
    return escape("".join(label or "∅" for label in labels)).replace("␣", " ").replace("↵", "↵\u200b")
