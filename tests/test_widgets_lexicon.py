"""The lexicon inspector without a browser: filters, histogram, explanation, edits, score runs, export, closing.

The small lexicon is artificial; the text and the vocabularies of a run are tiny. No test here checks quality.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ipywidgets")

from test_widgets import WORDS, make_lexicon, make_vectors
from tiny import WORDS as TEXT
from tiny import save_tiny, tiny_tokenizer

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.edits import LexiconEdits, apply_edits
from tokalign_lab.alignment.recipes import align
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import read_documents, split_documents
from tokalign_lab.evaluation.finding import NEW_ROWS
from tokalign_lab.model.load import load_model
from tokalign_lab.runs import kinds
from tokalign_lab.runs.chain import Chain
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.worker import RunContext
from tokalign_lab.widgets import ComparePanel, DiagnosisPanel, LabState, LexiconPanel
from tokalign_lab.widgets.common import background
from tokalign_lab.widgets.common.background import WATCHER, inline
from tokalign_lab.widgets.common.state import EVERYTHING, Query, Selection
from tokalign_lab.widgets.compare import scores as comparing
from tokalign_lab.widgets.lab_panels import LabPanels
from tokalign_lab.widgets.lexicon import diagnosis as diagnosing
from tokalign_lab.widgets.lexicon import scores as scoring
from tokalign_lab.widgets.lexicon.rows import PRESETS, ranges_of
from tokalign_lab.widgets.lexicon.scores import differences
from tokalign_lab.widgets.lexicon.search import TokenSearch
from tokalign_lab.widgets.lexicon.view import Labels, LexiconView

EVIL = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with inline():
        yield


class TestSearch:
    ROWS = (("the", "the", "cat"), ("a\nb", "", ""), ("", "Straße", ""), ("x", "", "the end"), ("␣9", "▁9", ""))

    @pytest.mark.parametrize(
        ("text", "regex", "found"),
        [
            ("the", False, [0, 3]),
            ("STRASSE", False, [2]),
            ("a↵b", False, [1]),
            ("e c", False, []),  # not across two words of a row
            ("^cat$", True, [0]),
            ("[^t]*$", True, [0, 1, 2, 3, 4]),
            (r"e\sc", True, []),
            (r"e[\s]c", True, []),
            (r"e\W*c", True, []),
            ("t.e|x", True, [0, 3]),
            ("(?:the)", True, [0, 3]),
            (r"\bend\b", True, [3]),
            ("x*", True, [0, 1, 2, 3, 4]),
            ("[]x]", True, [3]),
            ("▁9", False, [4]),
        ],
    )
    def test_finds_within_a_word(self, text: str, regex: bool, found: list[int]) -> None:
        rows = [[word.replace(" ", "␣") for word in row] for row in self.ROWS]
        hits = np.flatnonzero(TokenSearch(*zip(*rows, strict=True)).matching(text, regex)).tolist()
        assert hits == found

    @pytest.mark.parametrize(
        "pattern",
        [
            "an", "^t", "(ab|c)+$", "[^a]b", r"\Wx", r"t\S", "a*", "[]b]", r"\d|e$", "z{2}", "^$", r"\s",
            "(?<!a)b$", r"x(?!\W)", r"c\Z", "[^b]*+c", "(?s:x.a)",
        ],
    )  # fmt: skip
    def test_searching_one_string_equals_searching_row_by_row(self, pattern: str) -> None:
        rng = np.random.default_rng(0)
        rows = [["".join(rng.choice(list("abctxz-1 "), 5)) for _ in range(3)] for _ in range(400)]
        expected = [any(re.search(pattern, word.replace(" ", "␣")) for word in row) for row in rows]
        shown = [[word.replace(" ", "␣") for word in row] for row in rows]
        assert TokenSearch(*zip(*shown, strict=True)).matching(pattern, regex=True).tolist() == expected

    def test_a_raw_string_that_differs_only_in_the_mark_of_a_space_needs_no_line(self) -> None:
        assert TokenSearch(["␣the", "end"], ["▁the", "end"])._text == "\n␣the\nend"

    def test_a_changed_row_is_found_by_its_new_words_only(self) -> None:
        search = TokenSearch(*zip(*self.ROWS, strict=True))
        search.change(0, ("the", "dog"))
        assert np.flatnonzero(search.matching("cat", False)).tolist() == []
        assert np.flatnonzero(search.matching("^dog$", True)).tolist() == [0]


class TestFilters:
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            (Query(script="Han"), [3]),
            (Query(script="Thai"), []),
            (Query(length=(6, None)), [4, 3]),
            (Query(frequency=(2, 3)), [2, 1]),
            (Query(score=(None, 0.2)), [7]),
            (Query(margin=(0.95, None)), [0]),
            (Query(origin="aligned", score=(0.3, 0.6), sort="id"), [4, 5]),
            (Query(selected=True), [6, 0]),
            (Query("na", selected=True), []),
        ],
    )
    def test_each_filter_removes_rows(self, query: Query, found: list[int]) -> None:
        lexicon = make_lexicon()
        view = LexiconView(lexicon, Labels(lexicon))
        assert view.rows(query, Selection("source", (0,))).tolist() == found

    def test_controls_and_query_stay_in_step(self) -> None:
        panel = LexiconPanel(make_lexicon())
        filters, state = panel.filters, panel.lab_state
        filters.script.value = "Han"
        filters.ranges["length"][0].value = "3"
        assert state.query == Query(script="Han", length=(3.0, None))
        assert panel.state["found"] == 1
        state.query = Query(score=(0.123456789, None), origin="aligned")
        assert filters.origin.value == "aligned"
        assert filters.ranges["score"][0].value == "0.123457"
        filters.regex.value = True
        assert state.query.score == (0.123456789, None), "another control must not round it"
        filters.clear.click()
        assert state.query == Query()

    def test_an_invalid_number_is_refused_in_one_sentence(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.filters.ranges["score"][1].value = "high"
        assert "is not a number" in panel._error.value

    def test_a_preset_is_a_whole_query(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.lab_state.query = Query("zzz")
        panel.filters.preset.value = "Found by vectors"
        assert panel.lab_state.query == PRESETS["Found by vectors"]
        panel.filters.sort.value = "worst"
        assert panel.filters.preset.value == "Found by vectors", "the rows are the same"
        assert panel.table.rows[0]["key"] == 7
        panel.filters.search.value = "na"
        assert panel.filters.preset.value == "", "it is no longer that preset"

    def test_a_click_on_a_selected_row_does_not_change_the_listed_selection(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.lab_state.select("target", [3, 4, 5], by="maps")
        panel.filters.selected.value = True
        assert panel.state["found"] == 3
        panel.table.press(4)
        assert panel.lab_state.selection.ids == (4,)
        assert panel.state["found"] == 3
        panel.lab_state.select("target", [1], by="diagnosis")
        assert panel.state["found"] == 1


class TestHistogram:
    @pytest.mark.parametrize("measure", ["score", "margin", "frequency", "length"])
    def test_bars_count_each_row_once_and_filter_the_same_rows(self, measure: str) -> None:
        panel = LexiconPanel(make_lexicon([f"w{i:04}" for i in range(900)], 50))
        panel._counted.value = measure
        bars = panel.histogram.bars
        assert sum(bar["n"] for bar in bars) == 900
        index = max(range(len(bars)), key=lambda i: bars[i]["n"])
        panel.histogram.on_press(str(index))
        assert panel.state["found"] == bars[index]["n"]
        assert panel.histogram.html.count("data-press=") == len(bars)
        assert panel.histogram.html.count('aria-pressed="true"') == 1
        assert [bar["n"] for bar in panel.histogram.bars] == [bar["n"] for bar in bars], "other bars stay clickable"
        assert [i for i, bar in enumerate(panel.histogram.bars) if bar["on"]] == [index]
        panel.histogram.press(index)
        assert getattr(panel.query, measure) == EVERYTHING

    @pytest.mark.parametrize("values", [[], [np.nan], [0.5], [0, 0], [1, 1_000_000]])
    @pytest.mark.parametrize("measure", ["score", "frequency"])
    def test_any_values_can_be_divided_into_bars(self, measure: str, values: list[float]) -> None:
        ranges = ranges_of(measure, np.array(values, dtype=np.float64))
        for value in values:
            if np.isfinite(value) and (measure == "score" or value == int(value)):
                assert sum(low <= value <= high for low, high in ranges) == 1

    def test_rows_without_a_score_are_explained(self) -> None:
        lexicon = make_lexicon()
        lexicon.table["score"] = np.where(np.arange(8) == 7, np.nan, 0.5).astype(np.float32)
        assert "1 unknown" in LexiconPanel(lexicon).histogram.caption


class TestWhy:
    def test_neighbours_of_both_sides_with_partners_marked(self) -> None:
        panel = LexiconPanel(make_lexicon(), source_vectors=make_vectors(6), target_vectors=make_vectors(8, 1))
        panel.table.press(4)
        html = panel.why.neighbours.value
        assert html.count("<tr><td>") == 7 + 5
        assert "Nearest to its source token" in html
        assert "✓" in html  # all other source tokens are neighbours here, so partners are among them
        assert "&lt;b&gt;" in html
        assert "<b>" not in html.replace("<b>The", "")

    def test_a_token_without_a_vector_is_explained(self) -> None:
        few = make_vectors(2)
        panel = LexiconPanel(make_lexicon(), source_vectors=few, target_vectors=few)
        panel.table.press(5)
        assert "Neither token has a vector" in panel.why.neighbours.value


class TestEditing:
    def panel(self, folder: Path, **values: Any) -> LexiconPanel:
        run = RunFolder(folder / "align-1")
        if not run.exists:
            run = RunFolder.create(run.path, "align", {"source": "s", "target": "t", "text": ["default"]})
        return LexiconPanel(make_lexicon(), run=run, **values)

    def test_choose_undo_redo_reject_restore(self, tmp_path: Path) -> None:
        panel = self.panel(tmp_path)
        editor = panel.editor
        assert editor.reject.disabled
        panel.table.press(4)
        assert [i for _, i in editor.choice.options] == [4, 0]  # the candidates
        assert editor.choice.value == 0, "the first suggestion differs from its current source"
        editor.note.value = f"see {EVIL}"
        editor.choose.click()
        assert panel.lexicon.table["source_id"].iat[4] == 0
        assert panel.view.score[4] == pytest.approx(0.05)
        assert "edited" in panel._head.value
        assert "&lt;script&gt;" in editor.status.value
        assert "<script>" not in editor.status.value
        assert panel.table.rows[[row["key"] for row in panel.table.rows].index(4)]["cells"][2] == "s0"
        editor.undo.click()
        assert panel.lexicon.table["source_id"].iat[4] == 4
        editor.redo.click()
        editor.reject.click()
        assert panel.lexicon.table["origin"].iat[4] == "mean"
        editor.restore.click()
        assert panel.lexicon.table["origin"].iat[4] == "aligned"
        assert panel._error.value == ""

    def test_another_source_is_found_by_word_or_id_and_then_by_the_search(self, tmp_path: Path) -> None:
        panel = self.panel(tmp_path)
        panel.table.press(4)
        panel.editor.search.value = "s3"
        assert panel.editor.choice.options == (("s3  (id 3)", 3),)
        panel.editor.choose.click()
        panel.filters.search.value = "s3"
        assert {row["key"] for row in panel.table.rows} == {3, 4}
        panel.filters.origin.value = "edited"
        assert [row["key"] for row in panel.table.rows] == [4]

    def test_edits_are_restored_in_a_new_panel_and_on_a_shared_view(self, tmp_path: Path) -> None:
        first = self.panel(tmp_path)
        first.table.press(4)
        first.editor.choose.click()
        again = self.panel(tmp_path, view=first.view)
        assert again.lexicon.table["origin"].iat[4] == "edited"
        assert again.state["edits"]["done"][0]["target_id"] == 4
        assert again.view.partners("source", np.array([0])).tolist() == [0, 4, 6]

    def test_pins(self, tmp_path: Path) -> None:
        panel = self.panel(tmp_path)
        panel.table.press(4)
        panel.editor.pin.click()
        assert panel.lab_state.pins == (("target", 4),)
        assert panel.editor.pin.description == "Unpin"

    def test_without_a_run_there_is_nothing_to_score(self, tmp_path: Path) -> None:
        assert self.panel(tmp_path).scoring.children[1].children
        alone = LexiconPanel(make_lexicon()).scoring
        assert "cannot be scored" in alone.children[0].value
        assert alone.children[1].children == ()


class TestExporting:
    def test_found_rows_are_written_and_their_file_is_shown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path))
        panel = LexiconPanel(make_lexicon())
        panel.filters.search.value = "na"
        panel.exporting.rows.value = "found"
        panel.exporting.go.click()
        assert str(tmp_path / "lexicon-found.csv") in panel.exporting.status.value
        assert len((tmp_path / "lexicon-found.csv").read_text(encoding="utf-8-sig").splitlines()) == 3


def test_code_shows_the_same_view() -> None:
    panel = LexiconPanel(make_lexicon())
    panel.lab_state.query = Query("na", regex=True, score=(None, 0.5), sort="id")
    panel.lab_state.select("target", [5], by="lexicon")
    code = panel.to_code().rpartition("\n")
    made: dict[str, Any] = {"lexicon": make_lexicon()}
    exec(f"{code[0]}\npanel = {code[2]}", made)
    again = made["panel"]
    assert again.table.rows == panel.table.rows
    assert again.table.chosen == 5
    assert again.why.pair.value == panel.why.pair.value


def test_tokens_are_text_everywhere() -> None:
    words = [EVIL, *WORDS]
    panel = LexiconPanel(make_lexicon(words), source_vectors=make_vectors(6), target_vectors=make_vectors(9, 1))
    panel.lab_state.select("target", [0])
    panel.editor.choose.click()
    shown = [panel._head, panel.why.pair, panel.why.neighbours, panel.editor.status, panel.paged.where]
    assert all("<script" not in widget.value for widget in shown)
    before, after = differences([EVIL, "␣a"], ["", "␣a"])
    assert "<script" not in before + after
    assert (before.count("<del>"), after.count("<ins>"), "∅" in after) == (1, 1, True)


# --- with a run -----------------------------------------------------------------------------------------------


@pytest.fixture
def align_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished align run of two tiny tokenizers, as a real run leaves it."""
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path / "runs"))
    for name, size in (("source", 280), ("target", 330)):
        tiny_tokenizer(size).save_pretrained(tmp_path / name)
    text = tmp_path / "text.jsonl"
    lines = [{"text": f"{TEXT} {i} {TEXT}", "name": f"{EVIL}{i}", "group": str(i)} for i in range(30)]
    text.write_text("\n".join(json.dumps(line) for line in lines))
    settings = {"source": str(tmp_path / "source"), "target": str(tmp_path / "target"), "text": [str(text)], "seed": 1}
    settings["held_out_share"] = 0.4
    run = RunFolder.create(tmp_path / "runs" / "align-1", "align", settings)
    source, target = load_vocabulary(settings["source"]), load_vocabulary(settings["target"])
    train, _ = split_documents(read_documents([str(text)], seed=1), 0.4, seed=1)
    align(tokenize_pair(source, target, train), recipe="pieces").save(run.path / "alignment")
    run.update(state="finished")
    return run


