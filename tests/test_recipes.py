"""All recipes work as documented: what they copy, their fallback, their inputs, and the message for a missing input."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny import WORDS, renumbered, tiny_model, tiny_vocabulary
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods import spaces
from tokalign_lab.alignment.methods.baselines import last_in_mean_out, permuted, pieces
from tokalign_lab.alignment.methods.copies import copied_rows, open_ids, text_tokens_shared
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.alignment.methods.spaces import find_candidates
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.alignment.registry import RECIPES, check_recipe
from tokalign_lab.alignment.search.neighbours import Candidates, one_to_one
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.held_out import held_out_precision
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import SharedTokens, Vocabulary

TEXT = WORDS + "The quick brown fox jumps over the lazy dog. def add(left, right): return left + right. "


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "small_pair" not in request.fixturenames:
        monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))


def pair_of(source: Vocabulary, target: Vocabulary, text: str = TEXT * 10) -> TokenizedPair:
    return tokenize_pair(source, target, [Document(text, "t", "t")])


def run(pair: TokenizedPair, recipe: str, **options: object) -> Alignment:
    """Align, with a tiny model and donor if the recipe needs them."""
    method = RECIPES[recipe]
    model = tiny_model("llama_tied", pair.source.size) if method.needs_model else None
    donor = (tiny_model("llama_tied", pair.target.size, seed=1), pair.target) if method.needs_donor else None
    return align(pair, recipe, model=model, donor=donor, **options)


# --- the table


def test_all_recipes_of_the_papers_and_of_other_authors_exist() -> None:
    assert list(RECIPES)[:2] == ["anchored", "tokalign"]
    assert set(RECIPES) == {
        "anchored", "tokalign", "tokalign-normalised", "tokalign-vanilla", "tokalign++", "tokalign++-hidden",
        "random", "random-permutation", "mean", "multivariate", "pieces", "last-in-mean-out",
        "focus", "wechsel", "omp",
    }  # fmt: skip
    assert all(recipe.description and "\n" not in recipe.description for recipe in RECIPES.values())
    papers = {"tokalign", "tokalign-vanilla", "tokalign++", "tokalign++-hidden"}
    assert {name for name, method in RECIPES.items() if method.overlap == "raw"} == papers


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_runs_on_very_little_text(recipe: str) -> None:
    """One document, two tiny vocabularies: fewer shared tokens than pivots, fewer sources than candidates."""
    pair = pair_of(tiny_vocabulary(270), tiny_vocabulary(330))
    alignment = run(pair, recipe)
    table, provenance = alignment.lexicon.table, alignment.lexicon.provenance
    assert (table["origin"] != "hole").all()
    assert np.isfinite(np.concatenate([np.zeros(0), *table["weights"]])).all()
    assert (provenance["recipe"], provenance["parameters"]["overlap"]) == (recipe, RECIPES[recipe].overlap)
    assert len(alignment.lexicon.reverse) == pair.source.size
    again = run(pair, recipe).lexicon.table
    assert again.equals(table)


def test_a_recipe_names_a_missing_input_before_any_work() -> None:
    pair = pair_of(tiny_vocabulary(270), tiny_vocabulary(330))
    with pytest.raises(InputError, match=r"'tokalign\+\+-hidden' reads the source model; give it"):
        align(pair, "tokalign++-hidden")
    with pytest.raises(InputError, match="'omp' reads the source model"):
        align(pair, "omp")
    with pytest.raises(InputError, match=r"'omp' needs a donor.*--donor"):
        align(pair, "omp", model=tiny_model("llama", 270))
    for recipe in ("anchored", "pieces", "focus"):
        with pytest.raises(InputError, match=f"'{recipe}' does not choose one source token"):
            align(pair, recipe, one_to_one=True)
    with pytest.raises(InputError, match="overlap 'letters'"):
        check_recipe("pieces", overlap="letters")


def test_given_vectors_replace_glove() -> None:
    pair = pair_of(tiny_vocabulary(270), tiny_vocabulary(330))
    trained = align(pair, "tokalign-normalised", hidden=np.arange(0, 260, 2))
    rows = np.random.default_rng(0).standard_normal((260, 8)).astype(np.float32)
    one, two = (TokenVectors(np.arange(260), rows, np.ones(260), name) for name in ("source", "target"))
    given = align(pair, "tokalign-vanilla", hidden=np.arange(0, 260, 2), vectors=(one, two))
    assert given.source_vectors is one
    assert given.target_vectors is two
    assert "trained_on" in trained.lexicon.provenance["parameters"]
    assert "trained_on" not in given.lexicon.provenance["parameters"]
    found = given.lexicon.table[given.lexicon.table["origin"] == "aligned"]
    assert len(found) > 100
    assert found["source_id"].tolist() == found["target_id"].tolist()  # because equal ids have equal rows


# --- baselines


@pytest.fixture(scope="module")
def copied(small_pair: TokenizedPair) -> LexiconRows:
    return copied_rows(small_pair, text_tokens_shared(small_pair.source, small_pair.target, "bytes"))[0]


def fresh(small_pair: TokenizedPair) -> LexiconRows:
    return copied_rows(small_pair, text_tokens_shared(small_pair.source, small_pair.target, "bytes"))[0]


def test_pieces_and_last_in_mean_out_use_the_same_pieces(small_pair: TokenizedPair, copied: LexiconRows) -> None:
    source, target = small_pair.source, small_pair.target
    mean, last = fresh(small_pair), fresh(small_pair)
    inputs = Inputs(small_pair)
    pieces(mean, inputs)
    last_in_mean_out(last, inputs)
    filled = [i for i in open_ids(copied, target).tolist() if mean.origin[i] == "pieces"]
    assert len(filled) > 9000
    spelled = spell(source, [target.token_bytes[i] for i in filled])
    for i, ids in zip(filled[::50], spelled[::50], strict=True):
        assert set(mean.sources[i]) == set(ids)
        assert mean.weights[i].sum() == pytest.approx(1)
        assert last.sources[i].tolist() == ids[-1:]
        assert (last.output[i][0].tolist(), last.output[i][2]) == ([], 1.0)
    assert set(last.output) == set(filled)  # copied tokens have one source for both rows


def test_permuted_rows_are_source_rows_drawn_by_seed(small_pair: TokenizedPair, copied: LexiconRows) -> None:
    source, target = small_pair.source, small_pair.target
    left = open_ids(copied, target)
    drawn = {}
    permutation = partial(permuted, once=True)
    for fill, seed in ((permuted, 0), (permuted, 1), (permutation, 0)):
        rows = fresh(small_pair)
        fill(rows, Inputs(small_pair, seed))
        drawn[fill, seed] = rows.source_id[left]
        assert set(rows.origin[left]) == {"permuted"}
        assert all(rows.sources[i].tolist() == [rows.source_id[i]] for i in left[::100])
        assert not source.is_control[rows.source_id[left]].any()
        assert np.isnan(rows.score[left]).all()  # a random row has no score
    assert (drawn[permuted, 0] != drawn[permuted, 1]).mean() > 0.99
    assert len(np.unique(drawn[permutation, 0])) == len(left)  # a permutation uses each row once
    assert len(np.unique(drawn[permuted, 0])) < len(left)


def test_a_permutation_repeats_at_its_end() -> None:
    source, target = tiny_vocabulary(265), tiny_vocabulary(330)
    rows = LexiconRows(target.size)
    permuted(rows, Inputs(TokenizedPair(source, target, None, None, [])), once=True)
    uses = np.bincount(rows.source_id, minlength=source.size)[~source.is_control]
    assert set(uses) <= {1, 2}


# --- the papers' recipes


@pytest.fixture(scope="module")
def hidden(small_pair: TokenizedPair) -> SharedTokens:
    """Shared tokens held out from the papers' recipes, frequent enough to have vectors."""
    source, target = small_pair.source, small_pair.target
    shared = text_tokens_shared(source, target, "raw")
    counts = np.minimum(
        small_pair.source_corpus.counts(source.size)[shared.source_ids],
        small_pair.target_corpus.counts(target.size)[shared.target_ids],
    )
    frequent = np.flatnonzero(counts >= 5)[::10]
    return SharedTokens(source_ids=shared.source_ids[frequent], target_ids=shared.target_ids[frequent])


