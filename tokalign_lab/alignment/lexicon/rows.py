"""A lexicon being made: what the recipes fill in, one entry a target id, until it becomes a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd

NO_TOKEN = -1
"""What `source_id` and `target_id` say where there is none."""


@dataclass
class LexiconRows:
    """A lexicon being made: one entry a target id, filled by the recipes.

    `score` of a copied token is 1; a row without a candidate keeps NaN. The output row is the input row unless
    `mix_output` has said otherwise.
    """

    size: int
    source_id: np.ndarray[Any, np.dtype[np.int32]] = field(init=False)
    score: np.ndarray[Any, np.dtype[np.float32]] = field(init=False)
    margin: np.ndarray[Any, np.dtype[np.float32]] = field(init=False)
    origin: np.ndarray[Any, np.dtype[np.object_]] = field(init=False)
    candidate_ids: list[np.ndarray[Any, Any]] = field(init=False)
    candidate_scores: list[np.ndarray[Any, Any]] = field(init=False)
    sources: list[np.ndarray[Any, Any]] = field(init=False)
    weights: list[np.ndarray[Any, Any]] = field(init=False)
    mean_weight: np.ndarray[Any, np.dtype[np.float32]] = field(init=False)
    output: dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float]] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with every id a hole."""
        self.source_id = np.full(self.size, NO_TOKEN, np.int32)
        self.score = np.full(self.size, np.nan, np.float32)
        self.margin = np.full(self.size, np.nan, np.float32)
        self.origin = np.full(self.size, "hole", object)
        no_ids, no_scores = np.zeros(0, np.int32), np.zeros(0, np.float32)
        self.candidate_ids = [no_ids] * self.size
        self.candidate_scores = [no_scores] * self.size
        self.sources = [no_ids] * self.size
        self.weights = [no_scores] * self.size
        self.mean_weight = np.zeros(self.size, np.float32)
        self.output = {}

    def copy(self, target_id: int, source_id: int, origin: str) -> None:
        """Let a target token inherit one source row whole."""
        self.mix(target_id, [source_id], [1.0], origin)
        self.source_id[target_id] = source_id
        self.score[target_id] = 1.0
        self.margin[target_id] = 1.0

    def mix(
        self, target_id: int, sources: Sequence[int], weights: Sequence[float], origin: str, scale: bool = True
    ) -> None:
        """Let a target token inherit a weighted sum of source rows.

        A source that is named twice is added up. `source_id` becomes the heaviest one, the first of equals. Weights
        are scaled to sum to 1, unless `scale` is False.
        """
        ids, total = _added_up(sources, weights)
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
        """Make the output row of a token apart from its input row; weights are taken as they are."""
        ids, total = _added_up(sources, weights)
        self.output[target_id] = (ids, total.astype(np.float32), float(mean_weight))

    def candidates(self, target_id: int, ids: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> None:
        """Record ranked candidates, best first; `source_id`, `score` and `margin` follow from the first two."""
        self.candidate_ids[target_id] = np.asarray(ids, np.int32)
        self.candidate_scores[target_id] = np.asarray(scores, np.float32)
        self.source_id[target_id] = ids[0]
        self.score[target_id] = scores[0]
        self.margin[target_id] = scores[0] - scores[1] if len(scores) > 1 else np.nan

    def fill(self, target_ids: np.ndarray[Any, Any], origin: str) -> None:
        """Name the origin of rows that rest on no source token ("mean", "random")."""
        self.origin[target_ids] = origin
        self.mean_weight[target_ids] = 1.0 if origin == "mean" else 0.0

    def to_table(
        self,
        source: Vocabulary,
        target: Vocabulary,
        source_counts: np.ndarray[Any, Any],
        target_counts: np.ndarray[Any, Any],
    ) -> pd.DataFrame:
        """Make the lexicon's table; counts, shapes (source.size,) and (size,), are of each id in the text."""
        import pandas as pd

        found = self.source_id != NO_TOKEN
        best = np.where(found, self.source_id, 0)
        table = pd.DataFrame(
            {
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
        )
        if self.output:
            same = [(self.sources[i], self.weights[i], float(self.mean_weight[i])) for i in range(self.size)]
            made = [self.output.get(i, same[i]) for i in range(self.size)]
            apart = {
                "output_sources": [ids for ids, _, _ in made],
                "output_weights": [weights for _, weights, _ in made],
                "output_mean_weight": np.array([mean for _, _, mean in made], np.float32),
            }
            return table.join(pd.DataFrame(apart))
        return table


def reverse_of(rows: LexiconRows, source_size: int) -> pd.DataFrame:
    """Turn a target-to-source lexicon around: each source id gets the best-scoring target that chose it.

    Copies come before aligned tokens, then the higher score, then the lower id. A recipe that measures the
    source-to-target direction by itself makes a better one.
    """
    copied = np.isin(rows.origin.astype(str), ("identical", "role"))
    target_of = np.full(source_size, NO_TOKEN, np.int32)
    score = np.full(source_size, np.nan, np.float32)
    origin = np.full(source_size, "hole", object)
    chosen = np.flatnonzero(rows.source_id != NO_TOKEN)
    ranked = sorted(chosen, key=lambda t: (not copied[t], -np.nan_to_num(rows.score[t]), t), reverse=True)
    for target_id in ranked:  # the best is written last and stays
        source_id = rows.source_id[target_id]
        target_of[source_id], score[source_id] = target_id, rows.score[target_id]
        origin[source_id] = rows.origin[target_id]
    return make_reverse(target_of, score, origin)


def _added_up(
    sources: Sequence[int], weights: Sequence[float]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.float64]]]:
    """Each source once, ascending, with the sum of its weights."""
    ids, place = np.unique(np.asarray(sources, np.int32), return_inverse=True)
    return ids, np.bincount(place, weights=np.asarray(weights, np.float64), minlength=len(ids)).astype(np.float64)


def make_reverse(
    target_of: np.ndarray[Any, Any], score: np.ndarray[Any, Any], origin: np.ndarray[Any, Any]
) -> pd.DataFrame:
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
