"""The search of `block_search.py` on a GPU, with the same result to the last bit.

The GPU selects the largest products of each row and column at once (torch.topk), which is faster than updating lists
while scanning a block. But its choice among equal products and its order of summation are undefined. So the GPU selects
a few more than k products, and the CPU recomputes these in float64 and ranks them. All discarded products must be worse
than the last of the k. If that is uncertain for a row, because too many products are nearly equal, the CPU searches the
row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tokalign_lab.alignment.search import block_search
from tokalign_lab.alignment.search.block_search import GRID, Best, error_bound, rank_candidates

BLOCK_NUMBERS = 1 << 28
"""1 GB of float32 products at a time."""
_EXTRA = 16  # selected in addition to the k


def best(
    device: torch.device, queries: NDArray[np.float32], keys: NDArray[np.float32], k: int, of_keys: bool = False
) -> Best:
    """Like `block_search.best`, on `device`."""
    wide, wide_of_keys = min(k + _EXTRA, len(keys)), min(k + _EXTRA, len(queries)) if of_keys else 0
    found = np.zeros((len(queries), wide), dtype=np.int64)
    worst = np.zeros(len(queries), dtype=np.float32)
    largest = torch.zeros((0, len(keys)), device=device)
    where = torch.zeros((0, len(keys)), dtype=torch.int64, device=device)
    on_device = torch.from_numpy(keys).to(device).T
    n_rows = max(1, BLOCK_NUMBERS // len(keys))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 drops 13 of 23 bits, which would invalidate the error bound
    try:
        for first in range(0, len(queries), n_rows):
            rows = slice(first, min(len(queries), first + n_rows))
            product = torch.from_numpy(queries[rows]).to(device) @ on_device
            values, columns = product.topk(wide, dim=1)
            found[rows], worst[rows] = columns.cpu().numpy(), values[:, -1].cpu().numpy()
            if of_keys:
                values, places = product.topk(min(wide_of_keys, len(product)), dim=0)
                largest, where = torch.cat([largest, values]), torch.cat([where, places + first])
                largest, kept = largest.topk(min(wide_of_keys, len(largest)), dim=0)
                where = where.gather(0, kept)
    finally:
        torch.set_float32_matmul_precision(before)
    positions, scores = _ranked(queries, keys, found, worst, min(k, len(keys)))
    if not of_keys:
        return positions, scores, np.zeros((len(keys), 0), dtype=np.float32)
    found, worst = np.ascontiguousarray(where.T.cpu().numpy()), largest[-1].cpu().numpy()
    return positions, scores, _ranked(keys, queries, found, worst, min(k, len(queries)))[1]


def _ranked(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    found: NDArray[np.int64],
    worst: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rank the candidates; search a row again if one of its discarded products may be as good."""
    positions, scores = rank_candidates(queries, keys, found, k)
    if found.shape[1] < len(keys):
        unsure = np.flatnonzero(scores[:, -1] <= worst + error_bound(queries, keys) + 1 / GRID)
        positions[unsure], scores[unsure], _ = block_search.best(queries[unsure], keys, k)
    return positions, scores
