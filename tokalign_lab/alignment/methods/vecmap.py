"""VecMap: map two spaces into one by self-learning of a dictionary (Artetxe, Labaka, Agirre 2018).

TokAlign++ uses it instead of relative representations. From an initial dictionary, two steps alternate:

1. rotate both spaces to their common axes, X'DZ = U S V', X <- X U, Z <- Z V (`common_axes`);
2. make a better dictionary D from the mapped spaces: CSLS, best partners in both directions (`induction.py`).

At first each similarity is kept with probability 0.1. After `patience` iterations without improvement the probability
doubles. At 1, self-learning ends after `last_patience` such iterations. The final mapping is computed once from the
last dictionary: whiten, rotate, weight each axis by S^0.5 on both sides, and undo the whitening (their section 3.4).

The initial dictionary is known: tokens that both vocabularies have. The paper's unsupervised start (section 3.2) is in
`benchmarks/faithfulness.py`, because it fails with little text.

Implemented from the paper; as there, rows are scaled to length 1, centred, and scaled again. Unlike in the paper, the
random phase uses only the 4,000 most frequent tokens and a patience of ten iterations, not 50; the last phase uses up
to 20,000 tokens, as the paper does. P@1 on held-out shared tokens, SmolLM2 to a 32k SentencePiece vocabulary, GloVe of
the default text:

=======================  =====  ======
start                    2 MB   0.3 MB
=======================  =====  ======
tokens of equal bytes    0.818  0.602
tokens of equal strings  0.818  0.607
none (unsupervised)      0.819  0.010
=======================  =====  ======

Patience 50 takes four times as many iterations and finds three more of 196 held-out tokens (0.622).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tokalign_lab.alignment.methods.induction import Dictionary, induce
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows

_FIRST_KEEP, _GROWTH = 0.1, 2.0
_GAIN = 1e-6  # smallest increase of the average similarity of partners that counts as an improvement
_REWEIGHT = 0.5
_LEAST = 1e-6  # of the largest eigenvalue: with few pairs, some directions have no variance

SeedPairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class VecMapSettings:
    """Settings of the self-learning; the paper's except for `random_cutoff`, `patience` and `last_patience`.

    `random_cutoff` and `cutoff` are the number of most frequent tokens of each side in the random phase and in the last
    phase. `patience` and `last_patience` are iterations without improvement before the random phase raises the
    probability, and before the last phase, which has no randomness, ends.
    """

    random_cutoff: int = 4000
    cutoff: int = 20000
    patience: int = 10
    last_patience: int = 2


def vecmap(
    source: TokenVectors,
    target: TokenVectors,
    seed_pairs: SeedPairs,
    seed: int = 0,
    settings: VecMapSettings | None = None,
    progress: Progress = silent,
) -> tuple[TokenVectors, TokenVectors]:
    """Map two spaces of the same dimensions into one, to be compared by CSLS.

    `seed_pairs` are source ids and target ids of known pairs, int64 (n,) each; pairs without vectors on both sides are
    ignored. `seed` is for the random dropout; `progress` is called after every iteration. The provenance of the result
    describes the mapping. Raises InputError if dimensions differ, a side has no vectors, or none of the seed pairs has
    vectors on both sides.
    """
    settings = settings or VecMapSettings()
    if source.dimensions != target.dimensions or not len(source) or not len(target):
        raise InputError(
            f"VecMap needs vectors of the same dimensions on both sides, but got {len(source)} of "
            f"{source.dimensions} and {len(target)} of {target.dimensions}; train both sides alike on more text."
        )
    with threadpool_limits(1, user_api="blas"):  # the same bits for any number of threads
        x, z = normalise(source.rows), normalise(target.rows)
        by_count = [np.lexsort((vectors.ids, -vectors.counts)) for vectors in (source, target)]
        first = _known_start(source, target, seed_pairs)
        dictionary, turns = _self_learn(x, z, by_count, first, seed, settings, progress)
        x, z = _final_mapping(x, z, dictionary)
    provenance = {
        "mapping": "vecmap",
        "start_pairs": len(first.source),
        "turns": turns,
        "objective": dictionary.objective,
        **asdict(settings),
    }
    return _with_rows(source, x, provenance), _with_rows(target, z, provenance)


def common_axes(
    source_rows: NDArray[Any], target_rows: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return U, V (float32 (d, d), orthogonal) and S (float32 (d,), descending) of the pairs' cross-covariance.

    Row i of one side, float (n, d), is paired with row i of the other. Raises InputError if the shapes differ.
    """
    if source_rows.shape != target_rows.shape or source_rows.ndim != 2:
        raise InputError(
            f"Procrustes needs rows in pairs, (n, d) on both sides, but got {source_rows.shape} and "
            f"{target_rows.shape}; give both sides vectors of the same dimensions."
        )
    cross = np.asarray(source_rows, np.float64).T @ np.asarray(target_rows, np.float64)
    left, strength, right = np.linalg.svd(cross)
    return left.astype(np.float32), right.T.astype(np.float32), strength.astype(np.float32)


