"""Rows of our recipe `anchored`: from vectors and from spelling, with different input and output rows.

TokAlign copies the row of the best source token into both matrices. Here both rows are weighted sums of ten CSLS
candidates (weighted by softmax over their scores) and of the source tokens that spell the token:

    vectors = sum_i softmax(score_i / temperature) candidate_i
    input row  = 1/4 vectors + 3/4 mean of the pieces
    output row = 1/3 vectors + 1/3 mean of the pieces + 1/3 first piece

An input row represents the token, and its pieces do that best. An output row competes for the probability that the
source model gives to the first piece, so it includes that piece's row. It must not beat a shared token where only its
pieces fit, so the mean of all source rows replaces a missing part (most tokens of a large vocabulary have no vector).
The shares are equal because no other shares were better: `benchmarks/mixture_shares.py` and docs/decisions/0006.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.pieces import main_piece, spell
from tokalign_lab.alignment.search.neighbours import Candidates
from tokalign_lab.vocabulary import Vocabulary

PIECES_SHARE = 0.75  # of an input row that has candidates
OUTPUT_SHARES = {"vectors": 1 / 3, "pieces": 1 / 3, "first piece": 1 / 3}
TEMPERATURE = 0.1  # of the softmax over CSLS scores


def add_mixtures(rows: LexiconRows, inputs: Inputs, found: Candidates) -> dict[str, Any]:
    """Make the open rows of tokens that have candidates or pieces; return parameters.

    Shared and special tokens must be copied already; `found` has the candidates of open tokens with a vector.
    """
    source, target = inputs.source, inputs.target
    _start_as_bos_end_as_eos(rows, source, target)
    left = open_ids(rows, target)
    place_of = {int(target_id): place for place, target_id in enumerate(found.target_ids)}
    spelled = spell(source, [target.token_bytes[i] or b"" for i in left])
    for target_id, pieces in zip(left.tolist(), spelled, strict=True):
        place = place_of.get(target_id)
        ids = found.candidate_ids[place].tolist() if place is not None else []
        weights = softmax((found.scores[place] / TEMPERATURE).astype(np.float64)) if place is not None else np.zeros(0)
        if not ids and not pieces:
            continue
        share = (PIECES_SHARE if ids else 1.0) if pieces else 0.0
        even = np.full(len(pieces), 1 / max(1, len(pieces)))
        input_weights = [*((1 - share) * weights), *(share * even)]
        rows.mix(target_id, [*ids, *pieces], input_weights, "aligned" if ids else "pieces")
        rows.mix_output(target_id, *output_parts(ids, weights, pieces))
        if place is not None:
            rows.candidates(target_id, found.candidate_ids[place], found.scores[place])
        else:
            rows.source_id[target_id] = main_piece(source, pieces)
    return {"pieces_share": PIECES_SHARE, "output_shares": OUTPUT_SHARES, "temperature": TEMPERATURE}


def _start_as_bos_end_as_eos(rows: LexiconRows, source: Vocabulary, target: Vocabulary) -> None:
    """Make the rows of a target token that both starts and ends texts (GPT-2's bos = eos; eos of Qwen, without bos).

    As input it starts a text, so it gets the source's bos row; as output it ends one, so it gets the eos row. A model
    can depend on its bos, whose position is an attention sink (Xiao et al. 2024): Gemma predicts badly without it.
    """
    start, end = target.start_id, target.roles.get("eos")
    if start is None or start != end or source.start_id is None or "eos" not in source.roles:
        return
    rows.copy(start, source.start_id, "role")
    rows.mix_output(start, [source.roles["eos"]], [1.0])


def output_parts(
    ids: list[int], weights: Sequence[float] | NDArray[np.float64], pieces: list[int]
) -> tuple[list[int], list[float], float]:
    """Return sources, weights and mean weight of an output row; the mean row replaces a missing part.

    `ids` and `weights` (which sum to 1) are the candidates, or the user's choice.
    """
    shares, even = OUTPUT_SHARES, 1 / max(1, len(pieces))
    sources = [*ids, *pieces, *pieces[:1]]
    values = [*(shares["vectors"] * np.asarray(weights, np.float64)), *([shares["pieces"] * even] * len(pieces))]
    values += [shares["first piece"]] * len(pieces[:1])
    missing = 1 - sum(values)
    return sources, values, missing if missing > 1e-9 else 0.0
