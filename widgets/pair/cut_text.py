"""A text segmented by two to four tokenizers side by side, as HTML.

Each column ends where *all* tokenizers have a token boundary (at the same byte), and has one row per tokenizer. A token
is outlined if no other tokenizer has a token with the same boundaries. A screen reader reads the columns as a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tokalign_lab.merges import History
from tokalign_lab.spelling import visible
from tokalign_lab.vocabulary import Vocabulary

from ..common.part import token

MAX_BYTES = 600  # longer text is truncated, with a notice, to keep the page responsive
Span = tuple[int, int, int]  # token id, first byte, byte after the last
Block = list[list[Span]]  # the tokens of each tokenizer between two common boundaries


def clipped(text: str) -> str:
    """Return the first `MAX_BYTES` bytes of a text, cut between characters."""
    return text.encode()[:MAX_BYTES].decode("utf-8", "ignore")


def shared_blocks(cuts: Sequence[list[Span]]) -> list[Block]:
    """Cut several tokenizations of one text at their common byte boundaries.

    Tokens that cover no byte (SentencePiece's dummy space) belong to the block after them.
    """
    common = {0} | set.intersection(*({end for _, _, end in spans} for spans in cuts))
    at = [0] * len(cuts)
    blocks: list[Block] = []
    for limit in sorted(common)[1:] or [0]:
        block: Block = []
        for side, spans in enumerate(cuts):
            start = at[side]
            while at[side] < len(spans) and spans[at[side]][2] <= limit:
                at[side] += 1
            block.append(spans[start : at[side]])
        blocks.append(block)
    last = [spans[start:] for spans, start in zip(cuts, at, strict=True)]
    return [*blocks, last] if any(last) else blocks


def cut_html(vocabularies: Sequence[Vocabulary], text: str) -> str:
    """Return a text as each tokenizer segments it, as HTML columns, with counts and bytes per token."""
    shown = clipped(text)
    cuts = [vocabulary.spans(shown) for vocabulary in vocabularies]
    blocks = shared_blocks(cuts)
    bounds = [{(start, end) for _, start, end in spans} for spans in cuts]
    columns, done = [], [0] * len(cuts)
    for block in blocks:
        rows = []
        for side, spans in enumerate(block):
            others = set().union(*bounds[:side], *bounds[side + 1 :])
            chips = "".join(
                _chip(vocabularies[side], side, span, (done[side] + index) % 2, span[1:] not in others)
                for index, span in enumerate(spans)
            )
            rows.append(f'<div class="tl-block-row">{chips}</div>')
            done[side] += len(spans)
        aloud = escape(_aloud(vocabularies, block))
        columns.append(f'<div class="tl-block" role="listitem" aria-label="{aloud}">{"".join(rows)}</div>')
    n_bytes = len(shown.encode())
    names = "".join(f"<div>{_side(*one, n_bytes)}</div>" for one in zip(vocabularies, map(len, cuts), strict=True))
    agreed = sum(all(len(spans) == 1 for spans in block) for block in blocks)
    notice = "" if shown == text else f" Only the first {n_bytes} bytes are shown."
    return (
        f'<div class="tl-pair"><div class="tl-pair-names">{names}</div><div class="tl-blocks" role="list" '
        f'aria-label="The text, segmented by {len(cuts)} tokenizers">{"".join(columns)}</div></div>'
        f'<div class="tl-note">{_spread([len(spans) for spans in cuts])} In {agreed} of {len(blocks)} columns, each '
        f"tokenizer needs one token. Outlined tokens have boundaries that no other tokenizer shares. Click a token to "
        f"see how it was built.{notice}</div>"
    )


def history_html(vocabulary: Vocabulary, token_id: int, history: History) -> str:
    """Return the history of a token as HTML: its merges in order, with their ranks."""
    steps = "".join(
        f"<li>{token(visible(merge.left))} + {token(visible(merge.right))} <small>merge {merge.rank:,}</small></li>"
        for merge in history.merges
    )
    order = "In the order in which the tokenizer merges; merge 1 was learned first in training. " * bool(steps)
    return (
        f"<h4>How {escape(vocabulary.name)} builds {token(vocabulary.label(token_id))} <small>id {token_id:,}</small>"
        f"</h4><ol class='tl-merges'>{steps}</ol><div class='tl-note'>{order}{escape(history.reason)}</div>"
    )


def _chip(vocabulary: Vocabulary, side: int, span: Span, colour: int, alone: bool) -> str:
    token_id, start, end = span
    return (
        f'<span class="tl-chip tl-chip-{colour}{" tl-alone" * alone}" role="button" tabindex="-1" '
        f'data-press="{side} {token_id}" title="{escape(_explain(vocabulary, token_id, end - start))}">'
        f"{escape(vocabulary.label(token_id))}</span>"
    )


def _side(vocabulary: Vocabulary, n_tokens: int, n_bytes: int) -> str:
    rate = f"{n_bytes / n_tokens:.2f} bytes per token" if n_tokens else "no tokens"
    return f"<b>{escape(vocabulary.name)}</b><br><small>{n_tokens} tokens, {rate}</small>"


def _spread(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    if low == high:
        return f"Each needs {low} token{'s' * (low != 1)}."
    more = 100 * (high / max(low, 1) - 1)
    return f"The counts are {low} to {high} tokens; the highest is {more:.0f}\u00a0% above the lowest."


def _aloud(vocabularies: Sequence[Vocabulary], block: Block) -> str:
    words = [
        " ".join(vocabulary.label(token_id) for token_id, _, _ in spans) or "nothing"
        for vocabulary, spans in zip(vocabularies, block, strict=True)
    ]
    if len(set(words)) == 1:
        return f"all {words[0]}"
    return ", ".join(f"{one.name} {word}" for one, word in zip(vocabularies, words, strict=True))


def _explain(vocabulary: Vocabulary, token_id: int, n_bytes: int) -> str:
    spelled = vocabulary.token_bytes[token_id]
    as_bytes = "control token" if spelled is None else " ".join(f"{byte:02X}" for byte in spelled)
    return f"id {token_id}\nraw token {vocabulary.raw_token(token_id)!r}\nbytes {as_bytes}\ncovers {n_bytes} bytes here"
