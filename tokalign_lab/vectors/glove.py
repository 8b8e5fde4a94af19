"""GloVe vectors (Pennington et al. 2014) as TokAlign trains them, with the same bits for any number of threads.

AdaGrad minimises the sum of f(X_ij) (w_i . c_j + b_i + b'_j - log X_ij)^2 over all co-occurring pairs, with
f(x) = min(1, (x / x_max)^alpha) (their equations 8 and 9); a token's vector is w + c. Settings are those of TokAlign's
appendix A and `train_glove.sh`: 300 dimensions, window 15, 15 iterations, x_max 10.

In Stanford's program threads race over shuffled pairs. Here the shuffled pairs are assigned to the tiles of a grid
(rows in P blocks, columns in P blocks), and P tiles that share no row and no column are trained at the same time, as in
Gemulla et al. 2011 (distributed stochastic gradient descent). No two threads update the same number, so the result is
reproducible. The vectors of one tile fit the CPU's cache, which makes this several times faster. All numbers are
float32. As in Stanford's program, the weighted error of a pair is clipped to 100, and a pair whose error is not finite
is skipped.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokalign_lab.device import pick_device
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.vectors.compiled import njit
from tokalign_lab.vectors.text_counts import text_counts
from tokalign_lab.vectors.token_vectors import TokenVectors, load_or_train
from tokalign_lab.vectors.torch_backend import report_iteration
from tokalign_lab.vectors.torch_backend import train_glove as train_in_batches

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

# The compiler may reorder sums, always in the same way. It must not assume that NaN and infinity do not occur, or it
# would remove the check for them.
_FAST = {"reassoc", "contract", "arcp", "afn", "nsz"}
_CLIP = np.float32(100.0)


@dataclass(frozen=True)
class GloveSettings:
    """Settings of one training; the defaults are the paper's."""

    dimensions: int = 300
    window: int = 15
    iterations: int = 15
    x_max: float = 10.0
    alpha: float = 0.75
    learning_rate: float = 0.05
    min_count: int = 5


def glove_vectors(
    corpus: Corpus,
    vocabulary_size: int,
    settings: GloveSettings | None = None,
    seed: int = 0,
    progress: Progress = silent,
    cached: bool = True,
    device: str | None = None,
) -> TokenVectors:
    """Train GloVe on a tokenised text, or load an earlier training on the same text and settings from the cache.

    Raises `InputError` if no token occurs `min_count` times.

    Parameters
    ----------
    corpus : the text as ids of one vocabulary
    vocabulary_size : `Vocabulary.size`
    settings : None for the paper's
    seed : seed of the initial values and the order of the pairs
    progress : called after every iteration
    cached : cache counts and vectors. Trainings with the same window and minimum count share the counts.
    device : "cpu", or a GPU such as "cuda", which trains in batches (`torch_backend.py`); None for a GPU if there is
        one
    """
    settings = settings or GloveSettings()
    device = str(pick_device(device))
    key = {"method": "glove", "seed": seed, **asdict(settings)}
    if device != "cpu":
        key["trained_on"] = device.split(":")[0]  # a GPU's bits differ from a CPU's, so the cache key differs too

    def train() -> TokenVectors:
        counted = text_counts(
            corpus, vocabulary_size, settings.window, settings.min_count, progress=part(progress, 0.0, 0.1),
            cached=cached, device=device,
        )  # fmt: skip
        report = part(progress, 0.1, 1.0)
        if device == "cpu":
            rows, losses = train_glove(counted.counts, settings, seed, report)
        else:
            rows, losses = train_in_batches(counted.counts, settings, seed, report, device)
        provenance = {**key, "text_hash": corpus.text_hash, "pairs": counted.counts.nnz, "loss": losses}
        return TokenVectors(counted.ids, rows, counted.occurrences, corpus.vocabulary_fingerprint, provenance)

    return load_or_train(corpus, key, train, cached)


