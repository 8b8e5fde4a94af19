"""The nearest tokens of one token in its own space, answered while somebody waits.

`neighbours` searches for many tokens at once; this asks for one, so a single product of all rows with one is enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.vectors.token_vectors import TokenVectors

_SMALLEST = np.float32(1e-12)


class Neighbourhood:
    """Token vectors that can be asked for the neighbours of one token.

    Parameters
    ----------
    vectors
        The space.
    """

    def __init__(self, vectors: TokenVectors) -> None:
        self.vectors = vectors
        rows = vectors.rows
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)).astype(np.float32)
        self._lengths = np.maximum(lengths, _SMALLEST)

    def of(self, token_id: int, k: int = 8) -> list[tuple[int, float]]:
        """Find the k nearest other tokens: (id, cosine), nearest first; none where the token has no vector."""
        (place,) = self.vectors.positions_of(np.array([token_id]))
        if place < 0:
            return []
        rows: NDArray[np.float32] = self.vectors.rows
        cosines = (rows @ rows[place]) / (self._lengths * self._lengths[place])
        cosines[place] = -np.inf
        k = min(k, len(cosines) - 1)
        best = np.argpartition(-cosines, k)[:k] if k < len(cosines) - 1 else np.flatnonzero(np.isfinite(cosines))
        best = best[np.lexsort((best, -cosines[best]))]
        return [(int(self.vectors.ids[i]), float(cosines[i])) for i in best]
