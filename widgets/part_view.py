"""Scores of parts of a lexicon, and the documents that drive them, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

from tokalign_lab.evaluation.part_scores import MEASURES

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
