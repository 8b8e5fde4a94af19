"""From vectors to a lexicon: relative representations, pieces for every token, and properties of the recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import renumbered

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.alignment.methods.relative import as_cosines, choose_pivots, relative_rows
from tokalign_lab.alignment.recipes import Alignment, align
from tokalign_lab.alignment.search.neighbours import nearest
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


# --- relative representations


def space(n: int, d: int, seed: int) -> TokenVectors:
    return TokenVectors(np.arange(0, 2 * n, 2), random_vectors(n, d, seed), np.ones(n), "v")


def test_pivots_are_shared_tokens_with_vectors_on_both_sides_drawn_by_seed() -> None:
    source, target = space(50, 8, 0), space(40, 8, 1)
    shared = (np.arange(100), np.arange(100))  # odd ids have no vector; ids from 80 on have none in the target
    source_ids, target_ids = choose_pivots(source, target, shared, n=15, seed=1)
    assert source_ids.tolist() == target_ids.tolist()
    assert len(set(source_ids)) == 15
    assert all(i % 2 == 0 and i < 80 for i in source_ids)
    assert choose_pivots(source, target, shared, 15, seed=1)[0].tolist() == source_ids.tolist()
    assert choose_pivots(source, target, shared, 15, seed=2)[0].tolist() != source_ids.tolist()


def test_all_shared_tokens_become_pivots_if_there_are_few_and_one_is_too_few() -> None:
    source, target = space(5, 8, 0), space(5, 8, 1)
    assert len(choose_pivots(source, target, (np.arange(10), np.arange(10)), 300)[0]) == 5
    for ids in (np.array([0]), np.zeros(0, np.int64)):
        with pytest.raises(InputError, match=rf"only {len(ids)} shared tokens.*'pieces'"):
            choose_pivots(source, target, (ids, ids), 300)


def test_pivots_are_invariant_to_rotation_and_shared_tokens_are_found_only_after_normalising() -> None:
    one = space(200, 30, 0)
    rotation = np.linalg.qr(random_vectors(30, 30, 9))[0]
    other = TokenVectors(one.ids, one.rows @ rotation, one.counts, "w")
    pivots = one.ids[:40]
    np.testing.assert_allclose(relative_rows(one, pivots), relative_rows(other, pivots), atol=1e-5)
    # A central token has large cosines to all pivots, so by dot product, as upstream, it ranks above all shared tokens.
    rows = random_vectors(200, 30, 1) + 0.8
    rows[0] = 1.0
    crowd = TokenVectors(one.ids, rows, one.counts, "v")
    plain = relative_rows(crowd, pivots, normalise=False)
    assert ((plain @ plain.T).argmax(axis=1) == 0).mean() > 0.9
    assert (nearest(*as_cosines(plain, plain), 1)[0][:, 0] == 0).mean() > 0.9
    assert (nearest(relative_rows(crowd, pivots), relative_rows(crowd, pivots), 1)[0][:, 0] == np.arange(200)).all()


def test_a_dot_product_is_ranked_as_a_cosine() -> None:
    queries, keys = random_vectors(30, 12, 0), random_vectors(50, 12, 1) * np.linspace(0.1, 5, 50)[:, None]
    ranked, scores = nearest(*as_cosines(queries, keys.astype(np.float32)), 50)
    product = queries @ keys.T
    expected = np.sort(product, axis=1)[:, ::-1]
    np.testing.assert_allclose(np.take_along_axis(product, ranked, axis=1), expected, atol=1e-4)
    longest = np.linalg.norm(keys, axis=1).max()
    np.testing.assert_allclose(scores * np.linalg.norm(queries, axis=1)[:, None] * longest, expected, atol=1e-4)


# --- pieces


def test_every_token_with_bytes_can_be_spelled(smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
    for one, other in ((smollm_vocabulary, sp32k_vocabulary), (sp32k_vocabulary, smollm_vocabulary)):
        known = {token for token in one.token_bytes if token}
        tokens = [token for token in other.token_bytes if token]
        for token, ids in zip(tokens, spell(one, tokens), strict=True):
            if b"".join(one.token_bytes[i] for i in ids) != token:
                assert ids == []
                assert any(bytes([byte]) not in known for byte in token)  # SmolLM2 has no token for some bytes
        unwritable = sum(not ids for ids in spell(one, tokens))
        assert unwritable < 40


def test_parts_of_characters_are_spelled_by_bytes(sp32k_vocabulary: Vocabulary) -> None:
    ((*ids,), nothing) = spell(sp32k_vocabulary, ["漢".encode()[:2], b""])
    assert [sp32k_vocabulary.raw_token(i) for i in ids] == ["<0xE6>", "<0xBC>"]
    assert nothing == []


# --- recipes


@pytest.fixture(scope="module")
def found(small_pair: TokenizedPair, anchored: Alignment) -> dict[str, Alignment]:
    others = ("tokalign-normalised", "pieces", "mean", "random")
    return {"anchored": anchored} | {recipe: align(small_pair, recipe) for recipe in others}


def test_a_tokenizer_aligned_with_itself_is_the_identity(
    small_pair: TokenizedPair, smollm_vocabulary: Vocabulary
) -> None:
    pair = tokenize_pair(smollm_vocabulary, smollm_vocabulary, small_pair.documents)
    lexicon = align(pair, "pieces").lexicon
    # If two ids have the same bytes, both get the one that the text uses as their source.
    same = [lexicon.source_of()[i] == i for i in range(len(lexicon)) if not smollm_vocabulary.is_hole[i]]
    assert np.mean(same) > 0.999
    assert set(lexicon.table["origin"]) <= {"identical", "role", "hole"}


def test_shuffled_ids_give_the_shuffled_lexicon_and_held_out_shared_tokens_are_found(
    small_pair: TokenizedPair, smollm_vocabulary: Vocabulary
) -> None:
    new_id = np.random.default_rng(0).permutation(smollm_vocabulary.size)
    target = renumbered(smollm_vocabulary, new_id)
    pair = tokenize_pair(smollm_vocabulary, target, small_pair.documents)
    used = np.flatnonzero(small_pair.source_corpus.counts(smollm_vocabulary.size) >= 20)
    hidden = new_id[used[::10]]
    table = align(pair, "anchored", hidden=hidden).lexicon.table
    old_id = np.argsort(new_id)
    kept = np.setdiff1d(np.arange(target.size), hidden)
    assert (table["source_id"].to_numpy()[kept] == old_id[kept]).mean() > 0.999
    assert set(table["origin"][hidden]) == {"aligned"}
    # The two texts are the same, so a held-out shared token has the same counts on both sides.
    assert (table["source_id"].to_numpy()[hidden] == old_id[hidden]).mean() > 0.99


def test_every_target_token_has_a_reason(found: dict[str, Alignment], small_pair: TokenizedPair) -> None:
    target, source = small_pair.target, small_pair.source
    for recipe, alignment in found.items():
        table = alignment.lexicon.table
        assert table["target_id"].tolist() == list(range(target.size))
        assert ((table["origin"] == "hole").to_numpy() == target.is_hole).all()
        mixed = table[table["origin"].isin(["identical", "role", "aligned", "pieces"])]
        assert np.allclose([sum(weights) for weights in mixed["weights"]], 1, atol=1e-5)
        assert all(0 <= i < source.size for ids in mixed["sources"] for i in ids)
        text = table[[token is not None for token in target.token_bytes]]
        wanted = {"aligned", "pieces"} if recipe in ("anchored", "tokalign-normalised") else {recipe}
        # The only other tokens with a mean row have bytes that the source cannot spell.
        unwritable = {i for i in text["target_id"] if len(target.token_bytes[i]) == 1} if recipe != "mean" else set()
        meant = text[(text["origin"] != "mean") | ~text["target_id"].isin(unwritable)]
        assert set(meant["origin"]) - {"identical"} == wanted, recipe
        assert len(alignment.lexicon.reverse) == source.size
    # Only the recipe "random" has random rows.
    assert all("random" not in set(found[recipe].lexicon.table["origin"]) for recipe in found if recipe != "random")


def test_roles_and_shared_tokens_are_copied(found: dict[str, Alignment], small_pair: TokenizedPair) -> None:
    shared = text_tokens_shared(small_pair.source, small_pair.target, "bytes")
    for alignment in found.values():
        table = alignment.lexicon.table
        for role in ("bos", "eos"):
            row = table.iloc[small_pair.target.roles[role]]
            assert (row["source_id"], row["origin"]) == (small_pair.source.roles[role], "role")
        assert (table["source_id"].to_numpy()[shared.target_ids] == shared.source_ids).all()
        assert (table["origin"][shared.target_ids] == "identical").all()


def test_candidates_are_ranked_and_never_special(found: dict[str, Alignment], small_pair: TokenizedPair) -> None:
    for recipe in ("anchored", "tokalign-normalised"):
        table = found[recipe].lexicon.table
        aligned = table[table["origin"] == "aligned"]
        assert len(aligned) > 50
        for row in aligned.itertuples():
            assert len(row.candidate_ids) == len(set(row.candidate_ids)) == 10
            assert (np.diff(row.candidate_scores) <= 0).all()
            assert row.source_id == row.candidate_ids[0]
            assert row.score == row.candidate_scores[0]
            assert not small_pair.source.is_control[row.candidate_ids].any()
    hard = found["tokalign-normalised"].lexicon.table
    assert all(len(ids) == 1 for ids in hard["sources"][hard["origin"] == "aligned"])


def test_no_few_source_tokens_are_used_by_most_targets(found: dict[str, Alignment]) -> None:
    """In upstream's demo matrix for LLaMA3, three source tokens are the source of 53 % of the aligned targets."""
    for recipe in ("anchored", "tokalign-normalised"):
        table = found[recipe].lexicon.table
        chosen = table["source_id"][table["origin"] == "aligned"]
        assert chosen.value_counts().iloc[:3].sum() / len(chosen) < 0.3
        assert chosen.nunique() / len(chosen) > 0.3


