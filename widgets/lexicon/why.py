"""Explain one pair as HTML: origin, candidates, sources of the row, neighbours and contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from html import escape
from typing import Any

from tokalign_lab.alignment.lexicon import ORIGINS
from tokalign_lab.alignment.search.neighbourhoods import Neighbour, Neighbourhood, around_pair
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import read_parts
from tokalign_lab.evaluation.contexts import Context, contexts
from tokalign_lab.runs.words import fixed
from tokalign_lab.settings.kinds import TextSettings
from tokalign_lab.vectors.token_vectors import TokenVectors

from ..common.part import Box, html, token
from ..common.state import SPACES
from .view import Labels, LexiconView

EMPTY = (
    '<div class="tl-empty">Select a row to see how its pair was chosen: its origin, the other candidates, and the '
    "sources of the new embedding row.</div>"
)


def why_html(details: Mapping[str, Any]) -> str:
    """Return how a target token got its source, as HTML; `details` is from `LexiconView.details` and `pieces_of`."""
    source = token(details["source"]) if details["source"] else "no single token"
    used = f", its source {details['source_count']:,} times" if details["source_count"] else ""
    parts = [
        f"<h4>{token(details['target'])} ← {source}</h4>",
        f'<p><span class="tl-origin tl-origin-{details["origin"]}">{details["origin"]}</span> '
        f"{escape(ORIGINS[details['origin']])}. Score {fixed(details['score'])}, margin "
        f"{fixed(details['margin'])}. The text uses the target token {details['target_count']:,} times{used}.</p>",
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
        parts.append("<p>The new row has no source token.</p>")
    return "".join(parts)


def _spelled(details: Mapping[str, Any]) -> str:
    """Return the bytes of both tokens, and the source tokens that spell the target, as HTML."""
    if "bytes" not in details:
        return ""
    ours, theirs = details["bytes"]
    if not ours:
        return "<p>A special token: it has a role and no bytes.</p>"
    if ours == theirs:
        return f"<p>Both tokens have the same bytes: <code>{ours}</code>.</p>"
    spelled = ""
    if "pieces" in details:  # only with the source's tokenizer
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


_NO_VECTOR = '<tr><td colspan="3">no vector</td></tr>'


def neighbours_html(found: Mapping[str, Sequence[Neighbour]], labels: Labels) -> str:
    """Return the nearest tokens in both spaces (`around_pair`) as HTML; partners on both sides are marked."""
    if not any(found.values()):
        return '<p class="tl-note">Neither token has a vector, so there are no neighbours to show.</p>'
    matched = sum(neighbour.matched for neighbour in found["target"])
    summary = (
        f"{matched} of {len(found['target'])} target neighbours have their partner among the source neighbours (✓)."
    )
    sides = ""
    for space, title in (("target", "Nearest to the target token"), ("source", "Nearest to its source token")):
        lines = "".join(
            f'<tr><td>{token(labels.of(space, one.id))}</td><td class="tl-number">{one.cosine:.3f}</td>'
            f'<td class="tl-met">{"✓" if one.matched else ""}</td></tr>'
            for one in found[space]
        )
        sides += (
            f'<table class="tl-ranking"><caption>{title}</caption><thead class="tl-hidden"><tr><th>token</th>'
            "<th>cosine</th><th>has its partner on the other side</th></tr></thead>"
            f"<tbody>{lines or _NO_VECTOR}</tbody></table>"
        )
    return f'<h4>Neighbours</h4><div class="tl-two">{sides}</div><p class="tl-note">{summary}</p>'


def contexts_html(target: tuple[list[Context], int], source: tuple[list[Context], int]) -> str:
    """Return occurrences of both tokens in the text as HTML."""
    sides = ""
    for title, (found, total) in (("target token", target), ("source token", source)):
        lines = "".join(
            f"<li><span>{escape(one.before)}</span><mark>{escape(one.token)}</mark><span>{escape(one.after)}</span></li>"
            for one in found
        )
        summary = f"{len(found)} of {total:,} occurrences" if found else "not in the text"
        sides += f"<p><b>The {title} in the text</b> <small>({summary})</small></p><ul class='tl-contexts'>{lines}</ul>"
    return f"<h4>Contexts</h4>{sides}"


NEAREST = 8
_NO_VECTORS = (
    '<p class="tl-note">The vectors and the text are not stored with this run, so neighbours and contexts cannot be '
    "shown.</p>"
)


class WhyBox(Box):
    """Explains how one target token got its source.

    Parameters
    ----------
    view : the lexicon
    vectors : vectors of source and target, None for a side without vectors
    text : settings of the alignment's text: `text`, and optionally `max_bytes` and `seed`; None: no contexts
    """

    def __init__(
        self,
        view: LexiconView,
        vectors: tuple[TokenVectors | None, TokenVectors | None],
        text: Mapping[str, Any] | None,
    ) -> None:
        self._view, self._vectors, self._text = view, vectors, text
        self.pair = html("", EMPTY)
        self.neighbours, self.contexts = html(), html()
        super().__init__([self.pair, self.neighbours, self.contexts])
        self.add_class("tl-why")

    def show(self, target_id: int, wait_s: float = 0.0) -> None:
        """Explain this target token (-1: none); after `wait_s`, a thread adds spelling, neighbours and contexts."""
        self.pair.value = why_html(self._view.details(target_id)) if target_id >= 0 else EMPTY
        self.neighbours.value = ""
        searching = target_id >= 0 and self._can_read
        self.contexts.value = '<p class="tl-note">Searching for both tokens in the text …</p>' if searching else ""
        if target_id >= 0:
            self.newest(
                lambda is_current: self._add(target_id, is_current),
                lambda found: setattr(self.contexts, "value", found),
                failed=lambda: setattr(self.contexts, "value", ""),
                after_s=wait_s,
            )

    @property
    def _can_read(self) -> bool:
        return self._text is not None and all(self._view.labels.vocabularies.values())

    def _add(self, target_id: int, is_current: Callable[[], bool]) -> str:
        """Show spelling and neighbours of the token; return its contexts as HTML."""
        source_id = int(self._view.source_of[target_id])
        explained = why_html(self._view.details(target_id) | self._view.pieces_of(target_id))
        if is_current():
            self.pair.value = explained
        if any(vectors is not None and not vectors.is_stored for vectors in self._vectors):
            near = _NO_VECTORS
        elif all(vectors is not None for vectors in self._vectors):
            pair = {"source": source_id, "target": target_id}
            near = neighbours_html(around_pair(self._spaces, pair, self._view.source_of, NEAREST), self._view.labels)
        else:
            near = ""
        if is_current():
            self.neighbours.value = near
        if not self._can_read:
            return ""
        text = self._pair
        return contexts_html(
            contexts(text.target_corpus, text.target, target_id), contexts(text.source_corpus, text.source, source_id)
        )

    @cached_property
    def _spaces(self) -> dict[str, Neighbourhood]:
        return {s: Neighbourhood(own) for s, own in zip(SPACES, self._vectors, strict=True) if own is not None}

    @cached_property
    def _pair(self) -> TokenizedPair:
        """Load the tokenized text of the alignment, which the align run has cached."""
        assert self._text is not None
        train, _ = read_parts(TextSettings.from_dict(self._text))
        source, target = (v for v in self._view.labels.vocabularies.values() if v is not None)
        return tokenize_pair(source, target, train)
