"""Orthogonal Procrustes: the rotation that lays known pairs of two spaces over each other.

Find W = argmin over orthogonal W of ||X W - Z||, rows of X and Z in pairs; W = U V' where X'Z = U S V'
(Schönemann 1966; for word vectors Xing et al. 2015). Relative representations (`relative.py`) compare every token
with a few hundred pivots; here all known pairs decide on one rotation, and all of both spaces' dimensions stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError


def common_axes(
    source_rows: NDArray[Any], target_rows: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Rotate both sides to the axes along which the pairs vary together.

    Parameters
    ----------
    source_rows, target_rows
        float (n, d), row i of one is the pair of row i of the other.

    Returns
    -------
    source_axes, target_axes
        float32 (d, d), orthogonal: U and V.
    strength
        float32 (d,), falling: S, the cross-covariance along each axis.

    Raises
    ------
    InputError
        If the rows do not come in pairs of one length.
    """
    if source_rows.shape != target_rows.shape or source_rows.ndim != 2:
        raise InputError(
            f"Procrustes needs rows in pairs, (n, d) on both sides, but got {source_rows.shape} and "
            f"{target_rows.shape}; give both sides vectors of the same dimensions."
        )
    cross = np.asarray(source_rows, np.float64).T @ np.asarray(target_rows, np.float64)
    left, strength, right = np.linalg.svd(cross)
    return left.astype(np.float32), right.T.astype(np.float32), strength.astype(np.float32)


def procrustes(source_rows: NDArray[Any], target_rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rotation W, float32 (d, d), orthogonal, for which `source_rows @ W` is nearest to `target_rows`."""
    source_axes, target_axes, _ = common_axes(source_rows, target_rows)
    return source_axes @ target_axes.T
