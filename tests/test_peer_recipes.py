"""Recipes of other authors: FOCUS, WECHSEL and OMP, compared with their definitions and tried on a real pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model, tiny_vocabulary

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import copied_rows, text_tokens_shared
from tokalign_lab.alignment.methods.focus import focus_rows, sparsemax
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.omp import omp_rows, pursue
from tokalign_lab.alignment.methods.wechsel import NEIGHBOURS, TEMPERATURE, wechsel_rows
from tokalign_lab.alignment.registry import RECIPES
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.fasttext import fasttext_vectors, fasttext_word_vectors
from tokalign_lab.vocabulary import shared_roles, shared_tokens

SOURCE, TARGET = tiny_vocabulary(300), tiny_vocabulary(360)
PAIR = TokenizedPair(SOURCE, TARGET, None, None, [])


def sparsemax_by_sorting(scores: np.ndarray) -> np.ndarray:
    """Compute sparsemax by algorithm 1 of Martins and Astudillo 2016."""
    falling = np.sort(scores)[::-1]
    sums = np.cumsum(falling)
    k = max(j for j in range(1, len(falling) + 1) if 1 + j * falling[j - 1] > sums[j - 1])
    return np.maximum(scores - (sums[k - 1] - 1) / k, 0)


def naive_omp(vector: np.ndarray, atoms: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    """Compute OMP by its definition, with one least-squares problem per step."""
    taken: list[int] = []
    residual, weights = vector, np.zeros(0)
    for _ in range(k):
        products = np.abs(atoms @ residual)
        products[taken] = -1
        taken.append(int(products.argmax()))
        weights, *_ = np.linalg.lstsq(atoms[taken].T, vector, rcond=None)
        residual = vector - atoms[taken].T @ weights
    return taken, weights


def tiny_rows() -> LexiconRows:
    rows = LexiconRows(TARGET.size)
    shared = shared_tokens(SOURCE, TARGET)
    for target_id, source_id in zip(shared.target_ids.tolist(), shared.source_ids.tolist(), strict=True):
        rows.copy(target_id, source_id, "identical")
    for target_id, source_id in shared_roles(SOURCE, TARGET).items():
        rows.copy(target_id, source_id, "role")
    return rows


def describe(donor: torch.nn.Module, **options: object) -> LexiconRows:
    rows = tiny_rows()
    model = tiny_model("llama_tied", SOURCE.size)
    omp_rows(rows, Inputs(PAIR, model=model, donor=(donor, TARGET)), **options)
    return rows


@pytest.fixture(scope="module")
def focus(small_pair: TokenizedPair) -> LexiconRows:
    rows, _ = copied_rows(small_pair, text_tokens_shared(small_pair.source, small_pair.target, "bytes"))
    focus_rows(rows, Inputs(small_pair))
    return rows


@pytest.fixture(scope="module")
def wechsel(small_pair: TokenizedPair) -> LexiconRows:
    by = RECIPES["wechsel"].overlap
    rows, _ = copied_rows(small_pair, text_tokens_shared(small_pair.source, small_pair.target, by))
    wechsel_rows(rows, Inputs(small_pair))
    return rows


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    random = np.random.default_rng(0)
    for spread in (0.01, 0.3, 5.0):
        scores = random.normal(scale=spread, size=(20, 50))
        weights = sparsemax(scores)
        np.testing.assert_allclose(weights, [sparsemax_by_sorting(row) for row in scores], atol=1e-12)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (weights > 0).sum(axis=1).max() < 5


def test_focus_mixes_few_shared_tokens_by_sparsemax_of_their_cosines(focus: LexiconRows, small_pair: TokenizedPair):
    vectors = fasttext_vectors(small_pair.target_corpus, small_pair.target)
    unit = vectors.normalized().astype(np.float64)
    shared = np.flatnonzero(focus.origin[vectors.ids] == "identical")
    aligned = np.flatnonzero(focus.origin == "aligned")
    assert len(aligned) > 50
    for target_id in aligned[::25].tolist():
        cosines = unit[shared] @ unit[vectors.positions_of(np.array([target_id]))[0]]
        expected = np.zeros(small_pair.source.size)
        np.add.at(expected, focus.source_id[vectors.ids[shared]], sparsemax_by_sorting(cosines))
        made = np.zeros(small_pair.source.size)
        made[focus.sources[target_id]] = focus.weights[target_id]
        np.testing.assert_allclose(made, expected, atol=1e-5)
        assert focus.source_id[target_id] == focus.source_id[vectors.ids[shared[cosines.argmax()]]]
    # With 300 kB of text the vectors are still similar; with more text, far fewer tokens would have a weight.
    assert np.median([len(focus.sources[i]) for i in aligned]) < 0.75 * len(shared)


def test_focus_keeps_copies_and_draws_rows_of_tokens_not_in_the_text(focus: LexiconRows, small_pair: TokenizedPair):
    source, target = small_pair.source, small_pair.target
    copies = np.flatnonzero(focus.origin == "identical")
    assert all(target.token_bytes[i] == source.token_bytes[focus.source_id[i]] for i in copies)
    white = [i for i in copies if not (target.token_bytes[i] or b"").strip()]
    assert len({focus.source_id[i] for i in white}) == len({target.token_bytes[i] for i in white}) > 5
    drawn = np.flatnonzero(focus.origin == "random")
    assert len(drawn)
    assert (small_pair.target_corpus.counts(target.size)[drawn] < 10).all()
    assert not np.any((focus.origin == "hole") & ~target.is_hole)


def test_focus_refuses_a_pair_without_shared_tokens(small_pair: TokenizedPair):
    with pytest.raises(InputError, match="share"):
        focus_rows(LexiconRows(small_pair.target.size), Inputs(small_pair))


def test_wechsel_copies_only_special_tokens(wechsel: LexiconRows, small_pair: TokenizedPair):
    assert set(wechsel.origin[~small_pair.target.is_hole]) == {"role", "aligned", "random"}
    roles = shared_roles(small_pair.source, small_pair.target)
    assert {i: int(wechsel.source_id[i]) for i in np.flatnonzero(wechsel.origin == "role").tolist()} == roles
    drawn = np.flatnonzero(wechsel.origin == "random")
    assert all(len(wechsel.sources[i]) == 0 and wechsel.source_id[i] == -1 for i in drawn)
    assert small_pair.target.id_of_bytes(b"\n") in drawn


def test_wechsel_weighs_ten_neighbours_by_softmax(wechsel: LexiconRows, small_pair: TokenizedPair):
    vocabularies = (small_pair.source, small_pair.target)
    corpora = (small_pair.source_corpus, small_pair.target_corpus)
    source, target = fasttext_word_vectors(small_pair.documents, corpora, vocabularies)
    for place in range(0, len(target), 3000):
        target_id = int(target.ids[place])
        cosines = source.normalized() @ target.normalized()[place]
        best = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
        powers = np.exp(np.sort(cosines[best])[::-1] / TEMPERATURE)
        np.testing.assert_allclose(np.sort(wechsel.weights[target_id])[::-1], powers / powers.sum(), atol=1e-4)
        assert small_pair.source.token_bytes[wechsel.source_id[target_id]] is not None
    # A word is its own nearest neighbour, with or without the space before it.
    word = small_pair.target.id_of_bytes(b" because")
    assert small_pair.source.token_bytes[wechsel.source_id[word]] in (b"because", b" because")


def test_omp_recovers_a_sparse_combination():
    random = np.random.default_rng(0)
    atoms = random.normal(size=(200, 128)).astype(np.float32)
    true = np.zeros((30, 200), np.float32)
    for row in true:
        row[random.choice(200, 5, replace=False)] = random.choice([-1.0, 1.0], 5) * random.uniform(1, 2, 5)
    chosen, weights = pursue(torch.from_numpy(true @ atoms), torch.from_numpy(atoms), k=12)
    found = np.zeros_like(true)
    np.put_along_axis(found, chosen, weights, axis=1)
    np.testing.assert_allclose(found, true, atol=1e-4)
    assert ((weights != 0).sum(axis=1) < 12).all()  # it stops when the residual is zero


def test_omp_equals_the_definition_step_by_step():
    random = np.random.default_rng(1)
    atoms = random.normal(size=(150, 40)) * random.uniform(0.2, 3, size=(150, 1))
    vectors = random.normal(size=(300, 40))  # more than a batch
    chosen, weights = pursue(torch.tensor(vectors).float(), torch.tensor(atoms).float(), k=16)
    for i in range(0, 300, 13):
        taken, expected = naive_omp(vectors[i], atoms, 16)
        assert chosen[i].tolist() == taken
        np.testing.assert_allclose(weights[i], expected, rtol=1e-3, atol=1e-4)


def test_omp_handles_equal_atoms_zero_rows_and_too_large_k():
    atoms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    chosen, weights = pursue(torch.tensor([[3.0, 1.0], [0.0, 0.0]]), atoms, k=64)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose([weights[0] @ atoms[chosen[0]].numpy()], [[3, 1]])
    assert not weights[1].any()


def test_omp_applies_the_donors_coefficients():
    donor = tiny_model("llama_tied", TARGET.size, seed=3)
    rows = tiny_rows()
    shared, new = np.flatnonzero(rows.origin == "identical"), np.flatnonzero(rows.origin == "hole")
    matrix = donor.get_input_embeddings().weight.data
    matrix[int(new[0])] = 2 * matrix[int(shared[7])] - 0.5 * matrix[int(shared[11])]
    made = describe(donor, k=8)
    by_source = dict(zip(made.sources[new[0]].tolist(), made.weights[new[0]].tolist(), strict=True))
    strong = {source: weight for source, weight in by_source.items() if abs(weight) > 1e-3}
    assert strong == pytest.approx({int(rows.source_id[shared[7]]): 2.0, int(rows.source_id[shared[11]]): -0.5})
    assert not made.output
    assert (made.origin[new] == "aligned").all()


def test_omp_describes_an_untied_head_separately():
    made = describe(tiny_model("llama", TARGET.size, seed=3), k=4)
    new = np.flatnonzero(made.origin == "aligned")
    assert set(made.output) == set(new.tolist())
    assert any(set(made.output[i][0].tolist()) != set(made.sources[i].tolist()) for i in new.tolist())


def test_omp_gives_the_mean_row_to_ids_beyond_the_donors_rows():
    made = describe(tiny_model("llama_tied", TARGET.size - 3, seed=3), k=4)
    assert (made.origin[-3:] == "mean").all()
    assert (made.mean_weight[-3:] == 1).all()
    assert made.origin[-4] == "aligned"


@pytest.mark.parametrize(
    ("donor_vocabulary", "rows", "k", "message"),
    [
        (SOURCE, tiny_rows, 4, "needs a donor model that reads the target's tokens"),
        (TARGET, tiny_rows, 0, "at least one token"),
        (TARGET, lambda: LexiconRows(TARGET.size), 4, "share no token"),
    ],
)
def test_omp_names_the_input_that_it_refuses(donor_vocabulary, rows, k, message):
    donor, model = tiny_model("llama_tied", TARGET.size), tiny_model("llama_tied", SOURCE.size)
    with pytest.raises(InputError, match=message):
        omp_rows(rows(), Inputs(PAIR, model=model, donor=(donor, donor_vocabulary)), k=k)


def test_the_transplant_rule_uses_the_last_piece_and_a_decaying_mean(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    from peers.transplant import transplant_rows

    rows = transplant_rows(SOURCE, TARGET)
    several = [i for i in np.flatnonzero(rows.origin == "pieces").tolist() if len(rows.output[i][0]) > 1]
    assert several
    for target_id in several:
        pieces = SOURCE.tokenizer(TARGET.tokenizer.decode([target_id]), add_special_tokens=False)["input_ids"]
        assert rows.sources[target_id].tolist() == [pieces[-1]]
        expected = np.zeros(SOURCE.size)
        np.add.at(expected, pieces, 0.5 ** np.arange(len(pieces)) / sum(0.5 ** np.arange(len(pieces))))
        made = np.zeros(SOURCE.size)
        made[rows.output[target_id][0]] = rows.output[target_id][1]
        np.testing.assert_allclose(made, expected, atol=1e-6)
    assert rows.source_id[TARGET.roles["eos"]] == SOURCE.roles["eos"]
