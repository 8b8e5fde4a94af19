"""Rows without vectors: baselines for every alignment, and the fallback of alignments.

All of them keep existing rows and fill the open ones (rows not made yet). So baselines and alignments differ only in
the open rows:

- `pieces`: the mean of the source tokens that spell the token (FVT, Gee et al. 2022).
- `last_in_mean_out`: the input row of the last of those tokens, because a causal model represents a word at its last
  piece; the output row is the mean row, so that no new token takes probability from a known token. (The input row is
  that of jukofyork/transplant-vocab; its output row is a mean that decays from the first piece.)
- `filled`: the mean of the source rows, or a random row around it.
- `permuted`: the row of a random source token, as in TokAlign's script for a token without a vector; with `once`, a
  permutation of the source rows (the paper's Rand.Perm.), repeated as often as needed.

Each changes the rows in place and returns its name for the provenance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.pieces import main_piece, spell

Made = dict[str, str]


def pieces(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with the mean of their source pieces; tokens that cannot be spelled get the mean row."""
    for target_id, spelled in _spelled(rows, inputs):
        rows.mix(target_id, spelled, [1.0] * len(spelled), "pieces")
        rows.source_id[target_id] = main_piece(inputs.source, spelled)
    return filled(rows, inputs) | {"rest": "pieces"}


def last_in_mean_out(rows: LexiconRows, inputs: Inputs) -> Made:
    """Fill open rows with the last source piece as input row and the mean row as output row."""
    for target_id, spelled in _spelled(rows, inputs):
        rows.mix(target_id, spelled[-1:], [1.0], "pieces")
        rows.mix_output(target_id, [], [], mean_weight=1.0)
    return filled(rows, inputs) | {"rest": "last-in-mean-out"}


def filled(rows: LexiconRows, inputs: Inputs, origin: str = "mean") -> Made:
    """Fill open rows with the mean row, or mark them "random" or "multivariate": `rearrange` then samples the rows."""
    rows.fill(open_ids(rows, inputs.target), origin)
    return {"rest": origin}


def permuted(rows: LexiconRows, inputs: Inputs, once: bool = False) -> Made:
    """Fill each open row with that of a random source token; with `once`, no token repeats before all are used."""
    generator, ids = np.random.default_rng(inputs.seed), open_ids(rows, inputs.target)
    tokens = np.flatnonzero(~inputs.source.is_hole & ~inputs.source.is_control)
    if once:
        rounds = max(1, -(-len(ids) // len(tokens)))
        drawn = np.concatenate([generator.permutation(tokens) for _ in range(rounds)])[: len(ids)]
    else:
        drawn = generator.choice(tokens, len(ids))
    for target_id, source_id in zip(ids.tolist(), drawn.tolist(), strict=True):
        rows.mix(target_id, [source_id], [1.0], "permuted")
    return {"rest": "permutation" if once else "permuted"}


def _spelled(rows: LexiconRows, inputs: Inputs) -> Iterator[tuple[int, list[int]]]:
    """Yield the target ids of open rows that have source pieces, with the pieces."""
    ids = open_ids(rows, inputs.target)
    spelled = spell(inputs.source, [inputs.target.token_bytes[i] or b"" for i in ids])
    return ((target_id, found) for target_id, found in zip(ids.tolist(), spelled, strict=True) if found)
