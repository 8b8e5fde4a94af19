"""Token vectors on a plane: PCA, which is fast, and UMAP, which takes longer.

If two vocabularies are in one space (the anchored vectors), one layout is fitted to both together (`shared`), so that a
shared token has the same position on both maps. Otherwise each vocabulary gets its own layout, and the second is
rotated or mirrored, never scaled, so that pairs of the lexicon have similar positions.

Vectors are scaled to unit length first, because neighbours are defined by cosine. PCA uses all rows. UMAP is fitted on
a seeded sample, because it takes minutes on a whole vocabulary; every other token is placed at the weighted mean of its
nearest fitted tokens, which is less exact, so `Projection.fitted` marks the fitted ones.

Results are stored in the cache folder by the hash of the vectors and parameters. Layouts of runs whose vectors are not
stored come with the package (`SHIPPED`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from tokalign_lab.errors import InputError, require_extra
from tokalign_lab.files import cache_folder, cached_folder, damage, hash_of
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.vectors.token_vectors import TokenVectors, positions_in, row_norms, unit_rows

METHODS = {
    "pca": "the two directions in which the vectors differ most; distances are comparable, crowded areas overlap",
    "umap": "neighbours stay close together; distances between groups mean little",
}
FIT_ON = 5000  # tokens that UMAP is fitted on: about half a minute on two cores
NEIGHBOURS = 15
MIN_DISTANCE = 0.1
_BATCH_ROWS = 2048
PLACED_BY = 5  # number of nearest fitted tokens that position a token that was not fitted
# Vector methods with one space for both vocabularies; mapped spaces (VecMap) have "mapping" in their provenance.
ONE_SPACE = ("anchored", "relative", "hidden-states")
_NEIGHBOUR_SHARE = 0.4  # of UMAP's time, before its first epoch, on the default sample
SHIPPED = Path(__file__).parent / "data" / "gallery" / "layouts"
_BLOCK = 8_192  # rows that PCA reads at a time
_FILE = "layout.npz"
_SHIPPED_BITS = 13  # of a shipped coordinate: a twentieth of a pixel on a map of 800 pixels
VERSION = 1  # part of the cache key: raise it when the result for the same input changes


@dataclass(frozen=True)
class Projection:
    """Positions of tokens on a plane, by `method` ("pca" or "umap").

    `ids` is int64 (n,), ascending; `xy` float32 (n, 2); `fitted` bool (n,), False for a token that was positioned by
    its neighbours. `provenance` has the parameters, with the seed of UMAP.
    """

    ids: np.ndarray
    xy: np.ndarray
    method: str
    fitted: np.ndarray
    provenance: dict[str, Any]

    def positions_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the positions of tokens, float32 (len(ids), 2); NaN for a token without a vector."""
        at = positions_in(self.ids, ids)
        return np.where(at[:, None] >= 0, self.xy[at], np.float32(np.nan))


def project(
    spaces: Sequence[TokenVectors],
    method: str = "pca",
    shared: bool = False,
    fit_on: int = FIT_ON,
    seed: int = 0,
    progress: Progress = silent,
) -> list[Projection]:
    """Project one or more sets of token vectors by "pca" or "umap", or load the layouts from the cache.

    `shared` makes one layout for all and needs vectors of the same dimensions in one space. `fit_on` is the number of
    tokens that UMAP fits, of all spaces together when `shared`. Raises InputError for an unknown method, too few
    tokens, different dimensions when `shared`, a missing layout of vectors that are not stored, or a new UMAP layout
    when umap-learn is not installed.
    """
    _check(spaces, method, shared)
    folder = cache_path(spaces, method, shared, fit_on, seed)
    shipped = SHIPPED / f"{folder.name}.npz"
    if shipped.is_file():
        return _load(shipped, spaces, method)
    for space in spaces:
        space.check_stored()

    def lay_out(temporary: Path) -> None:
        parts = [space.rows for space in spaces]
        groups = [parts] if shared else [[rows] for rows in parts]
        xy, fitted = [], []
        for done, group in enumerate(groups):
            share = part(progress, done / len(groups), (done + 1) / len(groups))
            share(0.0, f"{method.upper()} of {sum(map(len, group)):,} tokens")
            places, was_fitted = _layout(group, method, fit_on, seed, share)
            xy.append(places)
            fitted.append(was_fitted)
        _write(temporary / _FILE, xy, fitted, _parameters(method, shared, fit_on, seed))

    return _load(cached_folder(folder, lay_out) / _FILE, spaces, method)