@pytest.fixture(scope="module")
def papers(small_pair: TokenizedPair, hidden: SharedTokens) -> dict[str, Alignment]:
    recipes = ("tokalign", "tokalign-vanilla", "tokalign++")
    return {recipe: align(small_pair, recipe, hidden=hidden.target_ids) for recipe in recipes}


def share_found(alignment: Alignment, hidden: SharedTokens) -> float:
    return float((alignment.lexicon.source_of()[hidden.target_ids] == hidden.source_ids).mean())


def test_the_papers_recipes_copy_equal_strings_and_draw_rows_without_a_vector(
    papers: dict[str, Alignment], small_pair: TokenizedPair, hidden: SharedTokens
) -> None:
    shared = text_tokens_shared(small_pair.source, small_pair.target, "raw", hidden.target_ids)
    by_bytes = text_tokens_shared(small_pair.source, small_pair.target, "bytes")
    assert len(shared) < len(by_bytes)
    for alignment in papers.values():
        table = alignment.lexicon.table
        assert (table["source_id"].to_numpy()[shared.target_ids] == shared.source_ids).all()
        assert (table["origin"] == "identical").sum() == len(shared)
        assert set(table["origin"]) == {"identical", "role", "aligned", "permuted"}
        assert all(len(ids) == 1 for ids in table["sources"])  # each row copies one source row
        with_vector = np.isin(table["target_id"], alignment.target_vectors.ids)
        assert not (with_vector & (table["origin"] == "permuted")).any()
        assert alignment.lexicon.provenance["parameters"]["rest"] == "permuted"


