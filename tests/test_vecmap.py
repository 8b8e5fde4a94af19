"""Mapping one space onto another: known rotations are found from a few known pairs."""

from __future__ import annotations

import numpy as np
import pytest

from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.methods.induction import induce
from tokalign_lab.alignment.methods.vecmap import VecMapSettings, common_axes, normalise, vecmap
from tokalign_lab.alignment.search.neighbours import nearest_csls
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.anchored import anchored_vectors
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows

QUICK = VecMapSettings(random_cutoff=1000, patience=5)


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def rotation(d: int, seed: int = 5) -> np.ndarray:
    return np.linalg.qr(random_vectors(d, d, seed))[0]


@pytest.fixture(scope="module")
def real(small_pair: TokenizedPair) -> tuple[TokenVectors, TokenVectors]:
    """Anchored vectors of a real text: the ids of shared tokens are known, and word frequencies are uneven."""
    shared = text_tokens_shared(small_pair.source, small_pair.target, "bytes")
    return anchored_vectors(
        small_pair.source_corpus,
        small_pair.target_corpus,
        (shared.source_ids, shared.target_ids),
        (small_pair.source.size, small_pair.target.size),
        AnchoredSettings(dimensions=100),
    )


@pytest.fixture(scope="module")
def turned(real: tuple[TokenVectors, TokenVectors]) -> tuple[TokenVectors, TokenVectors, np.ndarray]:
    """A real space, the same space rotated, with noise and other ids, and the new id of each token."""
    one = real[0]
    noise = 0.3 * random_vectors(*one.rows.shape, 1) * one.rows.std()
    new = np.random.default_rng(2).permutation(len(one))
    order = np.argsort(new)
    rows = ((one.rows + noise) @ rotation(one.dimensions))[order]
    return one, TokenVectors(np.arange(len(one)), rows, one.counts[order], "other"), new


def share_found(source: TokenVectors, target: TokenVectors, partner: np.ndarray) -> float:
    """Return the share of target tokens whose best source token by CSLS is the right one."""
    return float((nearest_csls(target.rows, source.rows, 1)[0][:, 0] == partner).mean())


# --- common axes


def test_common_axes_make_the_cross_covariance_diagonal() -> None:
    one, other = random_vectors(60, 8, 0), random_vectors(60, 8, 1)
    left, right, strength = common_axes(one, other)
    np.testing.assert_allclose((one @ left).T @ (other @ right), np.diag(strength), atol=1e-3)


def test_unpaired_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(5, 3\) and \(4, 3\)"):
        common_axes(random_vectors(5, 3, 0), random_vectors(4, 3, 0))


# --- a dictionary


def dense_dictionary(source: np.ndarray, target: np.ndarray) -> tuple[set[tuple[int, int]], float]:
    cosine = source @ target.T
    of_rows = np.sort(cosine, axis=1)[:, -10:].mean(axis=1)
    of_columns = np.sort(cosine, axis=0)[-10:].mean(axis=0)
    forward, backward = cosine - of_columns / 2, cosine - of_rows[:, None] / 2
    pairs = {*enumerate(forward.argmax(axis=1).tolist())}
    pairs |= {(i, j) for j, i in enumerate(backward.argmax(axis=0).tolist())}
    return pairs, (forward.max(axis=1).mean() + backward.max(axis=0).mean()) / 2


@pytest.mark.parametrize(("n", "m"), [(300, 500), (700, 30), (4, 6)])
def test_the_dictionary_is_the_dense_one_in_blocks_too(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = unit_rows(random_vectors(n, 16, 0)), unit_rows(random_vectors(m, 16, 1))
    pairs, objective = dense_dictionary(source, target)
    for numbers in (1 << 25, 50 * m):
        monkeypatch.setattr("tokalign_lab.alignment.methods.induction._BLOCK_NUMBERS", numbers)
        found = induce(source, target)
        assert set(zip(found.source.tolist(), found.target.tolist(), strict=True)) == pairs
        assert found.objective == pytest.approx(objective, abs=2e-6)


def test_a_random_dictionary_depends_on_its_seed_and_measures_all_pairs() -> None:
    source, target = unit_rows(random_vectors(300, 16, 0)), unit_rows(random_vectors(400, 16, 1))
    whole, some = induce(source, target), induce(source, target, keep=0.3, seed=7)
    again, other = induce(source, target, keep=0.3, seed=7), induce(source, target, keep=0.3, seed=8)
    assert some.source.tolist() == again.source.tolist()
    assert some.target.tolist() == again.target.tolist()
    assert some.target.tolist() != other.target.tolist()
    assert some.objective == whole.objective
    # For 30 % of the words, the best partner is among the candidates.
    assert 0.2 < (some.target[:300] == whole.target[:300]).mean() < 0.4


def test_with_few_candidates_some_words_have_no_partner() -> None:
    found = induce(unit_rows(random_vectors(20, 4, 0)), unit_rows(random_vectors(20, 4, 1)), keep=0.05)
    assert 0 < len(found.source) < 40
    assert found.source.min() >= 0
    assert found.target.min() >= 0


# --- VecMap


def test_normalised_rows_are_centred_and_of_length_one() -> None:
    rows = normalise(random_vectors(500, 8, 0) + 3)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.abs(rows.mean(axis=0)).max() < 0.05


def test_a_rotation_of_a_real_space_is_found_from_few_pairs(
    turned: tuple[TokenVectors, TokenVectors, np.ndarray],
) -> None:
    one, other, new = turned
    partner = np.argsort(new)
    assert share_found(one, other, partner) < 0.01
    few = np.argsort(-one.counts)[:40]
    source, target = vecmap(one, other, (one.ids[few], new[few]), settings=QUICK)
    assert share_found(source, target, partner) > 0.95
    assert source.ids.tolist() == one.ids.tolist()
    assert target.counts.tolist() == other.counts.tolist()


def test_the_same_seed_gives_the_same_mapping(turned: tuple[TokenVectors, TokenVectors, np.ndarray]) -> None:
    one, other, new = turned
    pairs = one.ids[:40], new[:40]
    first, second = (vecmap(one, other, pairs, seed=3, settings=QUICK) for _ in range(2))
    np.testing.assert_array_equal(first[0].rows, second[0].rows)
    np.testing.assert_array_equal(first[1].rows, second[1].rows)


def test_fewer_pairs_than_dimensions_and_tiny_spaces_stay_finite() -> None:
    one = TokenVectors(np.arange(30), random_vectors(30, 64, 0), np.arange(30)[::-1], "a")
    other = TokenVectors(np.arange(25), one.rows[:25] @ rotation(64), np.arange(25)[::-1], "b")
    source, target = vecmap(one, other, (np.arange(3), np.arange(3)), settings=QUICK)
    assert np.isfinite(source.rows).all()
    assert np.isfinite(target.rows).all()


def test_an_impossible_start_of_vecmap_is_refused() -> None:
    one = TokenVectors(np.arange(9), random_vectors(9, 4, 0), np.ones(9), "a")
    with pytest.raises(InputError, match="None of the pairs"):
        vecmap(one, one, (np.array([20]), np.array([20])))
    pairs = np.arange(3), np.arange(3)
    with pytest.raises(InputError, match="9 of 4 and 9 of 5"):
        vecmap(one, TokenVectors(np.arange(9), random_vectors(9, 5, 0), np.ones(9), "b"), pairs)
    with pytest.raises(InputError, match="0 of 4"):
        vecmap(TokenVectors(np.zeros(0), np.zeros((0, 4)), np.zeros(0), "a"), one, pairs)
