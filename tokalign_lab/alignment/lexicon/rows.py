"""A lexicon under construction: the recipes fill one entry per target id, which then becomes a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd

NO_TOKEN = -1
"""The `source_id` or `target_id` of a row without a partner."""
COLUMNS = (
    "target_id", "target_token", "source_id", "source_token", "score", "margin", "origin", "target_count",
    "source_count",
)  # fmt: skip
"""Columns of a lexicon's table with one value per row, in readable form."""
Array = np.ndarray[Any, Any]


class LexiconRows:
    """The rows of `size` target ids; at first every id is a hole.

    Arrays of shape (size,): `source_id` (int32), `score`, `margin`, `mean_weight` (float32) and `origin` (str as
    object). Lists of arrays, one per id: `candidate_ids`, `candidate_scores`, `sources`, `weights`. `score` is 1 for a
    copied token and NaN for a row without candidates. `output` maps the ids whose output row differs from the input row
    to sources, weights and mean weight.
    """

    def __init__(self, size: int) -> None:
        no_ids, no_scores = np.zeros(0, np.int32), np.zeros(0, np.float32)
        self.size = size
        self.source_id = np.full(size, NO_TOKEN, np.int32)
        self.score = np.full(size, np.nan, np.float32)
        self.margin = np.full(size, np.nan, np.float32)
        self.origin = np.full(size, "hole", object)
        self.candidate_ids: list[Array] = [no_ids] * size
        self.candidate_scores: list[Array] = [no_scores] * size
        self.sources: list[Array] = [no_ids] * size
        self.weights: list[Array] = [no_scores] * size
        self.mean_weight = np.zeros(size, np.float32)
        self.output: dict[int, tuple[Array, Array, float]] = {}

    def copy(self, target_id: int, source_id: int, origin: str) -> None:
        """Copy one source row to a target token."""
        self.mix(target_id, [source_id], [1.0], origin)
        self.source_id[target_id] = source_id
        self.score[target_id] = 1.0
        self.margin[target_id] = 1.0

    def mix(
        self, target_id: int, sources: Sequence[int], weights: Sequence[float], origin: str, scale: bool = True
    ) -> None:
        """Make a target token's row a weighted sum of source rows.

        Weights of a source that occurs twice are added. `source_id` becomes the source with the largest weight (the
        lowest id of equals). Weights are scaled to sum to 1 unless `scale` is False.
        """
        ids, total = _summed(sources, weights)
        if scale:
            total /= total.sum()
        self.sources[target_id] = ids
        self.weights[target_id] = total.astype(np.float32)
        self.mean_weight[target_id] = 0.0
        self.source_id[target_id] = ids[int(np.argmax(total))]
        self.origin[target_id] = origin

    def mix_output(
        self, target_id: int, sources: Sequence[int], weights: Sequence[float], mean_weight: float = 0.0
    ) -> None:
        """Make the output row of a token different from its input row; weights are not scaled."""
        ids, total = _summed(sources, weights)
        self.output[target_id] = (ids, total.astype(np.float32), float(mean_weight))

    def candidates(self, target_id: int, ids: Array, scores: Array) -> None:
        """Store ranked candidates, best first; the first two give `source_id`, `score` and `margin`."""
        self.candidate_ids[target_id] = np.asarray(ids, np.int32)
        self.candidate_scores[target_id] = np.asarray(scores, np.float32)
        self.source_id[target_id] = ids[0]
        self.score[target_id] = scores[0]
        self.margin[target_id] = scores[0] - scores[1] if len(scores) > 1 else np.nan

    def fill(self, target_ids: Array, origin: str) -> None:
        """Set the origin of rows without a source token ("mean", "random")."""
        self.origin[target_ids] = origin
        self.mean_weight[target_ids] = 1.0 if origin == "mean" else 0.0

    def to_table(
        self, source: Vocabulary, target: Vocabulary, source_counts: Array, target_counts: Array
    ) -> pd.DataFrame:
        """Make the lexicon's table; counts of each id in the text have the shapes (source.size,) and (size,)."""
        import pandas as pd

        found = self.source_id != NO_TOKEN
        best = np.where(found, self.source_id, 0)
        columns: dict[str, Any] = {
            "target_id": np.arange(self.size, dtype=np.int32),
            "source_id": self.source_id,
            "score": self.score,
            "margin": self.margin,
            "candidate_ids": self.candidate_ids,
            "candidate_scores": self.candidate_scores,
            "origin": self.origin.astype(str),
            "sources": self.sources,
            "weights": self.weights,
            "mean_weight": self.mean_weight,
            "source_count": np.where(found, source_counts[best], 0).astype(np.int64),
            "target_count": np.asarray(target_counts, np.int64),
            "source_token": [source.raw_token(int(i)) if ok else "" for i, ok in zip(best, found, strict=True)],
            "target_token": [target.raw_token(i) for i in range(self.size)],
        }
        if self.output:
            same = zip(self.sources, self.weights, self.mean_weight.tolist(), strict=True)
            made = [self.output.get(i, row) for i, row in enumerate(same)]
            sources, weights, means = zip(*made, strict=True)
            columns |= {"output_sources": list(sources), "output_weights": list(weights)}
            columns["output_mean_weight"] = np.array(means, np.float32)
        return pd.DataFrame(columns)


def reverse_of(rows: LexiconRows, source_size: int) -> pd.DataFrame:
    """Reverse a target-to-source lexicon: each source id gets the best target id whose best source it is.

    Copies come before aligned tokens, then the higher score, then the lower id. For recipes that cannot align the
    source-to-target direction, which would be better.
    """
    chosen = np.flatnonzero(rows.source_id != NO_TOKEN)
    copied = np.isin(rows.origin[chosen].astype(str), ("identical", "role"))
    chosen = chosen[np.lexsort((chosen, -np.nan_to_num(rows.score[chosen]), ~copied))]
    source_ids, first = np.unique(rows.source_id[chosen], return_index=True)
    best = chosen[first]
    target_of = np.full(source_size, NO_TOKEN, np.int32)
    score = np.full(source_size, np.nan, np.float32)
    origin = np.full(source_size, "hole", object)
    target_of[source_ids], score[source_ids], origin[source_ids] = best, rows.score[best], rows.origin[best]
    return make_reverse(target_of, score, origin)


def make_reverse(target_of: Array, score: Array, origin: Array) -> pd.DataFrame:
    """Build the `reverse` table from arrays of shape (source size,)."""
    import pandas as pd

    return pd.DataFrame(
        {
            "source_id": np.arange(len(target_of), dtype=np.int32),
            "target_id": target_of.astype(np.int32),
            "score": score.astype(np.float32),
            "origin": origin.astype(str),
        }
    )


def _summed(sources: Sequence[int], weights: Sequence[float]) -> tuple[Array, Array]:
    """Return the distinct sources, ascending, with the sum of the weights of each in float64."""
    total: dict[int, float] = {}  # faster than np.unique for a few sources
    for source, weight in zip(sources, weights, strict=True):
        total[int(source)] = total.get(int(source), 0.0) + float(weight)
    ids = sorted(total)
    return np.array(ids, np.int32), np.array([total[i] for i in ids], np.float64)