def test_upstreams_dot_product_makes_hubs_that_scaling_and_csls_reduce(
    papers: dict[str, Alignment], small_pair: TokenizedPair
) -> None:
    def largest_share(alignment: Alignment) -> float:
        table = alignment.lexicon.table
        chosen = table["source_id"][table["origin"] == "aligned"]
        return float(chosen.value_counts().iloc[:3].sum() / len(chosen))

    scaled = align(small_pair, "tokalign-normalised", overlap="raw")
    assert largest_share(papers["tokalign"]) > 1.5 * largest_share(scaled)
    assert largest_share(papers["tokalign++"]) < 0.1


def test_relative_vectors_equal_upstreams_definition(papers: dict[str, Alignment], small_pair: TokenizedPair) -> None:
    """Compare with cal_trans_matrix.py -r -n 300: argmax of the product of cosines to the pivots."""
    alignment = papers["tokalign"]
    source, target = alignment.source_vectors, alignment.target_vectors
    assert source.dimensions == target.dimensions == 300
    product = target.rows @ source.rows.T
    product[:, small_pair.source.is_control[source.ids]] = -np.inf
    table = alignment.lexicon.table
    mine = table["source_id"].to_numpy()[target.ids]
    aligned = (table["origin"] == "aligned").to_numpy()[target.ids]
    best = product.max(axis=1)
    of_mine = product[np.arange(len(target)), source.positions_of(mine)]
    np.testing.assert_allclose(of_mine[aligned], best[aligned], rtol=1e-4)


def test_held_out_shared_tokens_rank_the_methods_as_the_papers_do(
    small_pair: TokenizedPair, papers: dict[str, Alignment], hidden: SharedTokens
) -> None:
    found = {recipe: share_found(alignment, hidden) for recipe, alignment in papers.items()}
    found["tokalign-normalised"] = held_out_precision(small_pair, "tokalign-normalised", overlap="raw").p_at_1
    assert found["tokalign-vanilla"] < 0.02  # two spaces, trained separately
    assert found["tokalign-vanilla"] < found["tokalign-normalised"] < found["tokalign++"]
    assert found["tokalign"] < found["tokalign-normalised"]
    assert found["tokalign++"] > 0.5


def test_hidden_states_need_no_mapping() -> None:
    """One model reads both sides, so a shared token has the same vector on both and is found without a seed lexicon."""
    pair = pair_of(tiny_vocabulary(300), tiny_vocabulary(360))
    model = tiny_model("llama_tied", pair.source.size)
    everything = text_tokens_shared(pair.source, pair.target, "bytes")
    nothing = text_tokens_shared(pair.source, pair.target, "none")
    space = spaces.hidden(Inputs(pair, model=model), nothing)
    found = find_candidates(space, everything.target_ids, pair.source.is_control)
    assert (found.candidate_ids[:, 0] == everything.source_ids).mean() > 0.99


