"""Copy the rows of tokens that need no alignment: shared tokens, and special tokens of the same role.

The papers copy a token whose *string* is in both vocabularies; here its bytes count, unless a recipe compares strings
(overlap="raw"). Special tokens are compared by role, never as text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.vocabulary import SharedTokens, Vocabulary, shared_roles, shared_tokens


def text_tokens_shared(
    source: Vocabulary, target: Vocabulary, overlap: str, hidden: NDArray[np.int64] | None = None
) -> SharedTokens:
    """Return shared tokens without special ones, which are matched by role, and without held-out ids (`hidden`)."""
    shared = shared_tokens(source, target, by=overlap)
    kept = ~(target.is_control[shared.target_ids] | source.is_control[shared.source_ids])
    if hidden is not None:
        kept &= ~np.isin(shared.target_ids, hidden)
    return SharedTokens(source_ids=shared.source_ids[kept], target_ids=shared.target_ids[kept])


def copied_rows(pair: TokenizedPair, shared: SharedTokens) -> tuple[LexiconRows, LexiconRows]:
    """Return rows with the copies, of target tokens and, for the reverse direction, of source tokens."""
    source, target = pair.source, pair.target
    forward = _copied(target, shared.target_ids, shared.source_ids, shared_roles(source, target))
    # In the reverse direction, a source token of several target tokens gets the most frequent one.
    counts = pair.target_corpus.counts(target.size)[shared.target_ids]
    order = np.lexsort((shared.target_ids, -counts, shared.source_ids))
    source_ids, first = np.unique(shared.source_ids[order], return_index=True)
    back = _copied(source, source_ids, shared.target_ids[order][first], shared_roles(target, source))
    return forward, back


def open_ids(rows: LexiconRows, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the ids of open rows: tokens without a row, special ones included; ids that no token has are left out."""
    return np.flatnonzero((rows.origin == "hole") & ~vocabulary.is_hole)


def _copied(
    vocabulary: Vocabulary, ids: NDArray[np.int64], from_ids: NDArray[np.int64], roles: dict[int, int]
) -> LexiconRows:
    rows = LexiconRows(vocabulary.size)
    for token, other in zip(ids.tolist(), from_ids.tolist(), strict=True):
        rows.copy(token, other, "identical")
    for token, other in roles.items():
        rows.copy(token, other, "role")
    return rows
