"""Token vectors drawn on a plane: PCA at once, UMAP when there is time for it.

Two vocabularies are two clouds. Where both live in one space (the anchored vectors), one layout is fitted to both
together (`shared`), so that a shared token has the same place on both maps. Where they do not, each cloud
gets its own layout, and the second is turned (rotated or mirrored, never stretched) so that pairs of the lexicon lie
alike; a layout has no up or down of its own.

Vectors are scaled to unit length first, because neighbours are judged by cosine everywhere else. PCA uses all rows.
UMAP is fitted on a seeded sample, for it takes minutes on a whole vocabulary; every other token is put at the
weighted mean of its nearest fitted tokens, which is less exact, so `Projection.fitted` marks which are which.

Results are stored in the cache folder by the hash of the vectors and parameters. Layouts of runs whose vectors are not
stored come with the package (`SHIPPED`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from tokalign_lab.errors import InputError, require_extra
from tokalign_lab.files import cache_folder, cached_folder, damage, hash_of
from tokalign_lab.progress import Progress, part
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows

METHODS = {
    "pca": "the two directions in which the vectors differ most; distances are honest, crowding is not resolved",
    "umap": "neighbours are kept together; distances between groups mean little",
}
FIT_ON = 5000  # tokens that UMAP is fitted on: about half a minute on two cores
NEIGHBOURS = 15
MIN_DISTANCE = 0.1
_PLACED_AT_ONCE = 2048
PLACED_BY = 5  # nearest fitted tokens that place a token that was not fitted
# Vector methods that give both vocabularies rows in the same coordinates; mapped spaces (VecMap) say so themselves.
ONE_SPACE = ("anchored", "relative", "hidden-states")
FOUND_NEIGHBOURS = 0.4  # share of UMAP's time that goes by before its first epoch, on the default sample
SHIPPED = Path(__file__).parent / "data" / "gallery" / "layouts"
_FILE = "layout.npz"
_SHIPPED_BITS = 13  # of a shipped coordinate: a twentieth of a pixel on a map of 800 pixels
VERSION = 1  # part of the cache key: raise it when the result for the same input changes


@dataclass(frozen=True)
class Projection:
    """Places of tokens on a plane.

    Attributes
    ----------
    ids : int64 (n,), ascending
    xy : float32 (n, 2)
    method : "pca" or "umap"
    provenance : parameters, seed, hash of what went in
    fitted : bool (n,); False where a token was placed by its neighbours
    """

    ids: np.ndarray
    xy: np.ndarray
    method: str
    provenance: dict[str, Any] = field(default_factory=dict)
    fitted: np.ndarray | None = None

    def places_of(self, ids: np.ndarray) -> np.ndarray:
        """float32 (len(ids), 2); nan for a token that has no vector."""
        at = np.searchsorted(self.ids, ids)
        known = at < len(self.ids)
        known[known] = self.ids[at[known]] == np.asarray(ids)[known]
        places = np.full((len(ids), 2), np.nan, dtype=np.float32)
        places[known] = self.xy[at[known]]
        return places


def project(
    spaces: Sequence[TokenVectors],
    method: str = "pca",
    shared: bool = False,
    fit_on: int = FIT_ON,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Projection]:
    """Lay out one or more sets of token vectors, from the cache where this was done before.

    Parameters
    ----------
    spaces : token vectors, float32 (n_i, d_i)
    method : "pca" or "umap"
    shared : one layout for all; needs vectors of one width in one space
    fit_on : for UMAP, how many tokens are fitted (of all spaces together when shared)

    Returns
    -------
    list of Projection, one a space, in their order

    Raises
    ------
    InputError
        For an unknown method, too few tokens, spaces of unlike width when `shared`, a layout that is not there of
        vectors that are not stored, or a new UMAP layout when umap-learn is not installed.
    """
    _check(spaces, method, shared)
    folder = cache_path(spaces, method, shared, fit_on, seed)
    shipped = SHIPPED / f"{folder.name}.npz"
    if shipped.is_file():
        return _load(shipped, spaces, method)
    for space in spaces:
        space.check_stored()

    def lay_out(temporary: Path) -> None:
        _save(temporary / _FILE, spaces, method, shared, fit_on, seed, progress)

    return _load(cached_folder(folder, lay_out) / _FILE, spaces, method)


def ship(folder: Path, spaces: Sequence[TokenVectors], method: str, progress: Progress | None = None) -> None:
    """Write the shared layout of `spaces` to `folder`, to be found from their ids alone; coordinates are rounded."""
    layouts = project(spaces, method, shared=True, progress=progress)
    xy = np.concatenate([layout.xy for layout in layouts])
    step = 2.0 ** (np.floor(np.log2(np.abs(xy).max())) - _SHIPPED_BITS)
    places = np.split(np.round(xy / step) * step, [len(layouts[0].ids)])
    fitted = [np.ones(len(layout.ids), bool) if layout.fitted is None else layout.fitted for layout in layouts]
    key = cache_path([replace(space, rows=space.rows[:, :0]) for space in spaces], method, True, FIT_ON, 0).name
    folder.mkdir(exist_ok=True)
    _write(folder / f"{key}.npz", places, fitted, _parameters(method, True, FIT_ON, 0))


def _save(
    path: Path,
    spaces: Sequence[TokenVectors],
    method: str,
    shared: bool,
    fit_on: int,
    seed: int,
    progress: Progress | None,
) -> None:
    groups = [np.concatenate([space.rows for space in spaces])] if shared else [space.rows for space in spaces]
    xy, fitted = [], []
    for done, rows in enumerate(groups):
        share = part(progress, done / len(groups), (done + 1) / len(groups))
        if share is not None:
            share(0.0, f"{method.upper()} of {len(rows):,} tokens")
        places, was_fitted = _layout(unit_rows(rows), method, fit_on, seed, share)
        xy.append(places)
        fitted.append(was_fitted)
    _write(path, xy, fitted, _parameters(method, shared, fit_on, seed))


def _write(path: Path, xy: Sequence[np.ndarray], fitted: Sequence[np.ndarray], parameters: dict[str, Any]) -> None:
    places = np.concatenate(xy).astype(np.float32)
    np.savez_compressed(path, xy=places, fitted=np.concatenate(fitted), parameters=np.array(json.dumps(parameters)))


def is_known(spaces: Sequence[TokenVectors], method: str, shared: bool, fit_on: int = FIT_ON, seed: int = 0) -> bool:
    """Whether `project` has nothing to work out for this layout.

    Raises
    ------
    InputError
        When it could not work it out either, because the vectors are not stored.
    """
    folder = cache_path(spaces, method, shared, fit_on, seed)
    known = (SHIPPED / f"{folder.name}.npz").is_file() or damage(folder) is None
    for space in () if known else spaces:
        space.check_stored()
    return known


def share_a_space(source: TokenVectors, target: TokenVectors) -> bool:
    """Whether coordinates of the two sets mean the same, so that one layout can hold both."""
    told = [vectors.provenance for vectors in (source, target)]
    methods = {provenance.get("method") for provenance in told}
    one_space = methods <= set(ONE_SPACE) or all("mapping" in provenance for provenance in told)
    return len(methods) == 1 and one_space and source.dimensions == target.dimensions


def cache_path(spaces: Sequence[TokenVectors], method: str, shared: bool, fit_on: int, seed: int) -> Path:
    """Return the folder where the layout of these vectors with these parameters is, or will be, kept."""
    parameters = json.dumps(_parameters(method, shared, fit_on, seed), sort_keys=True)
    parts = [parameters.encode()]
    for space in spaces:
        parts += [space.ids.tobytes(), np.ascontiguousarray(space.rows).tobytes()]
    return cache_folder() / "projections" / hash_of(parts)


def turned_onto(projection: Projection, reference: Projection, ids: np.ndarray, partners: np.ndarray) -> Projection:
    """Turn and mirror a layout so that `ids` come to lie like their `partners` in the reference.

    Orthogonal Procrustes in the plane (Schönemann 1966). Distances within the layout stay as they were.
    """
    here, there = projection.places_of(ids), reference.places_of(partners)
    both = np.isfinite(here).all(axis=1) & np.isfinite(there).all(axis=1)
    if both.sum() < 3:
        return projection
    centre = here[both].mean(axis=0)
    left, _, right = np.linalg.svd((here[both] - centre).T @ (there[both] - there[both].mean(axis=0)))
    xy = ((projection.xy - centre) @ (left @ right)).astype(np.float32)
    return Projection(projection.ids, xy, projection.method, projection.provenance, projection.fitted)


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
        Projection(space.ids, places, method, provenance, was_fitted)
        for space, places, was_fitted in zip(spaces, np.split(xy, ends), np.split(fitted, ends), strict=True)
    ]


def _layout(
    rows: np.ndarray, method: str, fit_on: int, seed: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    if method == "pca":
        return _principal(rows, 2), np.ones(len(rows), dtype=bool)
    fitted = np.zeros(len(rows), dtype=bool)
    sample = np.random.default_rng(seed).permutation(len(rows))[: max(fit_on, 3)]
    fitted[sample] = True
    places = np.empty((len(rows), 2), dtype=np.float32)
    places[fitted] = _umap(rows[fitted], seed, progress)
    if not fitted.all():
        places[~fitted] = _placed(rows[~fitted], rows[fitted], places[fitted])
    return places, fitted


def _principal(rows: np.ndarray, dimensions: int) -> np.ndarray:
    """Return the first principal components, float32 (n, dimensions), with signs fixed so that it can be repeated."""
    centred = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    chosen = directions[:, ::-1][:, :dimensions]
    signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])])
    return cast(np.ndarray, (centred @ (chosen * signs)).astype(np.float32))


class _Epochs(io.StringIO):
    """What UMAP's own progress bar writes to: "epoch/epochs" becomes progress, and a chance to be cancelled."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def write(self, text: str) -> int:
        """Report how many epochs are done, if `text` contains that."""
        done, _, of = text.strip().partition("/")
        if done.isdigit() and of.isdigit():
            share = FOUND_NEIGHBOURS + (1 - FOUND_NEIGHBOURS) * int(done) / max(int(of), 1)
            self._progress(min(share, 0.99), f"UMAP: epoch {done} of {of}")
        return len(text)