# --- the unknown token, roles, holes


def word_vocabulary(order: int = 1) -> Vocabulary:
    """Make a vocabulary of whole words from id 1 on, forwards or backwards; one token is unk, bos and eos."""
    words = sorted(set(TEXT.replace(",", " ").replace(".", " ").split()))[::order]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {f"{role}_token": "<unk>" for role in ("unk", "bos", "eos")}
    return Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names), f"words-{order}")


def test_bos_eos_and_unk_may_be_one_token_and_unk_is_never_chosen() -> None:
    source, target = word_vocabulary(), word_vocabulary(-1)
    unknown = source.roles["unk"]
    assert source.roles["bos"] == source.roles["eos"] == unknown
    pair = pair_of(source, target)
    assert pair.source_corpus.counts(source.size)[unknown] >= 5  # words with a comma are unknown; so it has a vector
    shared = text_tokens_shared(source, target, "raw")
    hidden = shared.target_ids[::3]
    for recipe in ("tokalign", "tokalign-vanilla", "tokalign-normalised", "tokalign++", "anchored"):
        table = align(pair, recipe, hidden=hidden).lexicon.table
        assert (table["source_id"] == unknown).sum() == 1
        assert table["origin"][target.roles["unk"]] == "role"
        ranked = np.concatenate(table["candidate_ids"].to_list())
        assert len(ranked)
        assert unknown not in ranked


@pytest.mark.parametrize("bos", [None, "<|endoftext|>"])
def test_a_token_that_begins_and_ends_texts_reads_as_bos_and_writes_as_eos(bos: str | None) -> None:
    """GPT-2 has one token for both roles; Qwen has no bos, and its eos is put before a text."""
    source = tiny_vocabulary(300, bos="<s>", eos="</s>")
    target = tiny_vocabulary(280, bos=bos, eos="<|endoftext|>")
    table = align(pair_of(source, target), "anchored").lexicon.table
    row = table.iloc[target.roles["eos"]]
    assert target.start_id == target.roles["eos"]
    assert (row["origin"], row["sources"].tolist()) == ("role", [source.roles["bos"]])
    assert (row["output_sources"].tolist(), row["output_weights"].tolist()) == ([source.roles["eos"]], [1.0])


def test_separate_bos_and_eos_have_one_source_for_both_rows() -> None:
    source, target = tiny_vocabulary(280, bos="<s>", eos="</s>"), tiny_vocabulary(320, bos="<b>", eos="<e>")
    table = align(pair_of(source, target), "anchored").lexicon.table
    for role in ("bos", "eos"):
        row = table.iloc[target.roles[role]]
        assert row["sources"].tolist() == row["output_sources"].tolist() == [source.roles[role]]


def test_a_tokenizer_without_unk_and_with_holes_in_its_ids() -> None:
    source, whole = tiny_vocabulary(300), tiny_vocabulary(330)
    target = renumbered(whole, 3 * np.arange(whole.size) + 1)
    assert "unk" not in target.roles
    assert target.is_hole.mean() > 0.6
    for recipe in ("tokalign", "tokalign++", "pieces", "random-permutation", "multivariate", "last-in-mean-out"):
        table = align(pair_of(source, target), recipe).lexicon.table
        assert ((table["origin"] == "hole") == target.is_hole).all()
        assert (table["source_id"][target.is_hole] == -1).all()
        back = align(pair_of(target, source), recipe).lexicon.table
        chosen = np.concatenate(back["sources"].to_list())
        assert len(chosen)
        assert not target.is_hole[chosen].any()


def test_a_text_in_which_most_tokens_never_occur() -> None:
    pair = pair_of(tiny_vocabulary(300), tiny_vocabulary(310), "the rain and the birds sing while the fox jumps " * 20)
    never = np.flatnonzero(pair.target_corpus.counts(pair.target.size) == 0)
    assert len(never) > 250
    for recipe, origin in (("tokalign-normalised", "pieces"), ("tokalign", "permuted"), ("tokalign++", "permuted")):
        origins = align(pair, recipe, hidden=never).lexicon.origin_counts()
        assert origins[origin] > 250
        assert origins.get("aligned", 0) < 30


# --- few or no shared tokens


