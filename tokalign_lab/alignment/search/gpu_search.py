"""What `block_search.py` finds, found on a GPU, to the last bit.

Against the search on the processor, which keeps lists while it looks through a block, a GPU is quicker at taking
the largest few of each row and column whole (torch.topk). It does not say which of equals it takes, and adds up in an
order of its own. So it takes some more than were asked for, the processor adds these up in float64 and ranks them, and
whatever the GPU left out must be surely worse than the last of them; a row for which that is not sure, because too many
are equal, is searched on the processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.search.block_search import GRID, best_of_rows, error_bound, settle

if TYPE_CHECKING:
    import torch

_SPARE = 16  # taken beyond the k that were asked for
_BLOCK_NUMBERS = 1 << 28  # 1 GB of float32 similarities at a time


def best_of_rows_on(
    device: str,
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    penalty: NDArray[np.float32],
    factor: float,
    k: int,
    block: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As `block_search.best_of_rows`, on `device`."""
    import torch

    k, wide = min(k, len(keys)), min(k + _SPARE, len(keys))
    found = np.zeros((len(queries), wide), dtype=np.int64)
    floors = np.zeros(len(queries), dtype=np.float32)
    subtracted = torch.from_numpy(penalty).to(device)
    for rows, similarity in _products(device, queries, keys, block):
        values, columns = (factor * similarity - subtracted).topk(wide, dim=1)
        found[rows], floors[rows] = columns.cpu().numpy(), values[:, -1].cpu().numpy()
    return _settled(queries, keys, penalty, factor, found, floors, k)


def best_of_both_on(
    device: str, one: NDArray[np.float32], other: NDArray[np.float32], k: int, block: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As `block_search.best_of_both`, on `device`."""
    import torch

    wide, wide_other = min(k + _SPARE, len(other)), min(k + _SPARE, len(one))
    found = np.zeros((len(one), wide), dtype=np.int64)
    floors = np.zeros(len(one), dtype=np.float32)
    best = torch.zeros((0, len(other)), device=device)
    where = torch.zeros((0, len(other)), dtype=torch.int64, device=device)
    for rows, similarity in _products(device, one, other, block):
        values, columns = similarity.topk(wide, dim=1)
        found[rows], floors[rows] = columns.cpu().numpy(), values[:, -1].cpu().numpy()
        values, places = similarity.topk(min(wide_other, len(similarity)), dim=0)
        best, where = torch.cat([best, values]), torch.cat([where, places + rows.start])
        best, kept = best.topk(min(wide_other, len(best)), dim=0)
        where = where.gather(0, kept)
    no_penalty = np.zeros(max(len(one), len(other)), dtype=np.float32)
    of_one = _settled(one, other, no_penalty, 1, found, floors, min(k, len(other)))[1]
    found_other = np.ascontiguousarray(where.T.cpu().numpy())
    of_other = _settled(other, one, no_penalty, 1, found_other, best[-1].cpu().numpy(), min(k, len(one)))[1]
    return of_one, of_other.T


def _settled(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    penalty: NDArray[np.float32],
    factor: float,
    found: NDArray[np.int64],
    floors: NDArray[np.float32],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rank what was found, and search again where something as good may have been left out."""
    positions, scores = settle(queries, keys, penalty, factor, found, k)
    if found.shape[1] < len(keys):
        unsure = np.flatnonzero(scores[:, -1] <= floors + error_bound(queries.shape[1], factor) + 1 / GRID)
        positions[unsure], scores[unsure] = best_of_rows(queries[unsure], keys, penalty[: len(keys)], factor, k)
    return positions, scores


def _products(
    device: str, queries: NDArray[np.float32], keys: NDArray[np.float32], block: int | None
) -> Iterator[tuple[slice, torch.Tensor]]:
    import torch

    on_device = torch.from_numpy(keys).to(device).T
    n_rows = block or max(1, _BLOCK_NUMBERS // len(keys))
    for first in range(0, len(queries), n_rows):
        rows = slice(first, min(len(queries), first + n_rows))
        with _whole_float32():
            similarity = torch.from_numpy(queries[rows]).to(device) @ on_device
        yield rows, similarity


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Multiply without TF32, which drops 13 of 23 bits and with them the bound on errors."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
