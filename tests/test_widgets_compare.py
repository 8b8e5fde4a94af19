"""The compare panel without a browser: changed tokens, scores and slices of runs, recipes of a pair, closing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from test_comparison import SOURCE, TARGET, lexicon_of

from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.comparison import paired_scores
from tokalign_lab.files import write_json
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.results import last_evaluation, lexicon_path, measured_otherwise, recipes_table
from tokalign_lab.settings.kinds import CompareSettings
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets import ComparePanel, LabState
from tokalign_lab.widgets.common.background import WATCHER, inline

COUNTS = np.arange(TARGET.size, dtype=np.int64) + 1


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with inline():
        yield


def interval(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": 50}


def align_run(root: Path, recipe: str, lexicon: Lexicon, state: str = "finished", bleu: float = 0.5) -> RunFolder:
    settings = {"source": "tiny-300", "target": "tiny-290", "text": ["default"], "recipe": recipe, "seed": 0}
    run = RunFolder.create(root / f"align-{recipe}", "align", settings)
    (run.path / "alignment").mkdir()
    lexicon.provenance["recipe"] = recipe
    lexicon.save(run.path / "alignment" / "lexicon.parquet")
    scores = {"bleu1": {"target_to_source": interval(bleu)}}
    write_json(run.path / "scores.json", {"seconds": {"vectors": 2.0}, "lexicon": {"intervals": scores}})
    run.update(state=state)
    return run


def adapt_run(root: Path, name: str, lexicon: Path, bits: float, **settings: Any) -> RunFolder:
    before = RunFolder.create(root / f"rearrange-{name}", "rearrange", {"model": "x", "lexicon": str(lexicon)})
    chosen = {"model": str(before.path / "model"), "text": ["default"], **settings}
    run = RunFolder.create(root / name, "adapt", chosen)
    run.emit({"kind": "evaluation", "step": 0, "bits_per_byte": 9.0, "by_slice": {"prose": 9.0}})
    run.emit({"kind": "evaluation", "step": 40, "bits_per_byte": bits, "by_slice": {"prose": bits, "<de>": bits + 1}})
    run.update(state="finished")
    return run


def two(**options: Any) -> ComparePanel:
    a, b = lexicon_of({1: 5, 2: 6, 3: 7}, counts=COUNTS), lexicon_of({1: 5, 2: 9, 4: 8}, counts=COUNTS)
    return ComparePanel(a, b, SOURCE, TARGET, **options)


class TestTokens:
    def test_changed_tokens_are_listed_most_used_first(self, tmp_path: Path) -> None:
        panel = two(runs=tmp_path)
        assert [row["key"] for row in panel.table.rows] == [4, 3, 2]
        assert panel.table.rows[2]["cells"][2:5] == ["Another partner", SOURCE.label(6), SOURCE.label(9)]
        assert panel.table.rows[1]["cells"][4] == "", "no token; the browser draws a dash without a frame"
        assert panel.state["counts"]["changed"] == 1
        panel._which.value = "same"
        assert [row["key"] for row in panel.table.rows] == [1]

    def test_a_row_selects_and_shows_what_others_select(self, tmp_path: Path) -> None:
        state = LabState()
        panel = two(state=state, runs=tmp_path)
        panel.table.press(3)
        assert (state.selection.ids, state.selection.by) == ((3,), "compare")
        state.select("target", [2], by="maps")
        assert panel.table.chosen == 2
        assert state.selection.by == "maps"  # showing it is not choosing it again
        panel._select.click()
        assert state.selection.ids == (4, 3, 2)

    def test_swapping_turns_gained_and_lost_around(self, tmp_path: Path) -> None:
        panel = two(runs=tmp_path)
        assert panel.comparison is not None
        assert panel.comparison.table.set_index("target_id")["change"][4] == "gained"
        panel.swap()
        assert panel.comparison.table.set_index("target_id")["change"][4] == "lost"

    def test_lexicons_of_different_pairs_are_refused_in_the_panel(self, tmp_path: Path) -> None:
        from test_diagnosis import made_of

        rows = LexiconRows(SOURCE.size)
        rows.fill(np.arange(SOURCE.size), "mean")
        panel = ComparePanel(lexicon_of({1: 1}), made_of(rows, SOURCE, SOURCE), SOURCE, TARGET, runs=tmp_path)
        assert "different pairs" in panel._error.value
        assert len(panel.selection) == 0

    def test_a_run_compared_with_itself_is_pointed_out(self, tmp_path: Path) -> None:
        a, b = (align_run(tmp_path, recipe, lexicon_of({1: 1})) for recipe in ("anchored", "pieces"))
        assert "A and B are the same" in ComparePanel(a, a, SOURCE, TARGET, runs=tmp_path)._same.value
        assert "A and B are the same" not in ComparePanel(a, b, SOURCE, TARGET, runs=tmp_path)._same.value

    def test_markup_in_names_stays_text(self, tmp_path: Path) -> None:
        a, b = lexicon_of({1: 5}), lexicon_of({1: 6})
        a.provenance["recipe"] = "<script>alert(1)</script>"
        panel = ComparePanel(a, b, SOURCE, TARGET, runs=tmp_path)
        assert "&lt;script&gt;" in panel._head.value
        assert "<script>" not in panel._head.value + panel._summary.value

    def test_a_whole_vocabulary_that_changed_sends_one_page(
        self, tmp_path: Path, sp32k_vocabulary: Vocabulary, smollm_vocabulary: Vocabulary
    ) -> None:
        made = []
        for shift in (0, 1):
            rows = LexiconRows(sp32k_vocabulary.size)
            rows.fill(np.arange(sp32k_vocabulary.size), "mean")
            for i in range(3, sp32k_vocabulary.size):
                rows.copy(i, i + shift, "aligned")
            none = np.zeros(smollm_vocabulary.size), np.ones(sp32k_vocabulary.size)
            table = rows.to_table(smollm_vocabulary, sp32k_vocabulary, *none)
            provenance = make_provenance(smollm_vocabulary, sp32k_vocabulary, recipe="r", parameters={}, seed=0)
            made.append(Lexicon(table, reverse_of(rows, smollm_vocabulary.size), provenance))
        panel = ComparePanel(*made, smollm_vocabulary, sp32k_vocabulary, runs=tmp_path)
        assert len(panel.selection) == sp32k_vocabulary.size - 3
        assert len(json.dumps(panel.table.rows)) < 10_000
        panel.select_shown()
        assert len(panel.lab_state.selection.ids) == 2000


class TestRuns:
    def test_scores_of_both_are_side_by_side_with_intervals(self, tmp_path: Path) -> None:
        a = align_run(tmp_path, "anchored", lexicon_of({1: 5}, counts=COUNTS), bleu=0.5)
        b = align_run(tmp_path, "pieces", lexicon_of({1: 6}, counts=COUNTS), bleu=0.7)
        panel = ComparePanel(a, str(b.path), SOURCE, TARGET, runs=tmp_path)
        assert "0.500 [0.490, 0.510], n = 50" in panel._scores.value
        assert "0.700 [0.690, 0.710], n = 50" in panel._scores.value
        assert "not measured" in panel._scores.value
        assert not panel.difference.measure.disabled

    def test_a_lexicon_alone_cannot_be_measured_and_the_panel_explains_why(self, tmp_path: Path) -> None:
        panel = two(runs=tmp_path)
        assert panel.difference.measure.disabled
        assert "does not name its text" in panel.difference.note.value

    def test_the_difference_is_measured_on_the_runs_own_held_out_text(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from test_comparison import held_out

        from tokalign_lab.widgets.compare import scores as difference

        whole = {i: i for i in range(TARGET.size)}
        a = align_run(tmp_path, "anchored", lexicon_of({i: i for i in whole if i % 25}, counts=COUNTS))
        b = align_run(tmp_path, "pieces", lexicon_of(whole, counts=COUNTS))

        def done_here(kind: str, settings: dict[str, Any], root: Path) -> RunFolder:
            """Do the work of a "compare" run, on a text of the test."""
            assert CompareSettings.from_dict(settings).encoder is None
            run = RunFolder.create(root / "compare-1", kind, settings)
            found = paired_scores(*(Lexicon.load(Path(settings[side])) for side in ("left", "right")), held_out(60))
            write_json(
                run.path / "scores.json", {m: {d: p.to_dict() for d, p in each.items()} for m, each in found.items()}
            )
            run.update(state="finished")
            return run

        monkeypatch.setattr(difference, "find_or_start", done_here)
        panel = ComparePanel(a, b, SOURCE, TARGET, runs=tmp_path)
        panel.difference.sentences.value = False
        panel.difference.measure.click()
        assert panel._error.value == ""
        assert "B is higher" in panel._scores.value
        assert not panel.difference.measure.disabled
        assert "finished" in panel.difference.job.children[0]._line.value
        panel.swap()
        assert panel.difference.job.children == ()

    def test_bits_per_byte_of_two_tuned_models_and_their_lexicons(self, tmp_path: Path) -> None:
        files = []
        for name, source_id in (("a", 5), ("b", 6)):
            files.append(tmp_path / f"{name}.parquet")
            lexicon_of({1: source_id}, counts=COUNTS).save(files[-1])
        a, b = adapt_run(tmp_path, "adapt-a", files[0], 2.0), adapt_run(tmp_path, "adapt-b", files[1], 1.75)
        assert lexicon_path(a) == files[0]
        assert last_evaluation(a)["step"] == 40
        panel = ComparePanel(a, b, SOURCE, TARGET, runs=tmp_path)
        assert panel.comparison is not None
        assert panel.comparison.counts["changed"] == 1
        assert "-0.250" in panel._slices.value
        assert "&lt;de&gt;" in panel._slices.value
        assert "different text" not in panel._slices.value
        other = adapt_run(tmp_path, "adapt-c", files[1], 1.5, max_bytes=7)
        assert measured_otherwise(a, other) == ["max_bytes"]
        assert (
            "different text (max_bytes differ)" in ComparePanel(a, other, SOURCE, TARGET, runs=tmp_path)._slices.value
        )

    def test_models_whose_lexicon_is_gone_can_still_be_compared(self, tmp_path: Path) -> None:
        a, b = (adapt_run(tmp_path, f"adapt-{n}", tmp_path / "gone.parquet", bits) for n, bits in (("a", 2), ("b", 1)))
        panel = ComparePanel(a, b, runs=tmp_path)
        assert panel.comparison is None
        assert "-1.000" in panel._slices.value
        assert panel._tokens.layout.display == "none"

    def test_an_invalid_path_is_refused_in_one_sentence(self, tmp_path: Path) -> None:
        panel = ComparePanel(tmp_path / "nothing", lexicon_of({1: 1}), runs=tmp_path)
        assert "neither a run nor a lexicon" in panel._error.value


class TestRecipes:
    def test_each_recipe_has_a_row_with_what_its_runs_scored(self, tmp_path: Path) -> None:
        align_run(tmp_path, "anchored", lexicon_of({1: 5}), bleu=0.5)
        align_run(tmp_path, "pieces", lexicon_of({1: 5}), state="cancelled")
        RunFolder.create(tmp_path / "other", "align", {"source": "x", "target": "y", "text": ["default"]})
        rows = {row["recipe"]: row for row in recipes_table("tiny-300", "tiny-290", tmp_path)}
        assert rows["anchored"]["state"] == "finished"
        assert rows["anchored"]["seconds"] == 2.0
        assert rows["pieces"]["state"] == "cancelled"
        assert rows["tokalign"]["run"] is None
        assert list(rows)[:2] == ["anchored", "tokalign"]

    def test_missing_recipes_are_aligned_by_the_callback(self, tmp_path: Path) -> None:
        asked: list[str] = []
        a = align_run(tmp_path, "anchored", lexicon_of({1: 5}))
        panel = ComparePanel(a, lexicon_of({1: 6}), SOURCE, TARGET, runs=tmp_path, on_align=asked.append)
        assert "anchored" not in panel.recipes.missing
        assert "omp needs a donor" in panel.recipes._note.value
        panel.recipes._missing.value = ("pieces", "mean")
        panel.recipes._align.click()
        assert sorted(asked) == ["mean", "pieces"]
        asked.clear()
        panel.recipes._missing.value = ()
        panel.recipes._align.click()
        assert asked == panel.recipes.missing
        assert "omp" not in asked

    def test_without_a_lab_it_explains_that_it_cannot_align(self, tmp_path: Path) -> None:
        panel = two(runs=tmp_path)
        assert panel.recipes._align.disabled
        assert "not attached to a Lab" in panel.recipes._note.value

    def test_a_run_of_the_table_can_be_compared(self, tmp_path: Path) -> None:
        a = align_run(tmp_path, "anchored", lexicon_of({1: 5}, counts=COUNTS))
        align_run(tmp_path, "pieces", lexicon_of({1: 6, 2: 7}, counts=COUNTS))
        panel = ComparePanel(a, a, SOURCE, TARGET, runs=tmp_path)
        row = next(i for i, row in enumerate(panel.recipes.rows) if row["recipe"] == "pieces")
        assert panel.recipes._uses[1].disabled
        panel.recipes.table.press(row)
        panel.recipes._uses[1].click()
        assert panel.state["counts"]["changed"] == panel.state["counts"]["gained"] == 1
        shown = {row["cells"][0]: row["cells"][1] for row in panel.recipes.table.rows}
        assert (shown["anchored"], shown["pieces"]) == ("A", "B")

    def test_it_watches_running_runs_until_it_is_closed(self, tmp_path: Path) -> None:
        a = align_run(tmp_path, "anchored", lexicon_of({1: 5}))
        b = align_run(tmp_path, "pieces", lexicon_of({1: 5}), state="queued")
        panel = ComparePanel(a, lexicon_of({1: 6}), SOURCE, TARGET, runs=tmp_path)
        watched = panel.recipes._watched
        assert watched in WATCHER.names()
        b.update(state="failed")
        panel.recipes._poll()
        assert next(row["state"] for row in panel.recipes.rows if row["recipe"] == "pieces") == "failed"
        panel.close()
        assert watched not in WATCHER.names()


def test_to_code_shows_the_same_view(tmp_path: Path) -> None:
    a = align_run(tmp_path, "anchored", lexicon_of({1: 5}, counts=COUNTS))
    b = align_run(tmp_path, "pieces", lexicon_of({1: 6}, counts=COUNTS))
    panel = ComparePanel(a, b, SOURCE, TARGET, runs=tmp_path)
    panel._which.value = "changed"
    panel.table.press(1)
    names: dict[str, Any] = {"source": SOURCE, "target": TARGET}
    lines = panel.to_code().splitlines()
    exec("\n".join([*lines[:-1], f"again = {lines[-1]}"]), names)
    again = names["again"]
    assert again.state == panel.state
    assert again.table.rows == panel.table.rows
    assert again.table.chosen == 1


def test_closed_panels_do_not_react(tmp_path: Path) -> None:
    state = LabState()
    panel = two(state=state, runs=tmp_path)
    panel.close()
    state.select("target", [3])
    assert panel.table.chosen == -1


def test_a_run_without_a_lexicon_is_named(tmp_path: Path) -> None:
    from tokalign_lab.runs.results import lexicon_file

    run = RunFolder.create(tmp_path / "measure", "measure", {"model": "x", "text": ["default"]})
    with pytest.raises(InputError, match="has no lexicon"):
        lexicon_file(run)