def test_fewer_shared_tokens_than_pivots_are_all_used_and_recorded_in_the_provenance() -> None:
    pair = pair_of(tiny_vocabulary(270), tiny_vocabulary(330))
    parameters = align(pair, "tokalign").lexicon.provenance["parameters"]
    assert 2 <= parameters["pivots"] < parameters["pivots_asked_for"] == 300


@pytest.mark.parametrize("recipe", ["tokalign", "tokalign-normalised", "tokalign++", "anchored", "focus"])
def test_zero_shared_tokens_are_one_sentence(recipe: str) -> None:
    pair = pair_of(tiny_vocabulary(270), tiny_vocabulary(330))
    with pytest.raises(InputError, match=r"'pieces'"):
        align(pair, recipe, overlap="none")


@pytest.mark.parametrize("recipe", ["tokalign-vanilla", "pieces", "mean", "random-permutation"])
def test_zero_shared_tokens_do_not_matter_to_recipes_that_need_none(recipe: str) -> None:
    table = align(pair_of(tiny_vocabulary(270), tiny_vocabulary(330)), recipe, overlap="none").lexicon.table
    assert "identical" not in set(table["origin"])
    assert (table["origin"] != "hole").all()


# --- one to one


def best_by_trying(scores: np.ndarray) -> float:
    """Return the highest sum over all assignments of as many rows as possible to different columns."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-scores)
    return float(scores[rows, columns].sum())


def test_the_assignment_is_optimal() -> None:
    random = np.random.default_rng(0)
    for n, m in ((5, 9), (20, 20), (40, 60)):
        scores = random.random((n, m)).astype(np.float32)
        ranked = np.argsort(-scores, axis=1)
        found = Candidates(np.arange(n), ranked + 100, np.take_along_axis(scores, ranked, axis=1))
        choice = one_to_one(found)
        given = found.candidate_ids[np.arange(n), choice]
        assert len(set(given)) == n
        assert found.scores[np.arange(n), choice].sum() == pytest.approx(best_by_trying(scores), abs=1e-4)


def test_as_many_tokens_as_possible_get_a_source() -> None:
    ids = np.array([[1, 2], [1, 2], [1, 2], [1, 3]])
    scores = np.array([[0.9, 0.8], [0.9, 0.1], [0.5, 0.4], [0.95, -0.9]], np.float32)
    choice = one_to_one(Candidates(np.arange(4), ids, scores))
    given = [int(ids[i, c]) for i, c in enumerate(choice) if c >= 0]
    assert sorted(given) == [1, 2, 3]  # three sources, so three tokens get one, although 3 is a poor match
    assert choice.tolist() == [1, 0, -1, 1]
    assert one_to_one(Candidates(np.zeros(0, int), np.zeros((0, 5), int), np.zeros((0, 5), np.float32))).tolist() == []


def test_one_to_one_uses_no_source_row_twice(small_pair: TokenizedPair) -> None:
    many = align(small_pair, "tokalign-normalised").lexicon.table
    table = align(small_pair, "tokalign-normalised", one_to_one=True).lexicon.table
    aligned = table[table["origin"] == "aligned"]
    assert many["source_id"][many["origin"] == "aligned"].duplicated().any()
    assert aligned["source_id"].is_unique
    copied = table["source_id"][table["origin"].isin(["identical", "role"])]
    assert not aligned["source_id"].isin(copied).any()
    assert len(aligned) > 200  # only few source tokens with a vector are free
    assert set(table["origin"]) == set(many["origin"])
    for row in aligned.sample(50, random_state=0).itertuples():
        if row.source_id == row.candidate_ids[0]:
            assert row.score == row.candidate_scores[0]
        else:
            assert row.score <= row.candidate_scores[0]
            assert row.margin <= 0


def test_one_to_one_without_any_free_source_row() -> None:
    pair = pair_of(tiny_vocabulary(270), tiny_vocabulary(330))  # the larger vocabulary contains the smaller
    many, table = (align(pair, "tokalign-normalised", one_to_one=strict).lexicon.table for strict in (False, True))
    assert "aligned" in set(many["origin"])
    assert "aligned" not in set(table["origin"])
    assert (table["origin"] == "pieces").sum() == many["origin"].isin(["pieces", "aligned"]).sum()
