"""Panels without a browser or a kernel: linking, selection, filters, escaping, paging, replay, closing.

The small lexicon here is artificial, so no test in this file checks quality. `tests/ui` tests panels in a browser.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from ipywidgets import HTML, Button, FloatProgress, ValueWidget, Widget

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.lexicon.rows import LexiconRows, make_reverse
from tokalign_lab.errors import InputError
from tokalign_lab.files import write_json
from tokalign_lab.plots.curves import MOST_CURVE_POINTS, thinned
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.folding import view_of
from tokalign_lab.runs.words import status_words
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets import JobPanel, LabState, LexiconPanel, MapPanel, PairPicker, RunsPanel, TrainingPanel
from tokalign_lab.widgets.common import background
from tokalign_lab.widgets.common.background import WATCHER, Watcher, inline
from tokalign_lab.widgets.common.numbers import HIGHER, LOWER, MEANINGS
from tokalign_lab.widgets.common.panel import Panel, mark_html
from tokalign_lab.widgets.common.part import Box, bar
from tokalign_lab.widgets.common.state import Query
from tokalign_lab.widgets.common.table import Column, Pages, RowTable
from tokalign_lab.widgets.lexicon.view import Labels, LexiconView
from tokalign_lab.widgets.maps import colours
from tokalign_lab.widgets.pair import picker as picker_module
from tokalign_lab.widgets.pair.cut_text import cut_html, shared_blocks

WORDS = ["the", "THE", "<b>", "東京", "naïve", "na", "ive", "zebra"]


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with inline():
        yield


def make_lexicon(words: list[str] = WORDS, source_size: int = 6) -> Lexicon:
    """Make a lexicon whose target i has the source i % source_size; scores decrease with the id."""
    import pandas as pd

    n = len(words)
    rows = LexiconRows(n)
    for i in range(n):
        rows.copy(i, i % source_size, "identical" if i < 3 else "aligned")
        rows.score[i] = rows.margin[i] = 1 - i / n
        if i >= 3:
            rows.candidates(i, np.array([i % source_size, 0]), np.array([1 - i / n, 0.05]))
    sources = [f"s{i % source_size}" for i in range(n)]
    table = pd.DataFrame(
        {
            "target_id": np.arange(n, dtype=np.int32), "source_id": rows.source_id, "score": rows.score,
            "margin": rows.margin, "candidate_ids": rows.candidate_ids, "candidate_scores": rows.candidate_scores,
            "origin": rows.origin.astype(str), "sources": rows.sources, "weights": rows.weights,
            "mean_weight": rows.mean_weight, "source_count": np.ones(n, np.int64),
            "target_count": np.arange(n, dtype=np.int64) + 1,
            "source_token": sources, "target_token": words,
        }
    )  # fmt: skip
    reverse = make_reverse(
        np.arange(source_size), np.ones(source_size), np.array(["identical"] * source_size, dtype=object)
    )
    side = {"fingerprint": "", "size": n}
    provenance = {"source": side | {"name": "a"}, "target": side | {"name": "b"}, "recipe": "made up"}
    return Lexicon(table, reverse, provenance)


def make_vectors(n: int, seed: int = 0, method: str = "anchored") -> TokenVectors:
    rows = np.random.default_rng(seed).normal(size=(n, 12))
    return TokenVectors(np.arange(n), rows, np.arange(n) + 1, "", {"method": method})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path


class TestState:
    def test_the_view_is_saved_and_restored(self, tmp_path: Path) -> None:
        state = LabState(tmp_path / "lab.json")
        state.select("source", [3, 1, 3])
        state.pin("target", 7)
        state.query = Query(text="東", score=(None, 0.5))
        again = LabState(tmp_path / "lab.json")
        assert again.selection.ids == (3, 1)
        assert again.selection.space == "source"
        assert again.pins == (("target", 7),)
        assert again.query == Query(text="東", score=(None, 0.5))

    @pytest.mark.parametrize("content", ["", "[1]", '{"colour_by": "shoe size", "selection": 3, "source": "qwen2"}'])
    def test_a_damaged_view_does_not_prevent_the_lab_from_opening(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "lab.json").write_text(content)
        state = LabState(tmp_path / "lab.json")
        assert state.colour_by == "origin"
        assert not state.selection

    def test_pinning_twice_removes_the_pin(self) -> None:
        state = LabState()
        state.pin("source", 1)
        state.pin("source", 1)
        assert state.pins == ()


def test_every_origin_has_a_colour_in_tables_and_maps() -> None:
    from tokalign_lab.alignment.lexicon import ORIGINS
    from tokalign_lab.plots.maps import ORIGIN_COLOURS

    css = (Path(__file__).parent.parent / "widgets" / "common" / "css" / "panels.css").read_text()
    assert set(ORIGIN_COLOURS) == set(ORIGINS)
    assert [name for name in ORIGINS if f".tl-origin-{name}" not in css] == []


class TestLexiconView:
    def view(self) -> LexiconView:
        lexicon = make_lexicon()
        return LexiconView(lexicon, Labels(lexicon))

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            (Query("the"), {0, 1}),  # case-insensitive
            (Query("東"), {3}),
            (Query("nai\u0308ve"), {4}),  # decomposed as typed on some keyboards
            (Query("^na", regex=True), {4, 5}),
            (Query("^ive$", regex=True), {6}),
            (Query("", origin="identical"), {0, 1, 2}),
            (Query("the", origin="aligned"), set()),
        ],
    )
    def test_finds(self, query: Query, found: set[int]) -> None:
        assert set(self.view().rows(query).tolist()) == found

    def test_worst_first_begins_with_the_lowest_score_and_ends_with_copies(self) -> None:
        assert self.view().rows(Query(sort="worst"))[:5].tolist() == [7, 6, 5, 4, 3]

    def test_an_invalid_regular_expression_is_refused_in_one_sentence(self) -> None:
        with pytest.raises(InputError, match="not a regular expression"):
            self.view().rows(Query("(", regex=True))

    def test_the_partners_of_a_source_are_all_targets_that_use_it(self) -> None:
        view = self.view()
        assert view.partners("source", np.array([0])).tolist() == [0, 6]
        assert view.partners("target", np.array([6, 1])).tolist() == [0, 1]


class TestLexiconPanel:
    def test_a_row_selects_and_explains(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.table.press(4)
        assert panel.lab_state.selection.ids == (4,)
        assert "Candidates" in panel.why.pair.value
        assert panel.selection["target_token"].tolist() == ["naïve"]

    def test_a_separate_output_row_is_shown_next_to_the_input_row(self) -> None:
        lexicon = make_lexicon()
        panel = LexiconPanel(lexicon)
        panel.table.press(4)
        assert "The new row is mixed from" in panel.why.pair.value
        table = lexicon.table
        table["output_sources"], table["output_weights"] = table["sources"], [np.array([0.25])] * len(table)
        table["output_mean_weight"] = np.float32(0.75)
        panel = LexiconPanel(lexicon)
        panel.table.press(4)
        assert "The new output row is mixed from" in panel.why.pair.value
        assert "mean of all rows" in panel.why.pair.value

    def test_shows_a_selection_made_elsewhere(self) -> None:
        state = LabState()
        panel = LexiconPanel(make_lexicon(), state=state)
        state.select("source", [1])
        assert panel.selection["target_id"].tolist() == [1, 7]
        assert panel.table.chosen == 1
        assert state.selection.space == "source"  # showing it is not choosing it again

    def test_tokens_are_escaped(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.lab_state.select("target", [2])
        assert "&lt;b&gt;" in panel.why.pair.value
        assert "<b>" not in panel.why.pair.value

    def test_pages_and_headings(self) -> None:
        panel = LexiconPanel(make_lexicon([f"w{i}" for i in range(40)]))
        panel.go_to(99)
        assert len(panel.table.rows) == 10
        assert panel.paged.later.disabled
        panel.sort_by("id")
        assert panel.table.rows[0]["key"] == 0
        panel.sort_by("id")
        assert panel.table.rows[0]["key"] == 39

    def test_an_error_is_shown_and_removed(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.filters.regex.value = True
        panel.filters.search.value = "["
        assert "not a regular expression" in panel._error.value
        panel.filters.search.value = "東"
        assert panel._error.value == ""
        assert [row["key"] for row in panel.table.rows] == [3]

    def test_many_rows_send_one_page(self) -> None:
        panel = LexiconPanel(make_lexicon([f"tok{i}" for i in range(30_000)], source_size=5_000))
        panel.filters.search.value = "tok2999"
        assert panel.state["found"] == 11  # 2999, 29990 to 29999
        assert len(json.dumps(panel.table.rows)) < 10_000

    def test_closed_panels_do_not_react(self) -> None:
        state = LabState()
        panel = LexiconPanel(make_lexicon(), state=state)
        panel.close()
        state.select("target", [1])
        assert panel.table.chosen == -1


class TestMaps:
    def panel(self, state: LabState | None = None) -> MapPanel:
        return MapPanel(make_lexicon(), make_vectors(6), make_vectors(8, 1), state=state)

    def test_a_box_on_the_source_map_highlights_partners_on_the_target_map(self, cache: Path) -> None:
        panel = self.panel()
        panel._drawing.maps["source"].selection = np.array([0, 2], dtype=np.uint32)
        assert panel.lab_state.selection.ids == (0, 2)
        # targets 0 and 6 have the source 0, target 2 has the source 2
        assert panel._drawing.maps["target"].selection.tolist() == [0, 2, 6]
        assert panel.selection["target_id"].tolist() == [0, 2, 6]
        assert len(panel.table.rows) == 3

    def test_clearing_highlights_nothing(self, cache: Path) -> None:
        panel = self.panel()
        panel.lab_state.select("target", [1])
        assert panel._drawing.maps["target"].selection.tolist() == [1]
        panel.lab_state.clear_selection()
        assert panel._drawing.maps["target"].selection.tolist() == []
        assert "Nothing is selected" in panel._notes.chosen.value

    @pytest.mark.parametrize("colour_by", ["score", "frequency", "origin"])
    def test_colours(self, cache: Path, colour_by: str) -> None:
        panel = self.panel()
        panel.lab_state.colour_by = colour_by
        assert panel._colour.value == colour_by
        assert f"<th>{colours.WORDS[colour_by]}</th>" in panel._notes.classes.value
        assert panel._error.value == ""

    def test_follows_the_theme(self, cache: Path) -> None:
        panel = self.panel()
        panel._probe.dark = True
        assert panel.lab_state.theme == "dark"
        assert panel._drawing.layer.highlight == "#ffd84d"


def make_run(folder: Path, steps: int, state: str = "finished", settings: int = 40) -> RunFolder:
    run = RunFolder.create(folder, "adapt", {"steps": settings, "model": "x", "text": ["default"]})
    run.emit({"kind": "device", "device": "CPU (2 threads)"})
    run.emit({"kind": "stage", "stage": 1, "step": 0, "steps": 20})
    run.emit({"kind": "evaluation", "step": 0, "bits_per_byte": 1.5})
    add_steps(run, 1, steps)
    run.emit({"kind": "sample", "step": 0, "prompt": "<i>", "text": "<script>alert(1)</script>"})
    run.update(state=state)
    return run


def add_steps(run: RunFolder, first: int, last: int) -> None:
    for step in range(first, last + 1):
        run.emit({"kind": "step", "step": step, "stage": 1, "loss": 5 - step / 100, "tokens_per_second": 500.0})


class TestTraining:
    def test_replays_a_run(self, tmp_path: Path) -> None:
        panel = TrainingPanel(make_run(tmp_path / "run", 12), reference=1.04)
        assert list(panel.figure.data[0].x) == list(range(1, 13))
        assert list(panel.figure.data[2].y) == [1.5]
        assert list(panel.figure.data[-1].y) == [1.04, 1.04]
        assert "finished" in panel._state_line.value
        assert panel.controls.cancel_button.disabled
        assert "&lt;script&gt;" in panel.samples.html
        assert "<script>" not in panel.samples.html
        assert panel.selection["what"].value_counts()[["loss", "bits_per_byte"]].tolist() == [12, 1]

    def test_reading_continues_after_the_last_event(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", 5)
        panel = TrainingPanel(run)
        add_steps(run, 6, 9)
        with open(run.path / "events.jsonl", "a") as file:
            file.write('{"kind": "step", "step": 10, "lo')  # an incomplete line
        panel._poll()
        assert list(panel.figure.data[0].x) == list(range(1, 10))

    def test_a_resumed_run_has_each_step_once(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", 8)
        run.emit({"kind": "resumed", "step": 4})
        add_steps(run, 5, 6)
        assert view_of(run.events()[0], 40).steps == [1, 2, 3, 4, 5, 6]

    def test_a_new_panel_replaces_the_former_one(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", 5, state="queued")
        first = TrainingPanel(run)
        second = TrainingPanel(run)
        assert WATCHER.names().count(f"run:{run.path.resolve()}") == 1
        first.close()
        assert f"run:{run.path.resolve()}" in WATCHER.names()  # the watcher of the second panel
        second.close()
        assert f"run:{run.path.resolve()}" not in WATCHER.names()

    def test_a_failed_run_shows_its_reason(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", 3, state="failed")
        run.update(error="out of <memory>")
        (run.path / "log.txt").write_text("last words\n")
        panel = TrainingPanel(run)
        assert "out of &lt;memory&gt;" in panel._log.value
        assert "last words" in panel._log.value
        assert not panel.controls.resume_button.disabled

    def test_status_shows_time_and_last_event(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", 12)
        view = view_of(run.events()[0], 40)
        words = status_words({"state": "running"}, view, now=(view.last_sign or 0) + 5)
        assert words.startswith("step 12 of 40 · stage 1: embeddings and head · about ")
        assert words.endswith(" · last heartbeat 5 s ago")
        words = status_words({"state": "running"}, view, now=(view.last_sign or 0) + 60)
        assert words == "step 12 of 40 · stage 1: embeddings and head · no heartbeat for 60 s: it may hang, see the log"

    def test_long_curves_are_thinned_with_their_spikes(self) -> None:
        y = np.ones(10_000)
        y[7777] = 9.0
        x, kept = thinned(np.arange(10_000), y)
        assert len(x) <= MOST_CURVE_POINTS
        assert kept.max() == 9.0


class TestCode:
    def test_every_panel_offers_its_code_and_reports_whether_it_was_copied(self) -> None:
        panel = LexiconPanel(make_lexicon())
        copied: list[str] = []
        panel._probe.send = lambda message: copied.append(message["copy"])
        panel.lab_state.select("target", [2])
        panel._copy.click()
        assert copied == [panel.to_code()]
        panel._probe._handle_custom_msg({"copied": True}, [])
        assert "Copied" in panel._code.value
        assert "<details>" in panel._code.value
        panel._probe._handle_custom_msg({"copied": False}, [])
        assert "select the code" in panel._code.value
        assert "<details open>" in panel._code.value

    def test_markup_in_the_view_stays_text(self) -> None:
        panel = LexiconPanel(make_lexicon())
        panel.lab_state.sentence = "<script>alert(1)</script>"
        panel._show_code(copied=False)
        assert "&lt;script&gt;" in panel._code.value
        assert "<script" not in panel._code.value

    def test_a_job_is_shown_again_by_its_code(self, tmp_path: Path) -> None:
        panel = JobPanel(RunFolder.create(tmp_path / "it's a run", "align", {}), "Aligning", "there it is")
        *lines, last = panel.to_code().splitlines()
        names: dict[str, object] = {}
        exec("\n".join([*lines, f"again = {last}"]), names)
        assert names["again"].state == panel.state
        panel.close()


def test_both_parts_of_the_notice_of_a_recorded_run_are_formatted() -> None:
    notice = mark_html("Recorded run: made on 2026-12-01 by `tokalign-lab <x>` on 2 cores. Command: `two`.")
    assert "`" not in notice
    assert "made on 2026-12-01 by <code>tokalign-lab &lt;x&gt;</code> on 2 cores.</summary>" in notice
    assert "Command: <code>two</code>." in notice


class TestTable:
    def test_a_selection_set_by_code_is_not_reported_as_a_click(self) -> None:
        pressed: list[int] = []
        table = RowTable([Column("a", "A", "")], on_row=pressed.append)
        table.chosen = 3
        assert pressed == []
        table._handle_custom_msg({"pressed": "row 5"}, [])
        assert (pressed, table.chosen) == ([5], 5)

    def test_of_two_threads_that_draw_the_newer_values_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        table, drawing, go_on = RowTable([Column("a", "A", "")]), threading.Event(), threading.Event()

        def slowly(_column: Column, value: str) -> str:
            if not drawing.is_set():
                drawing.set()
                go_on.wait(10)
            return f"<td>{value}</td>"

        monkeypatch.setattr("tokalign_lab.widgets.common.table._cell", slowly)
        first = threading.Thread(target=table.show, args=([1], [["x"]]))
        second = threading.Thread(target=table.set_trait, args=("chosen", 1))
        first.start()
        assert drawing.wait(10)
        second.start()
        second.join(0.2)
        go_on.set()
        first.join(10)
        second.join(10)
        assert 'aria-selected="true"' in table.html

    def test_cells_are_escaped_and_a_missing_token_has_no_frame(self) -> None:
        heads: list[str] = []
        columns = [Column("a", "<A>", "<help>", sortable=True), Column("b", "B", "", True, kind="token")]
        table = RowTable(columns, caption="<caption>")
        table.on_heading = heads.append
        table._handle_custom_msg({"pressed": "heading a"}, [])
        table.sort, table.chosen = ["a", "down"], 2
        table.show([1, 2], [["<b>", ""], ["x", "<i>"]])
        assert heads == ["a"]
        assert "&lt;A&gt; ▼" in table.html
        assert 'aria-sort="descending"' in table.html
        assert '<td>&lt;b&gt;</td><td class="tl-number">–</td>' in table.html
        assert '"row 2" aria-selected="true"><td>x</td><td class="tl-number"><span class="tl-token">&lt;i' in table.html
        assert not [tag for tag in ("<A>", "<b>", "<i>", "<help>", "<caption><") if tag in table.html]

    def test_pages_end_where_the_rows_end(self) -> None:
        drawn: list[list[int]] = []
        pages = Pages(RowTable([]), 4, lambda rows: drawn.append(list(rows)), lambda a, b, n: f"{a} to {b} of {n}")
        pages.show(range(10), page=99)
        assert (drawn[-1], pages.page, pages.later.disabled) == ([8, 9], 2, True)
        assert "9 to 10 of 10" in pages.where.value
        pages.earlier.click()
        assert drawn[-1] == [4, 5, 6, 7]
        pages.show([])
        assert (drawn[-1], pages.earlier.disabled, pages.later.disabled) == ([], True, True)


class TestPart:
    def test_values_set_by_code_are_not_reported_but_concurrent_choices_are(self) -> None:
        part, heard = Box(), []
        field = part.entry("Name", heard.append, tooltip="A name")
        with part.quiet():
            field.value = "by code"
            thread = threading.Thread(target=lambda: setattr(field, "value", "by a person"))
            thread.start()
            thread.join()
        assert heard == ["by a person"]

    def test_an_error_deep_inside_is_shown_in_the_panel(self) -> None:
        part, panel = Box(), Panel("p", "tl-p", None)
        press = part.button("Divide", lambda: 1 / 0, "Fail")
        with pytest.raises(ZeroDivisionError):
            part.guarded(lambda: 1 / 0)()  # without a panel, the exception must reach the caller
        panel._fill([Box([Box([part])])], bar())
        press.click()
        assert "ZeroDivisionError" in panel._error.value

    def test_only_the_newest_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        panel, shown = Panel("p", "tl-p", None), []
        panel.newest(lambda wanted: panel.newest(lambda _: "new", shown.append) or "old", shown.append)
        panel.newest(lambda wanted: panel.newest(lambda _: "two", shown.append, about="b") or "one", shown.append)
        panel.newest(lambda wanted: panel.drop(), shown.append)
        assert shown == ["new", "two", "one"]

    def test_a_later_request_replaces_one_that_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        waiting: list = []
        monkeypatch.setattr(background, "_inline", False)
        monkeypatch.setattr(background, "later", lambda *call: waiting.append(call))
        panel, shown, done = Panel("p", "tl-p", None), [], []
        for answer in ("old", "new"):
            panel.newest(lambda wanted, answer=answer: done.append(answer) or answer, shown.append, after_s=0.5)
        for work, seconds in waiting:
            assert seconds == 0.5
            work()
        assert shown == done == ["new"]

    def test_following_ends_with_the_panel_and_errors_are_shown(self) -> None:
        panel = Panel("p", "tl-p", None)
        panel.follow("test:one", lambda: True)
        assert "test:one" in WATCHER.names()
        panel.follow("test:two", lambda: 1 / 0 > 0)
        assert "ZeroDivisionError" in panel._error.value
        assert "test:two" not in WATCHER.names()
        panel.close()
        assert "test:one" not in WATCHER.names()


class TestWatcher:
    def test_one_thread_polls_only_the_last_watcher_of_a_name(self) -> None:
        watcher, seen, called, replaced = Watcher(tick_s=0.01), [], threading.Event(), threading.Event()

        def old() -> bool:
            seen.append("old")
            called.set()
            return replaced.wait(60)

        watcher.watch("a", old)
        assert called.wait(60)
        watcher.watch("a", lambda: bool(seen.append("new")))  # returns False, so it is called once
        replaced.set()
        deadline = time.monotonic() + 60
        while watcher.names() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert seen == ["old", "new"]


class TestPair:
    def test_blocks_end_at_common_token_boundaries(self) -> None:
        blocks = shared_blocks([[(1, 0, 2), (2, 2, 5)], [(7, 0, 0), (8, 0, 2), (9, 2, 4), (10, 4, 5)]])
        assert [list(map(len, block)) for block in blocks] == [[1, 2], [1, 2]]

    def test_typed_markup_stays_text(self, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
        html = cut_html([smollm_vocabulary, sp32k_vocabulary], "<script>alert('x')</script> 東京 👩‍🚀\n\t")
        assert "<script" not in html
        assert "tl-alone" in html

    @pytest.mark.parametrize("text", ["", " ", "\x00", "a" * 5000, "\ufeff", "مرحبا"])
    def test_any_text_can_be_shown(
        self, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary, text: str
    ) -> None:
        html = cut_html([smollm_vocabulary, sp32k_vocabulary], text)
        assert ("Only the first" in html) == (len(text) > 600)

    def test_the_card_and_an_unknown_name(
        self, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load(name: str) -> Vocabulary:
            known = {"smollm2-135m": smollm_vocabulary, "sp32k": sp32k_vocabulary}
            if name not in known:
                raise InputError(f"'{name}' is <no> tokenizer.")
            return known[name]

        monkeypatch.setattr(picker_module, "vocabulary_of", load)
        picker = PairPicker("smollm2-135m", "sp32k")
        assert "49,152" in picker._card.value
        assert "68\u00a0%" in picker._card.value
        picker._choices["target"].value = "nonsense"
        assert "is &lt;no&gt; tokenizer" in picker._error.value
        picker._choices["target"].value = "sp32k"
        assert picker._error.value == ""
        picker.swap()
        assert "Source: sp32k" in picker._card.value


def test_the_first_panel_loads_the_modules_of_live_figures(tmp_path: Path) -> None:
    code = f"""
