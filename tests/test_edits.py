"""Manual edits: stored separately for one lexicon, restored after a restart, undone; exports; scores of parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import WORDS, tiny_model, tiny_vocabulary

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits, apply_edits
from tokalign_lab.alignment.lexicon.export import export_rows
from tokalign_lab.alignment.recipes import align
from tokalign_lab.alignment.search.neighbourhoods import Neighbourhood
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.breakdown import breakdown
from tokalign_lab.evaluation.contexts import contexts
from tokalign_lab.evaluation.lexicon_scores import score_lexicon
from tokalign_lab.evaluation.part_scores import score_parts
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.vectors.token_vectors import TokenVectors


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> TokenizedPair:
    """A source with half as many words as the target, and twelve short documents."""
    lines = WORDS.splitlines()
    documents = [Document(f"{lines[i % 2]} {lines[0]}"[i:], f"d{i}", f"g{i}") for i in range(12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return tokenize_pair(tiny_vocabulary(280), tiny_vocabulary(330), documents)


@pytest.fixture(scope="module")
def lexicon(pair: TokenizedPair) -> Lexicon:
    return align(pair, recipe="pieces").lexicon


@pytest.fixture(scope="module")
def spelled(lexicon: Lexicon) -> int:
    """Return a target token that occurs in the text and that the source has to spell."""
    table = lexicon.table
    return int(table.loc[(table["origin"] == "pieces") & (table["target_count"] > 0), "target_id"].iloc[0])


class TestEdits:
    def test_a_chosen_source_gives_its_whole_row_and_the_lexicon_does_not_change(
        self, pair: TokenizedPair, lexicon: Lexicon, spelled: int
    ) -> None:
        edits = LexiconEdits(lexicon)
        edits.choose(spelled, 7, pair.source, pair.target, note="because")
        edited = apply_edits(lexicon, edits.current())
        row = edited.table.iloc[spelled]
        assert (row["source_id"], row["origin"], row["source_token"]) == (7, "edited", pair.source.raw_token(7))
        assert row["sources"].tolist() == [7]
        assert row["weights"].tolist() == [1.0]
        assert np.isnan(row["margin"])
        assert edited.provenance["edits"]["lexicon"] == lexicon.key
        assert edited.provenance["edits"]["tokens"][0]["note"] == "because"
        assert lexicon.table["origin"].iat[spelled] == "pieces"
        others = np.arange(len(lexicon)) != spelled
        assert (edited.source_of()[others] == lexicon.source_of()[others]).all()
        assert edited.key != lexicon.key

    def test_a_rejected_pair_falls_back_to_pieces_or_without_vocabularies_to_the_mean(
        self, pair: TokenizedPair, lexicon: Lexicon, spelled: int
    ) -> None:
        edits = LexiconEdits(lexicon)
        edits.choose(spelled, 7, pair.source, pair.target)
        edits.reject(spelled, pair.source, pair.target)
        row = apply_edits(lexicon, edits.current()).table.iloc[spelled]
        recipe = lexicon.table.iloc[spelled]
        assert row["origin"] == "pieces"
        assert row["sources"].tolist() == recipe["sources"].tolist()
        assert np.allclose(row["weights"], recipe["weights"])
        assert row["source_id"] == recipe["source_id"]
        blind = LexiconEdits(lexicon)
        blind.reject(spelled)
        row = apply_edits(lexicon, blind.current()).table.iloc[spelled]
        assert (row["origin"], row["mean_weight"], row["source_id"], len(row["sources"])) == ("mean", 1.0, -1, 0)

    def test_separate_output_rows_keep_their_pieces(self, pair: TokenizedPair, spelled: int) -> None:
        apart = align(pair, recipe="last-in-mean-out").lexicon
        edits = LexiconEdits(apart)
        edit = edits.choose(spelled, 7, pair.source, pair.target)
        row = apply_edits(apart, edits.current()).table.iloc[spelled]
        weights = dict(zip(row["output_sources"].tolist(), row["output_weights"].tolist(), strict=True))
        assert row["weights"].tolist() == [1.0]
        assert sum(weights.values()) + row["output_mean_weight"] == pytest.approx(1.0)
        assert set(weights) == {7, *edit.pieces}
        assert max(weights, key=weights.__getitem__) == edit.pieces[0]  # its logit contributes to that of the token

    def test_the_model_gets_the_chosen_row(self, pair: TokenizedPair, lexicon: Lexicon, spelled: int) -> None:
        edits = LexiconEdits(lexicon)
        edits.choose(spelled, 7, pair.source, pair.target)
        model = tiny_model("llama", pair.source.size)
        wanted = model.get_input_embeddings().weight[7].detach().clone()
        moved = rearrange(model, apply_edits(lexicon, edits.current()), pair.source, pair.target)
        assert torch.equal(moved.get_input_embeddings().weight[spelled], wanted)

    def test_edits_survive_a_restart_with_undo_and_redo(
        self, pair: TokenizedPair, lexicon: Lexicon, spelled: int, tmp_path: Path
    ) -> None:
        path = tmp_path / "lexicon.edits.json"
        edits = LexiconEdits(lexicon, path)
        edits.choose(spelled, 7, pair.source, pair.target)
        edits.choose(spelled, 9, pair.source, pair.target)
        edits.undo()
        again = LexiconEdits(lexicon, path)
        assert again.current()[spelled].source_id == 7
        again.redo()
        assert LexiconEdits(lexicon, path).current()[spelled].source_id == 9
        again.undo()
        again.reject(spelled)
        assert again.redo() is None, "a new edit clears the edits to redo"
        again.restore(spelled)
        assert again.current() == {}
        assert apply_edits(lexicon, again.current()) is lexicon
        again.undo()
        assert again.current()[spelled].action == "reject"

    def test_edits_belong_to_one_lexicon(
        self, pair: TokenizedPair, lexicon: Lexicon, spelled: int, tmp_path: Path
    ) -> None:
        path = tmp_path / "e.json"
        LexiconEdits(lexicon, path).choose(spelled, 7)
        with pytest.raises(InputError, match="another lexicon"):
            LexiconEdits(align(pair, recipe="mean").lexicon, path)
        lexicon.save(tmp_path / "l.parquet")
        same = Lexicon.load(tmp_path / "l.parquet")
        assert LexiconEdits(same, path).current()[spelled].source_id == 7

    @pytest.mark.parametrize("content", ["", "[]", '{"lexicon": "x"}', '{"lexicon":"x","done":[{"a":1}],"undone":[]}'])
    def test_a_file_that_holds_no_edits_is_refused_in_one_sentence(
        self, lexicon: Lexicon, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "e.json").write_text(content)
        with pytest.raises(InputError, match="no edits"):
            LexiconEdits(lexicon, tmp_path / "e.json")

    def test_tokens_that_do_not_exist_are_refused(self, lexicon: Lexicon, spelled: int) -> None:
        edits = LexiconEdits(lexicon)
        with pytest.raises(InputError, match="no target token"):
            edits.choose(len(lexicon), 0)
        with pytest.raises(InputError, match="no source token"):
            edits.choose(spelled, 10**6)
        with pytest.raises(InputError, match="nothing to restore"):
            edits.restore(spelled)
        assert edits.done == []


class TestExport:
    def test_all_rows_or_the_filtered_rows_are_exported(
        self, lexicon: Lexicon, pair: TokenizedPair, tmp_path: Path
    ) -> None:
        rows = np.array([5, 3])
        table = pd.read_csv(
            export_rows(lexicon, tmp_path / "a.csv", rows, pair.source, pair.target), encoding="utf-8-sig"
        )
        assert table["target_id"].tolist() == [5, 3]
        assert table["target_label"].tolist() == [pair.target.label(5), pair.target.label(3)]
        kept = pd.read_parquet(export_rows(lexicon, tmp_path / "a.parquet", rows))
        assert kept["target_id"].tolist() == [5, 3]
        assert len(pd.read_parquet(export_rows(lexicon, tmp_path / "b.parquet"))) == len(lexicon)
        mapped = json.loads(export_rows(lexicon, tmp_path / "a.json").read_text())
        assert mapped == {str(t): int(s) for t, s in enumerate(lexicon.source_of()) if s >= 0}
        back = Lexicon.from_json(tmp_path / "a.json", pair.source, pair.target)
        assert (back.source_of() == lexicon.source_of()).all()

    def test_an_unknown_ending_is_refused(self, lexicon: Lexicon, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="CSV"):
            export_rows(lexicon, tmp_path / "a.xlsx")


class TestParts:
    def test_the_part_of_all_tokens_has_the_scores_of_the_lexicon(self, pair: TokenizedPair, lexicon: Lexicon) -> None:
        scores = score_parts(lexicon, pair, {"all": None}, encoder=None)
        whole = score_lexicon(lexicon, pair, encoder=None)
        assert scores.parts["all"]["bleu1"] == whole.intervals["bleu1"]["target_to_source"]
        table = breakdown(lexicon, pair)
        table = table[(table["measure"] == "unigram_match") & (table["direction"] == "target_to_source")]
        by_origin = table[table["kind"] == "origin"]
        match = scores.parts["all"]["match"]
        assert match.n == len(pair.target_corpus.ids)
        assert match.mean == pytest.approx((by_origin["value"] * by_origin["n"]).sum() / by_origin["n"].sum())

    def test_a_part_is_scored_on_the_documents_with_its_tokens(
        self, pair: TokenizedPair, lexicon: Lexicon, spelled: int
    ) -> None:
        scores = score_parts(lexicon, pair, {"one": np.array([spelled])}, encoder=None)
        holding = [i for i in range(len(pair.documents)) if spelled in pair.target_corpus[i]]
        assert scores.parts["one"]["bleu1"].n == len(holding) > 0
        assert scores.parts["one"]["match"].n == int((pair.target_corpus.ids == spelled).sum())
        assert [d["document"] for d in scores.documents["one"]] != []
        assert {d["document"] for d in scores.documents["one"]} <= set(holding)
        worst = [d["bleu1"] for d in scores.documents["one"]]
        assert worst == sorted(worst)

    def test_an_edit_changes_the_scores_of_its_token(self, pair: TokenizedPair, lexicon: Lexicon, spelled: int) -> None:
        edits = LexiconEdits(lexicon)
        first = int(pair.source_corpus[0][0])
        wrong = next(i for i in range(pair.source.size) if i not in pair.source_corpus.ids)
        for source_id, better in ((first, False), (wrong, False)):
            edits.choose(spelled, source_id)
            edited = apply_edits(lexicon, edits.current())
            scores = score_parts(edited, pair, {"edited": np.array([spelled])}, before=lexicon, encoder=None)
            change = scores.changes["edited"]["match"]
            moved = scores.parts["edited"]["match"].mean - scores.before["edited"]["match"].mean
            assert change.mean == pytest.approx(moved)
            assert better or change.mean <= 0
        assert scores.parts["edited"]["match"].mean == 0.0, "no document has the wrong token"

    def test_tokens_that_the_text_lacks_have_no_scores(self, pair: TokenizedPair, lexicon: Lexicon) -> None:
        unused = np.setdiff1d(np.arange(pair.target.size), pair.target_corpus.ids)[:3]
        scores = score_parts(lexicon, pair, {"none": unused}, encoder=None)
        assert scores.parts == {"none": {}}
        assert scores.documents == {"none": []}


def test_contexts_are_of_the_token_and_stay_inside_its_document(pair: TokenizedPair) -> None:
    token_id = int(pair.target_corpus[3][0])
    found, total = contexts(pair.target_corpus, pair.target, token_id, most=100)
    assert total == int((pair.target_corpus.ids == token_id).sum())
    assert len(found) == total
    assert {one.token for one in found} == {pair.target.label(token_id)}
    first = next(one for one in found if one.document == 3)
    assert first.before == ""
    assert contexts(pair.target_corpus, pair.target, int(np.argmin(pair.target_corpus.counts(pair.target.size)))) == (
        [],
        0,
    )


def test_neighbours_are_by_cosine_and_never_the_token_itself() -> None:
    rows = np.array([[1, 0], [10, 1], [0, 1], [-1, 0], [0, 0]], dtype=np.float32)
    space = Neighbourhood(TokenVectors(np.array([2, 3, 5, 7, 9]), rows, np.ones(5), ""))
    assert [i for i, _ in space.of(2, 2)] == [3, 5]
    assert [i for i, _ in space.of(2, 99)][-1] == 7
    assert space.of(4) == []