def _umap(rows: np.ndarray, seed: int, progress: Progress | None) -> np.ndarray:
    require_extra("lab", "umap", "A UMAP map")
    import umap

    quiet: dict[str, Any] = {"disable": True}
    told = quiet if progress is None else {"disable": False, "file": _Epochs(progress), "bar_format": "{n}/{total}"}

    model = umap.UMAP(
        n_neighbors=min(NEIGHBOURS, len(rows) - 1),
        min_dist=MIN_DISTANCE,
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # a seeded UMAP runs on one thread anyway; saying so keeps it from warning
        init="pca" if len(rows) < 50 else "spectral",
        tqdm_kwds=told,
    )
    return np.asarray(model.fit_transform(rows), dtype=np.float32)


def _placed(rows: np.ndarray, fitted_rows: np.ndarray, fitted_xy: np.ndarray) -> np.ndarray:
    """Put each row at the mean of its nearest fitted rows, weighted by cosine; float32 (n, 2)."""
    places = np.empty((len(rows), 2), dtype=np.float32)
    k = min(PLACED_BY, len(fitted_rows))
    for start in range(0, len(rows), _PLACED_AT_ONCE):
        cosine = rows[start : start + _PLACED_AT_ONCE] @ fitted_rows.T
        nearest = np.argpartition(cosine, -k, axis=1)[:, -k:]
        weights = np.clip(np.take_along_axis(cosine, nearest, axis=1), 1e-3, None)
        weights /= weights.sum(axis=1, keepdims=True)
        places[start : start + _PLACED_AT_ONCE] = np.einsum("nk,nkd->nd", weights, fitted_xy[nearest])
    return places
