"""The search of `block_search.py` on a GPU, with the same result to the last bit.

A GPU selects the largest few products of each row and column at once (torch.topk), which is faster than keeping lists
while scanning a block. But its choice among equal products is undefined, and so is its order of summation. So it
selects a few more than k, and the CPU recomputes these in float64 and ranks them. All discarded products must be worse
than the last of the k. If that is not certain for a row, because too many products are equal, the CPU searches this
row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tokalign_lab.alignment.search import block_search
from tokalign_lab.alignment.search.block_search import GRID, Best, error_bound, settle

BLOCK_NUMBERS = 1 << 28
"""1 GB of float32 products at a time."""
_SPARE = 16  # taken in addition to the k


def best(
    device: torch.device, queries: NDArray[np.float32], keys: NDArray[np.float32], k: int, of_keys: bool = False
) -> Best:
    """As `block_search.best`, on `device`."""
    wide, wide_of_keys = min(k + _SPARE, len(keys)), min(k + _SPARE, len(queries)) if of_keys else 0
    found = np.zeros((len(queries), wide), dtype=np.int64)
    worst = np.zeros(len(queries), dtype=np.float32)
    largest = torch.zeros((0, len(keys)), device=device)
    where = torch.zeros((0, len(keys)), dtype=torch.int64, device=device)
    on_device = torch.from_numpy(keys).to(device).T
    n_rows = max(1, BLOCK_NUMBERS // len(keys))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # TF32 drops 13 of 23 bits and with them the bound on errors
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
    positions, scores = _settled(queries, keys, found, worst, min(k, len(keys)))
    if not of_keys:
        return positions, scores, np.zeros((len(keys), 0), dtype=np.float32)
    found, worst = np.ascontiguousarray(where.T.cpu().numpy()), largest[-1].cpu().numpy()
    return positions, scores, _settled(keys, queries, found, worst, min(k, len(queries)))[1]


def _settled(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    found: NDArray[np.int64],
    worst: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rank the candidates, and search again if a discarded product may be as good."""
    positions, scores = settle(queries, keys, found, k)
    if found.shape[1] < len(keys):
        unsure = np.flatnonzero(scores[:, -1] <= worst + error_bound(queries, keys) + 1 / GRID)
        positions[unsure], scores[unsure], _ = block_search.best(queries[unsure], keys, k)
    return positions, scores