def spelled_token(lexicon: Lexicon) -> int:
    table = lexicon.table
    return int(table.loc[(table["origin"] == "pieces") & (table["target_count"] > 0), "target_id"].iloc[0])


def done_here(kind: str, settings: dict[str, Any], root: Path | None = None) -> RunFolder:
    """Do the work of a run in this process."""
    place = root or Path(settings["lexicon"]).parent
    run = RunFolder.create(place / f"run-{len(list(place.glob('run-*')))}", kind, settings)
    kinds.run_kind(kind, settings, RunContext(run, resume=False))
    run.update(state="finished")
    return run


def test_the_diagnosis_checks_the_new_rows_of_the_model_made_from_the_lexicon(
    align_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = DiagnosisPanel.of_run(align_run)
    (_, press), verdict = panel._again, panel.state["verdict"]
    press.click()
    assert "No model was made from this lexicon yet" in panel._error.value
    assert panel.state["verdict"] == verdict

    settings = {"model": str(save_tiny(align_run.path / "tiny", size=280))}
    settings["lexicon"] = str(align_run.path / "alignment" / "lexicon.parquet")
    made = done_here("rearrange", settings, align_run.path.parent)
    before = list(panel.findings["name"])
    monkeypatch.setattr(diagnosing, "diagnose", None)  # the checks of the lexicon do not run again
    press.click()
    assert panel._error.value == ""
    assert sorted(panel.findings["name"]) == sorted([*before, *NEW_ROWS])
    assert "The model's new rows passed all checks." in panel._head.value

    progress = LabPanels(Chain(align_run.path.parent, panel.lab_state), panel.lab_state).rearranging(made)
    source, target = (load_vocabulary(align_run.info()["settings"][side]) for side in ("source", "target"))
    assert f"{source.size} → {target.size}" in progress._head.value
    assert "nats per token" not in progress._head.value, "it is not calibrated"
    (made.path / "model" / "tokalign.json").write_text('{"lexicon": []}')
    progress.refresh()
    assert "tl-cards" not in progress._head.value

    bad = spelled_token(panel.lexicon)
    model = load_model(str(made.path / "model"), device="cpu")
    with torch.no_grad():
        model.get_output_embeddings().weight[bad] *= 1_000
    model.save_pretrained(made.path / "model")
    press.click()
    assert sorted(panel.findings["name"]) == sorted([*before, *NEW_ROWS])
    assert panel.diagnosis is not None
    assert panel.diagnosis.finding("lengths of new rows").target_ids == [bad]
    assert "See the model's new rows." in panel._head.value


def test_a_click_does_not_wait_for_the_tokenizer(align_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, asked = threading.Event(), threading.Event()
    pieces_of = LexiconView.pieces_of

    def slow(view: LexiconView, target_id: int) -> dict[str, Any]:
        asked.set()
        assert loaded.wait(60)
        return pieces_of(view, target_id)

    monkeypatch.setattr(LexiconView, "pieces_of", slow)
    panel = LexiconPanel.of_run(align_run)
    monkeypatch.setattr(background, "_inline", False)
    panel.lab_state.select("target", [spelled_token(panel.lexicon)], by="lexicon")
    assert "Its bytes are" in panel.why.pair.value
    assert "spells it" not in panel.why.pair.value
    assert asked.wait(60)
    loaded.set()
    deadline = time.monotonic() + 60
    while "The source spells it" not in panel.why.pair.value and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "The source spells it" in panel.why.pair.value


def test_a_search_is_prepared_after_the_page_has_drawn_the_rows(
    align_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[tuple[Any, float]] = []
    monkeypatch.setattr(background, "_inline", False)
    monkeypatch.setattr(background, "later", lambda work, seconds: waiting.append((work, seconds)))
    monkeypatch.setattr(background, "_pool", SimpleNamespace(submit=lambda work: work()))
    panel = LexiconPanel.of_run(align_run)
    assert panel.table.rows
    ((prepare, seconds),) = waiting
    assert seconds > 0
    assert "_search" not in panel.view.__dict__
    prepare()
    assert "_search" in panel.view.__dict__


def test_a_run_provides_everything_that_the_panel_needs(align_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = LexiconPanel.of_run(align_run)
    token_id = spelled_token(panel.lexicon)
    panel.lab_state.select("target", [token_id], by="lexicon")
    assert "The source spells it" in panel.why.pair.value
    assert panel.why.contexts.value.count("<mark>") >= 5
    times = panel.lexicon.table["target_count"].iat[token_id]
    assert f"of {times:,} occurrences" in panel.why.contexts.value  # in the text of the alignment
    code = panel.to_code().rpartition("\n")
    assert "of_run" in code[2]
    made: dict[str, Any] = {}
    exec(f"{code[0]}\npanel = {code[2]}", made)
    assert made["panel"].table.rows == panel.table.rows

    monkeypatch.setattr(scoring, "find_or_start", done_here)
    panel.scoring.sentences.value = False
    panel.lab_state.query = replace(panel.query, origin="pieces")
    panel.scoring.score.click()
    assert panel._error.value == ""
    table = panel.scoring.table.value
    assert all(words in table for words in ("All tokens", "Filtered", "Selected", "BLEU-1", "n = "))
    assert "<script" not in panel.scoring.documents.value
    assert "&lt;script" in panel.scoring.documents.value
    assert panel.scoring.part.value == "selection"

    panel.editor.search.value = "0"
    panel.editor.choose.click()
    assert (align_run.path / "lexicon.edits.json").is_file()
    panel.scoring.again.click()
    assert panel._error.value == ""
    assert "Edited by hand, change" in panel.scoring.table.value
    edited = list(align_run.path.glob("edited-*.parquet"))
    assert len(edited) == 1
    assert Lexicon.load(edited[0]).table["origin"].iat[token_id] == "edited"


def test_edits_are_applied_to_the_model_by_a_run(align_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def noted(kind: str, settings: dict[str, Any]) -> RunFolder:
        asked.append((kind, settings))
        run = RunFolder.create(align_run.path / "run-0", kind, settings)
        run.update(state="finished")
        return run

    monkeypatch.setattr(scoring, "find_or_start", noted)
    panel = LexiconPanel.of_run(align_run)
    assert panel.scoring.apply.disabled
    panel.lab_state.select("target", [spelled_token(panel.lexicon)])
    panel.editor.choose.click()
    assert not panel.scoring.apply.disabled
    panel.scoring.apply.click()
    ((kind, settings),) = asked
    assert kind == "rearrange"
    assert settings["model"] == align_run.info()["settings"]["source"]
    assert Lexicon.load(settings["lexicon"]).provenance["edits"]["tokens"]
    assert "the new model is in" in panel.scoring.job.children[0]._line.value


def test_the_difference_of_two_lexicons_is_measured_by_a_run(
    align_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = LexiconEdits(Lexicon.load(align_run.path / "alignment" / "lexicon.parquet"))
    edits.choose(spelled_token(edits.lexicon), 5)
    edited = apply_edits(edits.lexicon, edits.current())
    monkeypatch.setattr(comparing, "find_or_start", done_here)
    panel = ComparePanel(align_run, edited, runs=tmp_path / "runs")
    panel.difference.sentences.value = False
    panel.difference.measure.click()
    assert panel._error.value == ""
    assert set(panel.paired or ()) == {"bleu1"}
    assert set(panel.paired["bleu1"]) == {"target_to_source", "source_to_target"}
    assert "not measured yet" not in panel._scores.value


def test_a_score_run_in_a_separate_process(align_run: RunFolder) -> None:
    from tokalign_lab.runs.control import start

    settings = align_run.info()["settings"]
    lexicon = align_run.path / "alignment" / "lexicon.parquet"
    parts = align_run.path / "parts.json"
    parts.write_text(json.dumps({"filter": [spelled_token(Lexicon.load(lexicon))]}))
    asked = {"lexicon": str(lexicon), "text": settings["text"], "seed": 1, "parts": str(parts), "encoder": None}
    run = start("score", asked)
    assert run.wait(timeout=120) == "finished", run.log_tail()
    scores = json.loads((run.path / "scores.json").read_text())
    assert scores["parts"]["all"]["match"]["n"] > scores["parts"]["filter"]["match"]["n"] > 0
    assert scores["before"] == {}


def test_closed_panels_watch_no_run(align_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(kind: str, settings: dict[str, Any]) -> RunFolder:
        return RunFolder.create(align_run.path / "run-0", kind, settings)  # queued, so it never ends

    monkeypatch.setattr(scoring, "find_or_start", begun)
    state = LabState()
    panel = LexiconPanel.of_run(align_run, state)
    panel.scoring.score.click()
    watched = set(WATCHER.names())
    assert any(name.startswith("inner:") for name in watched)
    panel.close()
    assert not any(name.startswith(("inner:", "job:")) and "align-1" in name for name in WATCHER.names())
    assert set(WATCHER.names()) < watched
    before = panel.paged.items
    state.query = Query("zzz")
    assert panel.paged.items is before
