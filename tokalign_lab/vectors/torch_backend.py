"""Counting and GloVe in torch, for a GPU; the same code runs on a CPU.

Counting: for each distance d the text is paired with itself shifted by d tokens. Every pair becomes one number, row *
columns + column; sorting groups equal pairs, whose weights are added. Sums are integers, so they equal those of
`cooccurrence.py`, bit for bit.

GloVe: `glove.py` takes a step after every pair. Here the gradients of all pairs of a shuffled batch are computed with
the same vectors and added. A token in k pairs of the batch would move k times as far as in one step, which is too far
for frequent tokens. So its sum is scaled by (1 - (1 - r)^k) / (r k), with r the learning rate: the distance that k
consecutive steps move a bias. The vectors therefore differ from those of `glove.py`, with about the same loss. The same
seed gives the same bits on a CPU; a GPU adds a batch in any order, so the last bits differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokalign_lab.progress import Progress
from tokalign_lab.vectors.cooccurrence import sparse_rows
from tokalign_lab.vectors.stream import Stream

if TYPE_CHECKING:
    import torch

    from tokalign_lab.vectors.glove import GloveSettings

_CHUNK = 2**21  # tokens that are paired at once: 30 pairs per token at a window of 15, which take 2.5 GB to sort
_LARGEST_BATCH = 8192
_CLIP = 100.0


def sum_contexts(
    stream: Stream,
    context_of: NDArray[np.int32],
    n_columns: int,
    weights: NDArray[np.int64],
    right_offset: int,
    device: str,
    chunk: int = _CHUNK,
) -> csr_array:
    """Sum the contexts of every token of `stream`, int64 (n, n_columns) in units of 2^-32.

    Arguments are as in `cooccurrence.count_contexts`; `weights` come from `cooccurrence.weights_of`, and `chunk` is the
    number of tokens at a time.
    """
    import torch

    window, n = len(weights), len(stream.ids)
    column_of = torch.tensor(np.asarray(context_of, dtype=np.int64), device=device)
    # Tokens that a part includes only as neighbours are not in the index and have no row.
    own = np.zeros(len(stream.tokens), dtype=bool)
    own[stream.places] = True
    keys = torch.zeros(0, dtype=torch.int64, device=device)
    sums = torch.zeros(0, dtype=torch.int64, device=device)
    for first in range(0, len(stream.tokens), chunk):
        low, high = max(0, first - window), min(len(stream.tokens), first + chunk + window)
        tokens = torch.tensor(stream.tokens[low:high].astype(np.int64), device=device)
        document = (tokens < 0).cumsum(0)
        is_row = torch.tensor(own[low:high], device=device)
        is_row[: first - low] = False
        is_row[first - low + chunk :] = False
        found, added = [keys], [sums]
        for distance, weight in enumerate(weights.tolist(), start=1):
            for rows, others, offset in (
                (slice(distance, None), slice(None, -distance), 0),
                (slice(None, -distance), slice(distance, None), right_offset),
            ):
                together = is_row[rows] & (document[rows] == document[others]) & (tokens[others] >= 0)
                columns = column_of[tokens[others][together]]
                new = tokens[rows][together] * n_columns + columns + offset
                new = new[columns >= 0]
                found.append(new)
                added.append(torch.full_like(new, weight))
        keys, place = torch.unique(torch.cat(found), return_inverse=True)
        sums = torch.zeros_like(keys).index_add_(0, place, torch.cat(added))
    lengths = torch.bincount(keys // n_columns, minlength=n).cpu().numpy()
    found_columns = (keys % n_columns).to(torch.int32).cpu().numpy()
    return sparse_rows(sums.cpu().numpy(), found_columns, np.concatenate([[0], np.cumsum(lengths)]), n_columns)


def train_glove(
    counts: csr_array, settings: GloveSettings, seed: int, progress: Progress, device: str
) -> tuple[NDArray[np.float32], list[float]]:
    """Train GloVe in batches on a torch device; otherwise as `glove.train_glove`."""
    import torch

    n, d = counts.shape[0], settings.dimensions
    rows = torch.tensor(np.repeat(np.arange(n, dtype=np.int32), np.diff(counts.indptr)), device=device)
    columns = torch.tensor(np.array(counts.indices), device=device)
    values = torch.tensor(np.array(counts.data), device=device)
    logs, weights = values.log(), (values / settings.x_max).pow(settings.alpha).clamp(max=1.0)
    random = torch.Generator().manual_seed(seed)
    # The last number of every row is the bias.
    sides = [((torch.rand(n, d + 1, generator=random) - 0.5) / (d + 1)).to(device) for _ in range(2)]
    squares = [torch.ones_like(side) for side in sides]
    batch = max(1, min(_LARGEST_BATCH, n // 4))
    losses = []
    for _ in range(settings.iterations):
        order = torch.randperm(len(values), generator=random)
        loss = torch.zeros((), dtype=torch.float64, device=device)
        for first in range(0, len(order), batch):
            pairs = order[first : first + batch].to(device)
            places = (rows[pairs].long(), columns[pairs].long())
            w, c = (side[place] for side, place in zip(sides, places, strict=True))
            error = (w[:, :d] * c[:, :d]).sum(1) + w[:, d] + c[:, d] - logs[pairs]
            weighted = weights[pairs] * error
            loss += (0.5 * weighted * error).double().sum()
            step = settings.learning_rate * weighted.clamp(-_CLIP, _CLIP)
            for side, square, place, other in zip(sides, squares, places, (c, w), strict=True):
                _step(side, square, place, _gradient(step, other), settings.learning_rate)
        losses.append(float(loss) / max(1, len(values)))
        report_iteration(progress, losses, settings.iterations)
    return (sides[0][:, :d] + sides[1][:, :d]).cpu().numpy(), losses


def report_iteration(progress: Progress, losses: list[float], iterations: int) -> None:
    """Report the last iteration, by `losses` so far."""
    done = len(losses)
    progress(done / iterations, f"GloVe iteration {done} of {iterations}, loss {losses[-1]:.4f}")


def _gradient(step: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the gradient of one side's rows: the step times the other side's vectors, and the step for the bias."""
    gradient = step[:, None] * other
    gradient[:, -1] = step
    return gradient


def _step(rows: torch.Tensor, squares: torch.Tensor, place: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
    """Update the rows of a batch by AdaGrad, as far as consecutive steps would move them."""
    import torch

    touched, which, k = torch.unique(place, return_inverse=True, return_counts=True)
    shape = (len(touched), rows.shape[1])
    total = torch.zeros(shape, device=rows.device).index_add_(0, which, gradient)
    squared = torch.zeros(shape, device=rows.device).index_add_(0, which, gradient * gradient)
    scale = (1 - (1 - rate) ** k) / (rate * k)
    rows[touched] -= scale[:, None] * total / squares[touched].sqrt()
    squares[touched] += squared