def ship(folder: Path, spaces: Sequence[TokenVectors], method: str) -> None:
    """Write the shared layout of `spaces` to `folder`, named by the hash of their ids; coordinates are rounded."""
    layouts = project(spaces, method, shared=True)
    xy = np.concatenate([layout.xy for layout in layouts])
    step = 2.0 ** (np.floor(np.log2(np.abs(xy).max())) - _SHIPPED_BITS)
    places = np.split(np.round(xy / step) * step, [len(layouts[0].ids)])
    key = cache_path([replace(space, rows=space.rows[:, :0]) for space in spaces], method, True, FIT_ON, 0).name
    folder.mkdir(exist_ok=True)
    _write(folder / f"{key}.npz", places, [layout.fitted for layout in layouts], _parameters(method, True, FIT_ON, 0))


def _write(path: Path, xy: Sequence[np.ndarray], fitted: Sequence[np.ndarray], parameters: dict[str, Any]) -> None:
    places = np.concatenate(xy).astype(np.float32)
    np.savez_compressed(path, xy=places, fitted=np.concatenate(fitted), parameters=np.array(json.dumps(parameters)))


def is_known(spaces: Sequence[TokenVectors], method: str, shared: bool, fit_on: int = FIT_ON) -> bool:
    """Whether `project` can load this layout. Raises InputError if it cannot compute it either."""
    folder = cache_path(spaces, method, shared, fit_on, 0)
    known = (SHIPPED / f"{folder.name}.npz").is_file() or damage(folder) is None
    for space in () if known else spaces:
        space.check_stored()
    return known


def share_a_space(source: TokenVectors, target: TokenVectors) -> bool:
    """Whether two sets of vectors are in one space, so that one layout can show both."""
    provenances = [vectors.provenance for vectors in (source, target)]
    methods = {provenance.get("method") for provenance in provenances}
    one_space = methods <= set(ONE_SPACE) or all("mapping" in provenance for provenance in provenances)
    return len(methods) == 1 and one_space and source.dimensions == target.dimensions


def cache_path(spaces: Sequence[TokenVectors], method: str, shared: bool, fit_on: int, seed: int) -> Path:
    """Return the cache folder of the layout of these vectors with these parameters."""
    parameters = json.dumps(_parameters(method, shared, fit_on, seed), sort_keys=True)
    parts: list[bytes | memoryview] = [parameters.encode()]
    for space in spaces:
        parts += [part.data.cast("B") if part.size else b"" for part in (space.ids, space.rows)]
    return cache_folder() / "projections" / hash_of(parts)


def rotated_onto(projection: Projection, reference: Projection, ids: np.ndarray, partners: np.ndarray) -> Projection:
    """Rotate and mirror a layout so that `ids` get positions like their `partners` in the reference.

    Orthogonal Procrustes in the plane (Schönemann 1966); distances within the layout do not change.
    """
    here, there = projection.positions_of(ids), reference.positions_of(partners)
    both = np.isfinite(here).all(axis=1) & np.isfinite(there).all(axis=1)
    if both.sum() < 3:
        return projection
    centre = here[both].mean(axis=0)
    left, _, right = np.linalg.svd((here[both] - centre).T @ (there[both] - there[both].mean(axis=0)))
    return replace(projection, xy=((projection.xy - centre) @ (left @ right)).astype(np.float32))


def _check(spaces: Sequence[TokenVectors], method: str, shared: bool) -> None:
    if method not in METHODS:
        raise InputError(f"There is no layout called {method!r}; choose one of {', '.join(METHODS)}.")
    if any(len(space.ids) < 3 for space in spaces):
        raise InputError("A map needs at least 3 tokens with vectors; give the alignment more text.")
    widths = {space.rows.shape[1] for space in spaces}
    if shared and len(widths) > 1:
        raise InputError(f"One shared layout needs vectors of one width, but these have {sorted(widths)} dimensions.")


def _parameters(method: str, shared: bool, fit_on: int, seed: int) -> dict[str, Any]:
    parameters: dict[str, Any] = {"method": method, "shared": shared, "version": VERSION}
    if method == "umap":
        parameters |= {"fit_on": fit_on, "seed": seed, "neighbours": NEIGHBOURS, "min_distance": MIN_DISTANCE}
    return parameters