def train_glove(
    counts: csr_array, settings: GloveSettings, seed: int = 0, progress: Progress = silent
) -> tuple[NDArray[np.float32], list[float]]:
    """Train on symmetric co-occurrence counts, (n, n).

    Returns w + c, float32 (n, dimensions), and for each iteration the mean of f(X) * error^2 / 2 over all pairs.
    """
    n, d = counts.shape[0], settings.dimensions
    random = np.random.default_rng(seed)
    # Blocks of about 128 tokens: two of them, words and contexts with their gradients, take 0.6 MB at 300 dimensions.
    n_blocks = max(1, min(128, n // 128))
    block, place = _assign_tokens(counts, n_blocks)
    tiles, pairs = _sort_pairs(counts, block, n_blocks, random)
    rows, columns, logs, weights = _pair_arrays(counts, pairs, place, settings)
    # The last number of every row is the bias.
    words = (random.random((n, d + 1), dtype=np.float32) - np.float32(0.5)) / np.float32(d + 1)
    contexts = (random.random((n, d + 1), dtype=np.float32) - np.float32(0.5)) / np.float32(d + 1)
    word_squares, context_squares = np.ones_like(words), np.ones_like(contexts)
    losses: list[float] = []
    for _ in range(settings.iterations):
        shifts = random.permutation(n_blocks)
        loss = np.zeros(n_blocks, dtype=np.float64)
        _one_iteration(
            tiles, shifts, rows, columns, logs, weights, words, contexts, word_squares, context_squares,
            np.float32(settings.learning_rate), loss,
        )  # fmt: skip
        losses.append(float(loss.sum() / max(1, len(rows))))
        report_iteration(progress, losses, settings.iterations)
    return (words[place, :d] + contexts[place, :d]), losses


def _assign_tokens(counts: csr_array, n_blocks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign tokens to blocks in turn, by descending number of pairs; return the block and row of each token."""
    n = counts.shape[0]
    by_pairs = np.argsort(-np.diff(counts.indptr), kind="stable")
    block = np.empty(n, dtype=np.int64)
    block[by_pairs] = np.arange(n) % n_blocks
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(block, kind="stable")] = np.arange(n)
    return block, place


def _sort_pairs(
    counts: csr_array, block: NDArray[np.int64], n_blocks: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the start of each tile, int64 (P * P + 1,), and the pairs in the order of tiles, shuffled within each."""
    row_block = np.repeat(block.astype(np.int32), np.diff(counts.indptr))
    tile = row_block * np.int32(n_blocks) + block.astype(np.int32)[counts.indices]
    shuffled = random.permutation(len(tile))
    # For uint16 numbers, the stable sort is a radix sort; it keeps the shuffled order within each tile.
    pairs = shuffled[np.argsort(tile[shuffled].astype(np.uint16), kind="stable")]
    sizes = np.bincount(tile, minlength=n_blocks * n_blocks)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), pairs


def _pair_arrays(
    counts: csr_array, pairs: NDArray[np.int64], place: NDArray[np.int64], settings: GloveSettings
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return row, column, log X and f(X) of the pairs in the order of training."""
    row_of_pair = np.repeat(place.astype(np.int32), np.diff(counts.indptr))
    values = counts.data[pairs]
    weights = np.minimum(1.0, (values / settings.x_max) ** settings.alpha).astype(np.float32)
    return row_of_pair[pairs], place.astype(np.int32)[counts.indices[pairs]], np.log(values), weights


@njit(parallel=True, fastmath=_FAST, error_model="numpy")
def _one_iteration(  # type: ignore[no-untyped-def]
    tiles, shifts, rows, columns, logs, weights, words, contexts, word_squares, context_squares, rate, loss
):
    n_blocks = len(shifts)
    for step in range(n_blocks):
        for block in numba.prange(n_blocks):
            tile = block * n_blocks + (block + shifts[step]) % n_blocks
            loss[block] += _one_tile(
                tiles[tile], tiles[tile + 1], rows, columns, logs, weights,
                words, contexts, word_squares, context_squares, rate,
            )  # fmt: skip


@njit(fastmath=_FAST, error_model="numpy")
def _one_tile(  # type: ignore[no-untyped-def]
    first, last, rows, columns, logs, weights, words, contexts, word_squares, context_squares, rate
):
    d = words.shape[1] - 1
    loss = 0.0
    for pair in range(first, last):
        w, c = words[rows[pair]], contexts[columns[pair]]
        w_squares, c_squares = word_squares[rows[pair]], context_squares[columns[pair]]
        error = w[d] + c[d] - logs[pair]
        for k in range(d):
            error += w[k] * c[k]
        if not np.isfinite(error):
            continue
        weighted = weights[pair] * error
        loss += 0.5 * weighted * error
        step = rate * max(-_CLIP, min(_CLIP, weighted))
        for k in range(d):
            w_gradient = step * c[k]
            c_gradient = step * w[k]
            w[k] -= w_gradient / np.sqrt(w_squares[k])
            c[k] -= c_gradient / np.sqrt(c_squares[k])
            w_squares[k] += w_gradient * w_gradient
            c_squares[k] += c_gradient * c_gradient
        w[d] -= step / np.sqrt(w_squares[d])
        c[d] -= step / np.sqrt(c_squares[d])
        w_squares[d] += step * step
        c_squares[d] += step * step
    return loss
