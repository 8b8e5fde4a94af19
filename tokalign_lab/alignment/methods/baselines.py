"""Rows without vectors: what every alignment must beat, and what it falls back on.

All of them keep the rows that are already made and fill those still open, so that they differ from each other, and
from an alignment, in nothing else:

- `pieces`: the mean of the source tokens that spell the token (FVT, Gee et al. 2022).
- `last_in_mean_out`: the input row of the last of those tokens, since a causal model reads a word off its last piece;
  the output row is the mean row, so that no new token takes probability from a token that is known. (The input half
  is jukofyork/transplant-vocab's; its output row is a decaying mean from the first piece.)
- `mean`, `random`, `multivariate`: the mean of the source rows, or a draw around it.
- `permuted`: the row of a source token drawn at random, as TokAlign's script does where a token has no vector.
- `permutation`: a permutation of the source rows (the paper's Rand.Perm.); another one starts where it ends.

Each takes the rows and the `Inputs` and returns its name for the provenance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.pieces import main_piece, spell

Made = dict[str, str]


def pieces(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with the mean of their source pieces; what cannot be spelled gets the mean row."""
    for target_id, spelled in _spelled(rows, inputs):
        rows.mix(target_id, spelled, [1.0] * len(spelled), "pieces")
        rows.source_id[target_id] = main_piece(inputs.source, spelled)
    return mean(rows, inputs) | {"rest": "pieces"}


def last_in_mean_out(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with the last source piece on the way in, and the mean row on the way out."""
    for target_id, spelled in _spelled(rows, inputs):
        rows.mix(target_id, spelled[-1:], [1.0], "pieces")
        rows.mix_output(target_id, [], [], mean_weight=1.0)
    return mean(rows, inputs) | {"rest": "last-in-mean-out"}


def mean(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with the mean row."""
    return _named(rows, inputs, "mean")


def random(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with random ones; they are drawn when the model is rearranged."""
    return _named(rows, inputs, "random")


def multivariate(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with random ones of the source rows' full covariance; drawn when the model is rearranged."""
    return _named(rows, inputs, "multivariate")


def permuted(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill each open row with a source row at random."""
    generator, tokens, left = np.random.default_rng(inputs.seed), _tokens(inputs), open_ids(rows, inputs.target)
    return _copied(rows, left, generator.choice(tokens, len(left))) | {"rest": "permuted"}


def permutation(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with a permutation of the source rows."""
    generator, tokens, left = np.random.default_rng(inputs.seed), _tokens(inputs), open_ids(rows, inputs.target)
    rounds = max(1, -(-len(left) // len(tokens)))
    drawn = np.concatenate([generator.permutation(tokens) for _ in range(rounds)])[: len(left)]
    return _copied(rows, left, drawn) | {"rest": "permutation"}


def _named(rows: LexiconRows, inputs: Inputs, origin: str) -> Made:
    rows.fill(open_ids(rows, inputs.target), origin)
    return {"rest": origin}


def _copied(rows: LexiconRows, target_ids: NDArray[np.int64], source_ids: NDArray[np.int64]) -> Made:
    for target_id, source_id in zip(target_ids.tolist(), source_ids.tolist(), strict=True):
        rows.mix(target_id, [source_id], [1.0], "permuted")
    return {}


def _tokens(inputs: Inputs) -> NDArray[np.int64]:
    """Source ids that may be drawn."""
    return np.flatnonzero(~inputs.source.is_hole & ~inputs.source.is_control)


def _spelled(rows: LexiconRows, inputs: Inputs) -> Iterator[tuple[int, list[int]]]:
    """Open target ids with their source pieces, where there are any."""
    left = open_ids(rows, inputs.target)
    spelled = spell(inputs.source, [inputs.target.token_bytes[i] or b"" for i in left])
    return ((target_id, ids) for target_id, ids in zip(left.tolist(), spelled, strict=True) if ids)
