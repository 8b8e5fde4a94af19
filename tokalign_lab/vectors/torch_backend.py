"""Counting and GloVe in torch, for a GPU; plain tensors, so the same code runs on a CPU.

Counting: for each distance d the text is laid beside itself, d places apart, and every pair becomes one number, row *
columns + column; sorting brings equal pairs together and their weights are added up. Sums are whole numbers, so they
are the ones of `cooccurrence.py`, bit for bit.

GloVe: `glove.py` takes a step after every pair. Here the pairs of a batch, drawn in shuffled order, all see the same
vectors, and their gradients are added up. A token that k pairs of the batch hold would be moved k times as far as one
step goes, too far for the frequent ones; its sum is scaled by (1 - (1 - r)^k) / (r k), r the learning rate, which is
how far k steps, one after another, move a bias. The vectors are therefore other ones than those of a CPU, with about
the same loss. The same seed gives the same bits on a CPU; a GPU adds up a batch in any order, so last bits differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.progress import Progress
from tokalign_lab.vectors.cooccurrence import Counts
from tokalign_lab.vectors.stream import Stream

if TYPE_CHECKING:
    import torch

    from tokalign_lab.vectors.glove import GloveSettings

_CHUNK = 2**21  # tokens that are laid beside themselves at once: 30 pairs each at a window of 15, sorted, are 2.5 GB
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
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Add up the contexts of every token of `stream`.

    Parameters
    ----------
    stream, context_of, n_columns, right_offset
        As in `cooccurrence.count_contexts`.
    weights
        Of `cooccurrence.weights_of`.
    device
        A torch device.
    chunk
        Tokens at a time.

    Returns
    -------
    starts, columns, sums
        Rows one after another; sums in units of 2^-32.
    """
    import torch

    window, n = len(weights), len(stream.ids)
    column_of = torch.tensor(np.asarray(context_of, dtype=np.int64), device=device)
    # Tokens that the stream only lends as neighbours are in no place of the index, and have no row.
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
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return starts, (keys % n_columns).to(torch.int32).cpu().numpy(), sums.cpu().numpy()


def train_glove(
    counts: Counts, settings: GloveSettings, seed: int, progress: Progress | None, device: str
) -> tuple[NDArray[np.float32], list[float]]:
    """Train GloVe in batches.

    Parameters
    ----------
    counts
        Symmetric co-occurrence counts, (n, n).
    settings, seed, progress
        As in `glove.glove_vectors`.
    device
        A torch device.

    Returns
    -------
    rows
        float32 (n, dimensions), w + c.
    losses
        Mean of f(X) * error^2 / 2 over all pairs, one value an iteration.
    """
    import torch

    n, d = len(counts.starts) - 1, settings.dimensions
    rows = torch.tensor(np.repeat(np.arange(n, dtype=np.int32), np.diff(counts.starts)), device=device)
    columns = torch.tensor(np.array(counts.columns), device=device)
    values = torch.tensor(np.array(counts.values), device=device)
    logs, weights = values.log(), (values / settings.x_max).pow(settings.alpha).clamp(max=1.0)
    random = torch.Generator().manual_seed(seed)
    # The last number of every row is the bias.
    sides = [((torch.rand(n, d + 1, generator=random) - 0.5) / (d + 1)).to(device) for _ in range(2)]
    squares = [torch.ones_like(side) for side in sides]
    batch = max(1, min(_LARGEST_BATCH, n // 4))
    losses = []
    for iteration in range(settings.iterations):
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
                _move(side, square, place, _gradient(step, other), settings.learning_rate)
        losses.append(float(loss) / max(1, len(values)))
        if progress is not None:
            share = (iteration + 1) / settings.iterations
            progress(share, f"GloVe iteration {iteration + 1} of {settings.iterations}, loss {losses[-1]:.4f}")
    return (sides[0][:, :d] + sides[1][:, :d]).cpu().numpy(), losses


def _gradient(step: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Gradient of one side's rows: the step times the other side's vectors, and times 1 for the bias."""
    gradient = step[:, None] * other
    gradient[:, -1] = step
    return gradient


def _move(rows: torch.Tensor, squares: torch.Tensor, place: torch.Tensor, gradient: torch.Tensor, rate: float) -> None:
    """AdaGrad on the rows of a batch, as far as one step after another would go."""
    import torch

    touched, which, k = torch.unique(place, return_inverse=True, return_counts=True)
    shape = (len(touched), rows.shape[1])
    total = torch.zeros(shape, device=rows.device).index_add_(0, which, gradient)
    squared = torch.zeros(shape, device=rows.device).index_add_(0, which, gradient * gradient)
    scale = (1 - (1 - rate) ** k) / (rate * k)
    rows[touched] -= scale[:, None] * total / squares[touched].sqrt()
    squares[touched] += squared
