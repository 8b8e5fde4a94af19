"""Rows without vectors: what every alignment must beat, and what it falls back on.

All of them keep the rows that are already made and fill those still open, so that they differ from each other, and
from an alignment, in nothing else:

- `pieces`: the mean of the source tokens that spell the token (FVT, Gee et al. 2022).
- `last-in-mean-out`: the input row of the last of those tokens, since a causal model reads a word off its last piece;
  the output row is the mean row, so that no new token takes probability from a token that is known. (The input half
  is jukofyork/transplant-vocab's; its output row is a decaying mean from the first piece.)
- `mean`, `random`, `multivariate`: the mean of the source rows, or a draw around it.
- `permuted`: the row of a source token drawn at random: TokAlign's script does so where a token has no vector, and
  the paper's Rand.Perm. for all.
"""

from __future__ import annotations

import numpy as np

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.vocabulary import Vocabulary


def add_pieces(rows: LexiconRows, source: Vocabulary, target: Vocabulary) -> None:
    """Fill open rows with the mean of their source pieces; what cannot be spelled gets the mean row."""
    for target_id, pieces in _spelled(rows, source, target):
        rows.mix(target_id, pieces, [1.0] * len(pieces), "pieces")
        # One source token has to stand for the word in lists and scores: the piece that spells most of it.
        rows.source_id[target_id] = max(pieces, key=lambda piece: len(source.token_bytes[piece] or b""))
    rows.fill(open_ids(rows, target), "mean")


def add_last_in_mean_out(rows: LexiconRows, source: Vocabulary, target: Vocabulary) -> None:
    """Fill open rows with the last source piece on the way in, and the mean row on the way out."""
    for target_id, pieces in _spelled(rows, source, target):
        rows.mix(target_id, pieces[-1:], [1.0], "pieces")
        rows.mix_output(target_id, [], [], mean_weight=1.0)
    rows.fill(open_ids(rows, target), "mean")


def add_permuted(rows: LexiconRows, source: Vocabulary, target: Vocabulary, seed: int, anew: bool) -> None:
    """Fill open rows with whole source rows at random.

    Parameters
    ----------
    rows, source, target
        As everywhere.
    seed
        Of the draw.
    anew
        Draw each row anew from all source tokens, as TokAlign's script; else deal out a permutation of them, and
        another one where it ends.
    """
    left = open_ids(rows, target)
    tokens = np.flatnonzero(~source.is_hole & ~source.is_control)
    random = np.random.default_rng(seed)
    if anew:
        drawn = random.choice(tokens, len(left))
    else:
        rounds = -(-len(left) // len(tokens))
        drawn = np.concatenate([random.permutation(tokens) for _ in range(max(1, rounds))])[: len(left)]
    for target_id, source_id in zip(left.tolist(), drawn.tolist(), strict=True):
        rows.mix(target_id, [source_id], [1.0], "permuted")


def _spelled(rows: LexiconRows, source: Vocabulary, target: Vocabulary) -> list[tuple[int, list[int]]]:
    """Open target ids with their source pieces, where there are any."""
    left = open_ids(rows, target)
    spelled = spell(source, [target.token_bytes[i] or b"" for i in left])
    return [(target_id, pieces) for target_id, pieces in zip(left.tolist(), spelled, strict=True) if pieces]