def _load(file: Path, spaces: Sequence[TokenVectors], method: str) -> list[Projection]:
    with np.load(file) as stored:
        xy, fitted = stored["xy"], stored["fitted"]
        provenance = json.loads(str(stored["parameters"]))
    ends = np.cumsum([len(space.ids) for space in spaces])[:-1]
    return [
        Projection(space.ids, places, method, was_fitted, provenance)
        for space, places, was_fitted in zip(spaces, np.split(xy, ends), np.split(fitted, ends), strict=True)
    ]


def _layout(
    parts: Sequence[np.ndarray], method: str, fit_on: int, seed: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    if method == "pca":
        places = _principal(parts)
        return places, np.ones(len(places), dtype=bool)
    rows = unit_rows(np.concatenate(parts))
    fitted = np.zeros(len(rows), dtype=bool)
    sample = np.random.default_rng(seed).permutation(len(rows))[: max(fit_on, 3)]
    fitted[sample] = True
    places = np.empty((len(rows), 2), dtype=np.float32)
    places[fitted] = _umap(rows[fitted], seed, progress)
    if not fitted.all():
        places[~fitted] = _placed(rows[~fitted], rows[fitted], places[fitted])
    return places, fitted


def _principal(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the scores of the first two principal components of unit rows, float32 (n, 2), with fixed signs.

    The rows are read in blocks, because a copy of a large vocabulary's rows takes seconds.
    """
    blocks = [part[start : start + _BLOCK] for part in parts for start in range(0, len(part), _BLOCK)]
    n, width = sum(map(len, parts)), parts[0].shape[1]
    total, products = np.zeros(width), np.zeros((width, width))
    # in float32, because dividing by float64 takes twice as long
    norms = [row_norms(block)[:, None].astype(np.float32) for block in blocks]
    for block, norm in zip(blocks, norms, strict=True):
        rows = block / norm
        total += rows.sum(axis=0, dtype=np.float64)
        products += rows.T @ rows
    mean = total / n
    _, directions = np.linalg.eigh(products - n * np.outer(mean, mean))
    chosen = directions[:, ::-1][:, :2]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(2)])
    axes = chosen.astype(np.float32)
    scores = [block @ axes / norm for block, norm in zip(blocks, norms, strict=True)]
    return cast(np.ndarray, (np.concatenate(scores) - mean @ chosen).astype(np.float32))


class _Epochs(io.StringIO):
    """The output of UMAP's progress bar: "epoch/epochs" becomes a call of `progress`, which may raise to cancel."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def write(self, text: str) -> int:
        """Report the epoch in `text`, if any."""
        done, _, of = text.strip().partition("/")
        if done.isdigit() and of.isdigit():
            share = _NEIGHBOUR_SHARE + (1 - _NEIGHBOUR_SHARE) * int(done) / max(int(of), 1)
            self._progress(min(share, 0.99), f"UMAP: epoch {done} of {of}")
        return len(text)


def _umap(rows: np.ndarray, seed: int, progress: Progress) -> np.ndarray:
    from tokalign_lab.vectors import compiled  # noqa: F401  numba needs a folder before umap is imported

    require_extra("lab", "umap", "A UMAP map")
    import umap

    model = umap.UMAP(
        n_neighbors=min(NEIGHBOURS, len(rows) - 1),
        min_dist=MIN_DISTANCE,
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # a seeded UMAP uses one thread, and warns without this
        init="pca" if len(rows) < 50 else "spectral",
        tqdm_kwds={"disable": False, "file": _Epochs(progress), "bar_format": "{n}/{total}"},
    )
    return np.asarray(model.fit_transform(rows), dtype=np.float32)


def _placed(rows: np.ndarray, fitted_rows: np.ndarray, fitted_xy: np.ndarray) -> np.ndarray:
    """Return for each row the mean position of its nearest fitted rows, weighted by cosine; float32 (n, 2)."""
    places = np.empty((len(rows), 2), dtype=np.float32)
    k = min(PLACED_BY, len(fitted_rows))
    for start in range(0, len(rows), _BATCH_ROWS):
        cosine = rows[start : start + _BATCH_ROWS] @ fitted_rows.T
        nearest = np.argpartition(cosine, -k, axis=1)[:, -k:]
        weights = np.clip(np.take_along_axis(cosine, nearest, axis=1), 1e-3, None)
        weights /= weights.sum(axis=1, keepdims=True)
        places[start : start + _BATCH_ROWS] = np.einsum("nk,nkd->nd", weights, fitted_xy[nearest])
    return places
