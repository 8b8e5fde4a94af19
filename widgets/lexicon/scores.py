"""Scores of a lexicon and of parts of it as HTML, and the documents behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.evaluation.finding import WITHOUT_EVIDENCE
from tokalign_lab.evaluation.part_scores import MEASURES
from tokalign_lab.evaluation.row_findings import NOTHING_POOR, NOTHING_WARN

from ..common.numbers import DIRECTIONS, MEANINGS, SCORES, Number, meanings, score_in, share
from .view import LexiconView

FOUR = ("shared_text", "p_at_1", "bleu1", "seen")


def lexicon_numbers(view: LexiconView, scores: Mapping[str, Any] | None) -> list[Number]:
    """Return the four numbers that matter most of a lexicon; what was not measured is not among them."""
    text = view.count.sum() or 1
    copied = view.origin.isin(("identical", "role")).to_numpy()
    found = {
        "shared_rows": share(copied.mean()),
        "shared_text": share(view.count[copied].sum() / text),
        "seen": share((view.count > 0).mean()),
    }
    for key in ("p_at_1", "bleu1"):
        if (score := score_in(scores, key)) is not None:
            found[key] = _figure(key, score)
    four = [key for key in FOUR if key in found]
    return [(key, found[key]) for key in (*four, *(["shared_rows"] * (len(four) < len(FOUR))))]


def verdict_html(view: LexiconView) -> str:
    """Judge a lexicon by what the rows rest on that the text uses; the bounds are those of the diagnosis."""
    text = view.count.sum() or 1
    nothing, *others = (
        float(view.count[view.origin.isin(origins).to_numpy()].sum() / text)
        for origins in (WITHOUT_EVIDENCE, ("identical", "role"), ("aligned", "edited"), ("pieces",))
    )
    severity, word = (
        ("poor", "poor") if nothing > NOTHING_POOR else ("warn", "check it") if nothing > NOTHING_WARN else ("ok", "ok")
    )
    copied, matched, spelled = map(share, others)
    return (
        f'<span class="tl-state tl-severity-mark-{severity}">{word}</span> {copied} of the text is in shared tokens, '
        f"whose rows are copied; {matched} was matched by vectors, {spelled} is mixed from pieces, "
        f"{share(nothing)} rests on nothing."
    )


def score_table(scores: Mapping[str, Any] | None) -> str:
    """Return all scores of a lexicon, in both directions, as HTML; "" where none was measured."""
    lines = ""
    for key in SCORES:
        found = [score_in(scores, key, direction) for direction in DIRECTIONS]
        if any(found):
            cells = "".join(f'<td class="tl-number">{_figure(key, score)}</td>' for score in found)
            lines += _score_row(key, cells)
    if not lines:
        return ""
    heads = "".join(f'<th scope="col" class="tl-number">{arrow}</th>' for arrow in DIRECTIONS.values())
    return (
        '<table class="tl-plain"><caption>Scores on held-out text</caption><thead><tr><th scope="col">Score</th>'
        f"{heads}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _score_row(key: str, cells: str) -> str:
    return f'<tr title="{escape(MEANINGS[key].words)}"><th scope="row">{MEANINGS[key].name}</th>{cells}</tr>'


def _figure(key: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "–"
    return share(score["mean"]) if key.startswith("p_at") else f"{score['mean']:.3f}"


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


PART_WORDS = {"all": "All tokens", "filter": "Found by the filter", "selection": "Selected", "edited": "Edited by hand"}
_COUNTED = (
    "From target to source, with 95 % bootstrap intervals. n counts the held-out documents that hold one of these "
    "tokens, for the match uses of the tokens, for P@1 held-out shared tokens. Edits do not change P@1: it judges the "
    "vectors."
)


def parts_html(scores: Mapping[str, Any]) -> str:
    """Scores by part as a table, with n, interval and definition; `scores` is a `PartScores` as JSON."""
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
            cells = "".join(
                f"<td>{_interval(found.get(measure), words.endswith('change'))}</td>" for words, found in columns
            )
            lines += _score_row(measure, cells)
    return (
        f'<div class="tl-table-scroll"><table class="tl-table tl-parts"><caption>{_COUNTED}</caption><thead><tr>'
        f"<th></th>{head}</tr></thead><tbody>{lines}</tbody></table></div>{meanings(MEASURES)}"
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