def normalise(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Scale rows to length 1, centre each dimension, and scale rows again; float32."""
    rows = unit_rows(rows)
    return unit_rows(rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32))


def _known_start(source: TokenVectors, target: TokenVectors, seed_pairs: SeedPairs) -> Dictionary:
    places = source.positions_of(seed_pairs[0]), target.positions_of(seed_pairs[1])
    known = (places[0] >= 0) & (places[1] >= 0)
    if not known.any():
        raise InputError("None of the pairs that VecMap starts from has vectors on both sides; give more text.")
    return Dictionary(places[0][known], places[1][known], 0.0)


def _self_learn(
    x: NDArray[np.float32],
    z: NDArray[np.float32],
    by_count: list[NDArray[np.int64]],
    dictionary: Dictionary,
    seed: int,
    settings: VecMapSettings,
    progress: Progress,
) -> tuple[Dictionary, int]:
    """Improve the dictionary until it no longer improves; return it as rows of x and z, and the iterations."""
    offset = int(np.random.default_rng(seed).integers(1 << 40))
    keep, turns, waited, best = _FIRST_KEEP, 0, 0, -np.inf
    while True:
        cutoff, patience = (
            (settings.random_cutoff, settings.patience) if keep < 1 else (settings.cutoff, settings.last_patience)
        )
        frequent = by_count[0][:cutoff], by_count[1][:cutoff]
        axes = common_axes(x[dictionary.source], z[dictionary.target])
        found = induce(x[frequent[0]] @ axes[0], z[frequent[1]] @ axes[1], keep, offset + turns)
        dictionary = Dictionary(frequent[0][found.source], frequent[1][found.target], found.objective)
        turns += 1
        waited = 0 if found.objective >= best + _GAIN else waited + 1
        best = max(best, found.objective)
        share = min(0.99, np.log2(keep / _FIRST_KEEP) / np.log2(1 / _FIRST_KEEP))
        progress(float(share), f"VecMap turn {turns}, average similarity {found.objective:.4f}")
        if waited >= patience:
            if keep >= 1:
                return dictionary, turns
            keep, waited = min(1.0, _GROWTH * keep), 0
            if keep >= 1:
                best = -np.inf  # the last phase uses more tokens, so its objective is not comparable


def _final_mapping(
    x: NDArray[np.float32], z: NDArray[np.float32], dictionary: Dictionary
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Whiten, rotate, weight the axes, and undo the whitening."""
    pairs_x, pairs_z = x[dictionary.source], z[dictionary.target]
    (white_x, back_x), (white_z, back_z) = _whitening(pairs_x), _whitening(pairs_z)
    axes_x, axes_z, strength = common_axes(pairs_x @ white_x, pairs_z @ white_z)
    weight = np.diag(strength**_REWEIGHT)
    return (
        x @ np.asarray(white_x @ axes_x @ weight @ axes_x.T @ back_x @ axes_x, np.float32),
        z @ np.asarray(white_z @ axes_z @ weight @ axes_z.T @ back_z @ axes_z, np.float32),
    )


def _whitening(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (X'X)^-0.5, which decorrelates the dimensions, and its inverse (X'X)^0.5."""
    rows = rows.astype(np.float64)
    variance, axes = np.linalg.eigh(rows.T @ rows)
    deviation = np.sqrt(np.maximum(variance, _LEAST * variance[-1]))
    return ((axes / deviation) @ axes.T).astype(np.float32), ((axes * deviation) @ axes.T).astype(np.float32)


def _with_rows(vectors: TokenVectors, rows: NDArray[np.float32], provenance: dict[str, Any]) -> TokenVectors:
    return TokenVectors(
        vectors.ids, rows, vectors.counts, vectors.vocabulary_fingerprint, {**vectors.provenance, **provenance}
    )
