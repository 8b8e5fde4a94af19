"""Exact neighbours: equal for all block sizes, threads and devices; ties go to the lowest id; CSLS penalises hubs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokalign_lab.alignment.search import block_search, gpu_search
from tokalign_lab.alignment.search.neighbours import density, nearest, nearest_csls
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.token_vectors import unit_rows

GRID = 2.0**20


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def tied_vectors(n: int, d: int, seed: int) -> np.ndarray:
    """Return vectors of which many are equal, some are nearly equal and some are zero."""
    random = np.random.default_rng(seed)
    rows = random_vectors(max(1, n // 4), d, seed)[random.integers(max(1, n // 4), size=n)]
    rows[random.random(n) < 0.1] *= 1 + 1e-7
    rows[random.random(n) < 0.1] = 0
    return rows


@contextmanager
def blocks_of(size: int | None) -> Iterator[None]:
    """Search in blocks of this many queries and keys."""
    with pytest.MonkeyPatch.context() as patch:
        if size is not None:
            patch.setattr(block_search, "BLOCK", (size, size))
        yield


def dense(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return cosines in float64, rounded as in the search."""
    cosine = unit_rows(queries).astype(np.float64) @ unit_rows(keys).astype(np.float64).T
    return np.rint(cosine * GRID) / GRID