import sys, time
from tokalign_lab.widgets import Lab, lab

lab.WARM_UP_S = 0.1
made = Lab(runs={str(tmp_path)!r})
needed = {{"jscatter", "plotly.graph_objs._figurewidget"}}
print({{"torch", *needed}}.isdisjoint(sys.modules))
made.runs_panel()
deadline = time.monotonic() + 60
while not hasattr(sys.modules.get("jscatter"), "Scatter") and time.monotonic() < deadline:
    time.sleep(0.05)
print(needed <= set(sys.modules))
"""
    message = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert message.split() == ["True", "True"]


def controls_of(widget: object) -> Iterator[Widget]:
    if isinstance(widget, Button | ValueWidget) and not isinstance(widget, HTML | FloatProgress):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from controls_of(child)


class TestHierarchy:
    """A panel shows one sentence and at most four numbers, each with a tooltip; all other sections are closed."""

    @pytest.fixture(scope="class")
    def panels(self, tmp_path_factory: pytest.TempPathFactory) -> list[Panel]:
        folder = tmp_path_factory.mktemp("hierarchy")
        with inline():
            run = make_run(folder / "run", 12)
            settings = {"source": "s", "target": "t", "text": ["default"]}
            aligned = RunFolder.create(folder / "align", "align", settings)
            write_json(aligned.path / "scores.json", {"held_out": {"p_at_1": 0.9, "p_at_10": 1.0}})
            lexicon = LexiconPanel(make_lexicon(), run=aligned)
            return [lexicon, TrainingPanel(run, reference=1.04), RunsPanel(folder), PairPicker("", "")]

    def test_every_control_has_a_tooltip(self, panels: list[Panel]) -> None:
        bare = [
            f"{type(panel).__name__}: {getattr(one, 'description', one)}"
            for panel in panels
            for one in controls_of(panel)
            if not one.tooltip
        ]
        assert bare == []

    def test_a_verdict_and_at_most_four_numbers_with_their_meaning(self, panels: list[Panel]) -> None:
        for panel in panels:
            head = panel._head.value
            assert head.count('class="tl-verdict') == 1
            assert head.count('class="tl-card"') == head.count('class="tl-card" title="') <= 4
        assert "P@1, held-out shared tokens" in panels[0]._head.value

    def test_secondary_sections_are_closed_and_can_be_opened(self, panels: list[Panel]) -> None:
        folds = panels[0].folds
        assert not any(folds.is_open(name) for name in folds.bodies)
        folds.buttons["Edit"].click()
        assert folds.is_open("Edit")
        folds.buttons["Edit"].click()
        assert not folds.is_open("Edit")

    def test_every_number_has_a_tooltip(self) -> None:
        assert [key for key, one in MEANINGS.items() if not one.what or one.what.endswith(".")] == []

    def test_every_number_with_a_better_direction_has_a_typical_value(self) -> None:
        assert [key for key, one in MEANINGS.items() if HIGHER in one.better and not one.typical] == []
        assert [key for key, one in MEANINGS.items() if LOWER in one.better and not one.typical] == []
