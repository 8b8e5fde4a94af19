"""A typed text as token chips, in one vocabulary or in two at once.

In the pair view the text is cut wherever *both* tokenizers cut (at the same byte), and each piece stands in a column
of its own: source tokens above, target tokens below, so that what begins at the same byte begins at the same place.
Where they agree on a token the column is plain; where one needs more tokens than the other it is outlined. A screen
reader hears the columns as a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from tokalign_lab.vocabulary import Vocabulary

Span = tuple[int, int, int]  # token id, first byte, byte after the last

MAX_BYTES = 600  # a longer text is cut, with a notice, before it can choke the page


@dataclass(frozen=True)
class Block:
    """A stretch of text between two cuts that both tokenizers make."""

    source: list[Span]
    target: list[Span]

    @property
    def same(self) -> bool:
        """Whether both tokenizers write this stretch as one token."""
        return len(self.source) == len(self.target) == 1


def shared_blocks(source: list[Span], target: list[Span]) -> list[Block]:
    """Cut two tokenizations of one text at their common byte boundaries.

    Tokens that cover no byte (SentencePiece's dummy space) go with the block that follows them.
    """
    cuts = sorted({0} | ({end for _, _, end in source} & {end for _, _, end in target}))
    limits = cuts[1:] or [0]
    blocks = []
    at = [0, 0]
    for limit in limits:
        parts: list[list[Span]] = []
        for side, spans in enumerate((source, target)):
            start = at[side]
            while at[side] < len(spans) and spans[at[side]][2] <= limit:
                at[side] += 1
            parts.append(spans[start : at[side]])
        blocks.append(Block(*parts))
    rest = source[at[0] :], target[at[1] :]
    return [*blocks, Block(*rest)] if any(rest) else blocks


def clipped(text: str) -> str:
    """Return the beginning of a text that still fits on a page, cut between characters."""
    return text.encode()[:MAX_BYTES].decode("utf-8", "ignore")


def chips(vocabulary: Vocabulary, spans: list[Span], first: int = 0) -> str:
    """Tokens as HTML chips; `first` is the number of the first, so that colours go on alternating."""
    return "".join(
        f'<span class="tl-chip tl-chip-{(first + place) % 2}" '
        f'title="{escape(_explain(vocabulary, token_id, end - start))}">{escape(vocabulary.label(token_id))}</span>'
        for place, (token_id, start, end) in enumerate(spans)
    )


def pair_html(source: Vocabulary, target: Vocabulary, text: str) -> str:
    """Both tokenizations of a text as HTML, column by column, with counts and bytes per token."""
    shown = clipped(text)
    spans = source.spans(shown), target.spans(shown)
    blocks = shared_blocks(*spans)
    columns, done = [], [0, 0]
    for block in blocks:
        rows = []
        for side, (vocabulary, part) in enumerate(((source, block.source), (target, block.target))):
            rows.append(f'<div class="tl-block-row">{chips(vocabulary, part, done[side])}</div>')
            done[side] += len(part)
        kind = "tl-same" if block.same else "tl-differs"
        columns.append(
            f'<div class="tl-block {kind}" role="listitem" aria-label="{escape(_aloud(source, target, block))}">'
            f"{''.join(rows)}</div>"
        )
    agreeing = sum(block.same for block in blocks)
    n_bytes = len(shown.encode())
    notice = "" if shown == text else f" Only the first {n_bytes} bytes are shown."
    return (
        f'<div class="tl-pair"><div class="tl-pair-names"><div>{_side(source, len(spans[0]), n_bytes)}</div>'
        f"<div>{_side(target, len(spans[1]), n_bytes)}</div></div>"
        f'<div class="tl-blocks" role="list" aria-label="{len(spans[0])} source tokens above {len(spans[1])} target '
        f'tokens">{"".join(columns)}</div></div>'
        f'<div class="tl-note">Cut alike at {len(blocks)} places; {agreeing} of those pieces are one token on both '
        f"sides, outlined pieces differ.{notice}</div>"
    )


def _side(vocabulary: Vocabulary, n_tokens: int, n_bytes: int) -> str:
    rate = f"{n_bytes / n_tokens:.2f} bytes a token" if n_tokens else "no tokens"
    return f"<b>{escape(vocabulary.name)}</b><br><small>{n_tokens} tokens, {rate}</small>"


def _aloud(source: Vocabulary, target: Vocabulary, block: Block) -> str:
    ours, theirs = (
        " ".join(vocabulary.label(token_id) for token_id, _, _ in part) or "nothing"
        for vocabulary, part in ((source, block.source), (target, block.target))
    )
    return f"both {ours}" if block.same and ours == theirs else f"source {ours}, target {theirs}"


def _explain(vocabulary: Vocabulary, token_id: int, n_bytes: int) -> str:
    spelled = vocabulary.token_bytes[token_id]
    as_bytes = "control token" if spelled is None else " ".join(f"{byte:02X}" for byte in spelled)
    return f"id {token_id}\nown form {vocabulary.raw_token(token_id)!r}\nbytes {as_bytes}\ncovers {n_bytes} bytes here"