def ranked(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k largest values of each row; among ties, the lowest column first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


sizes = st.integers(1, 150)


@settings(max_examples=60)
@given(sizes, sizes, st.integers(1, 12), st.one_of(st.none(), st.integers(1, 160)), st.integers(0, 5), st.booleans())
def test_searching_in_blocks_equals_the_whole_matrix(
    n: int, m: int, k: int, block: int | None, seed: int, tied: bool
) -> None:
    make = tied_vectors if tied else random_vectors
    queries, keys = make(n, 16, seed), make(m, 16, seed + 100)
    cosine = dense(queries, keys)
    with blocks_of(block):
        positions, scores = nearest(queries, keys, k)
        of_queries, of_keys = density(queries, keys)
        by_csls, csls_scores = nearest_csls(queries, keys, k)
    assert positions.tolist() == ranked(cosine, k).tolist()
    assert scores.tolist() == np.take_along_axis(cosine, positions, axis=1).tolist()

    np.testing.assert_array_equal(of_queries, (-np.sort(-cosine, axis=1)[:, :10]).mean(axis=1).astype(np.float32))
    np.testing.assert_array_equal(of_keys, (-np.sort(-cosine, axis=0)[:10]).mean(axis=0).astype(np.float32))

    whole = unit_rows(queries).astype(np.float64) @ unit_rows(keys).astype(np.float64).T
    csls = np.rint((2 * whole - of_keys[None]) * GRID) / GRID
    assert by_csls.tolist() == ranked(csls, k).tolist()
    expected = np.take_along_axis(csls, by_csls, axis=1).astype(np.float32) - of_queries[:, None]
    np.testing.assert_array_equal(csls_scores, expected)


@settings(max_examples=40)
@given(sizes, sizes, st.integers(1, 12), st.integers(1, 160), st.integers(0, 5), st.booleans())
def test_the_gpu_search_gives_the_same_result(n: int, m: int, k: int, block: int, seed: int, tied: bool) -> None:
    """The GPU code on the device "cpu" gives the same results as the search in blocks, also for ties."""
    make = tied_vectors if tied else random_vectors
    queries, keys = unit_rows(make(n, 16, seed)), unit_rows(make(m, 16, seed + 100))
    penalty = np.random.default_rng(seed).random((m, 1), dtype=np.float32)
    asking = np.concatenate([2 * queries, np.full((n, 1), -1, np.float32)], axis=1)
    for pair in ((queries, keys), (asking, np.concatenate([keys, penalty], axis=1))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gpu_search, "BLOCK_NUMBERS", block * m)
            found = gpu_search.best(torch.device("cpu"), *pair, k, of_keys=True)
        for ours, theirs in zip(block_search.best(*pair, k, of_keys=True), found, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_more_ties_than_the_gpu_search_handles_are_searched_again() -> None:
    keys = unit_rows(np.repeat(random_vectors(3, 8, 0), 200, axis=0)[::-1].copy())
    queries = unit_rows(random_vectors(3, 8, 0))
    positions, *_ = gpu_search.best(torch.device("cpu"), queries, keys, 5)
    assert positions.tolist() == [[first + j for j in range(5)] for first in (400, 200, 0)]


def test_ties_go_to_the_lowest_id() -> None:
    keys = np.repeat(random_vectors(7, 300, 0), 40, axis=0)  # forty copies of each
    for block in (None, 1, 7, 100):
        with blocks_of(block):
            positions, _ = nearest(random_vectors(7, 300, 0), keys, 5)
        assert positions.tolist() == [[40 * i + j for j in range(5)] for i in range(7)]


def test_threads_and_blocks_do_not_change_the_result() -> None:
    """The size fills many blocks: BLAS sums in another order in the middle of a block than at its edge."""
    queries, keys = tied_vectors(1500, 300, 0), tied_vectors(2500, 300, 0)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        with blocks_of(333):
            one = *nearest_csls(queries, keys), *density(queries, keys)
    finally:
        numba.set_num_threads(before)
    with blocks_of(97):
        many = *nearest_csls(queries, keys), *density(queries, keys)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_memory_does_not_grow_with_the_matrix() -> None:
    """20,000 x 20,000 cosines would take 1.6 GB; the search must need much less."""
    program = """if True:
        import resource
        from pathlib import Path
        import numpy as np
        from tokalign_lab.alignment.search.neighbours import nearest_csls

        def peak():
            status = Path("/proc/self/status")
            if status.exists():  # ru_maxrss starts at what the parent held
                return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) / 1e6
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9

        rows = np.random.default_rng(0).standard_normal((20_000, 16), dtype=np.float32)
        nearest_csls(rows[:300], rows[:300])
        before = peak()
        nearest_csls(rows, rows)
        print(peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert 0 < float(done.stdout) < 0.1  # GB


def test_csls_penalises_a_hub() -> None:
    """A key in the centre of all vectors is nearest to most queries by cosine, but the true partner of none."""
    middle, own, noise = (unit_rows(random_vectors(n, 100, seed)) for n, seed in ((1, 1), (80, 2), (80, 3)))
    keys = np.concatenate([middle, middle + own])
    queries = middle + 0.35 * own + 0.5 * noise
    partner = np.arange(1, 81)
    by_cosine, by_csls = (search(queries, keys, 1)[0][:, 0] for search in (nearest, nearest_csls))
    assert (by_cosine == 0).mean() > 0.5
    assert (by_csls == 0).mean() < 0.1
    assert (by_csls == partner).mean() > 2 * (by_cosine == partner).mean()


def test_density_is_measured_over_the_whole_space() -> None:
    queries, keys = random_vectors(30, 8, 3), random_vectors(40, 8, 4)
    whole = nearest_csls(queries, keys, 3)
    of_queries, of_keys = density(queries, keys)
    some = nearest_csls(queries[:5], keys, 3, (of_queries[:5], of_keys))
    assert some[0].tolist() == whole[0][:5].tolist()


def test_no_queries_give_an_empty_result() -> None:
    positions, scores = nearest(np.zeros((0, 4)), random_vectors(3, 4, 0), 2)
    assert positions.shape == scores.shape == (0, 2)


def test_a_search_without_keys_is_an_error() -> None:
    for search in (nearest, nearest_csls, density):
        with pytest.raises(InputError, match="no vectors to search"):
            search(random_vectors(3, 4, 0), np.zeros((0, 4)))
        with pytest.raises(InputError, match="4 and of 5 dimensions"):
            search(random_vectors(3, 4, 0), random_vectors(3, 5, 0))


def test_a_failing_search_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("tokalign_lab.alignment.search.block_search._offer_to_rows", broken)
    with blocks_of(4), pytest.raises(MemoryError):
        block_search.best(rows, rows, 2, of_keys=True)