def test_the_reverse_direction_inverts_shared_tokens(found: dict[str, Alignment]) -> None:
    lexicon = found["anchored"].lexicon
    back = lexicon.target_of()
    for row in lexicon.table[lexicon.table["origin"] == "identical"].sample(200, random_state=0).itertuples():
        assert lexicon.source_of()[back[row.source_id]] == row.source_id
    assert {"identical", "role", "aligned", "pieces"} <= set(lexicon.reverse["origin"])


def test_the_same_seed_gives_the_same_lexicon(small_pair: TokenizedPair, anchored: Alignment) -> None:
    again = align(small_pair, "anchored").lexicon.table
    assert again.equals(anchored.lexicon.table)


def test_held_out_tokens_are_aligned_not_copied(small_pair: TokenizedPair) -> None:
    shared = text_tokens_shared(small_pair.source, small_pair.target, "bytes")
    counts = small_pair.target_corpus.counts(small_pair.target.size)[shared.target_ids]
    hidden = shared.target_ids[np.argsort(-counts)[:20]]
    table = align(small_pair, "anchored", hidden=hidden).lexicon.table
    assert set(table["origin"][hidden]) == {"aligned"}
    assert not np.isin(
        hidden, text_tokens_shared(small_pair.source, small_pair.target, "bytes", hidden).target_ids
    ).any()


def test_an_alignment_is_saved_and_loaded(found: dict[str, Alignment], tmp_path: Path) -> None:
    for recipe in ("anchored", "mean"):
        found[recipe].save(tmp_path / recipe)
        again = Alignment.load(tmp_path / recipe)
        assert again.lexicon.source_of().tolist() == found[recipe].lexicon.source_of().tolist()
        assert isinstance(again.lexicon, Lexicon)
        assert (again.source_vectors is None) == (recipe == "mean")
    assert again.target_vectors is None


def test_zero_shared_tokens_are_an_error_with_advice(small_pair: TokenizedPair) -> None:
    for recipe in ("anchored", "tokalign", "tokalign-normalised"):
        with pytest.raises(InputError, match=r"share no token.*'pieces'"):
            align(small_pair, recipe, overlap="none")
    table = align(small_pair, "pieces", overlap="none").lexicon.table
    assert "identical" not in set(table["origin"])


def test_unknown_names_are_refused(small_pair: TokenizedPair) -> None:
    with pytest.raises(InputError, match=r"no recipe 'magic'; choose one of anchored, tokalign"):
        align(small_pair, "magic")
    with pytest.raises(InputError, match="overlap 'letters'"):
        align(small_pair, "pieces", overlap="letters")
