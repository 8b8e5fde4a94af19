"""The embedding maps without a browser: points, positions, colours, and the messages from and to the page.

The lexicons and vectors here are artificial, so no test in this file checks quality.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from ipywidgets import VBox, Widget
from test_widgets import make_lexicon, make_vectors

from tokalign_lab.alignment.search.neighbourhoods import Neighbourhoods, around_pair
from tokalign_lab.errors import InputError
from tokalign_lab.projection import project, rotated_onto, share_a_space
from tokalign_lab.runs.control import runs_root
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.folding import RunView
from tokalign_lab.vectors.token_vectors import TokenVectors, unit_rows
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets import LabState, MapPanel
from tokalign_lab.widgets.common import panel as panel_module
from tokalign_lab.widgets.common.background import inline, later
from tokalign_lab.widgets.common.panel import Panel
from tokalign_lab.widgets.common.part import bar
from tokalign_lab.widgets.common.state import COLOURINGS, Query
from tokalign_lab.widgets.lexicon.view import Labels, LexiconView
from tokalign_lab.widgets.maps import colours
from tokalign_lab.widgets.maps import panel as map_panel
from tokalign_lab.widgets.maps.colours import NO_NUMBER, Colouring
from tokalign_lab.widgets.maps.figure import BACKGROUND, HIGHLIGHT, MOST_LINES, SIGNS, WHOLE
from tokalign_lab.widgets.maps.layout_job import job_words
from tokalign_lab.widgets.maps.view import EDGE, MapView
from tokalign_lab.widgets.maps.words import MapWords

MESSAGE_BYTES = 1_000_000
WORDS = ["the", "THE", "<script>alert(1)</script>", "東京", "naïve", "na", "ive", "zebra"]


@pytest.fixture(autouse=True)
def _at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(map_panel, "SETTLED_S", 0.0)
    with inline():
        yield


def make_panel(state: LabState | None = None, n: int = 8, sources: int = 6, **settings: Any) -> MapPanel:
    """Make maps of a lexicon whose target i has the source i % sources."""
    words = WORDS if n == len(WORDS) else [f"w{i}" for i in range(n)]
    lexicon = make_lexicon(words, sources)
    return MapPanel(lexicon, make_vectors(sources), make_vectors(n, 1), state=state, **settings)


def make_colouring(n: int = 8, sources: int = 6) -> tuple[Colouring, dict[str, TokenVectors]]:
    lexicon = make_lexicon(WORDS if n == len(WORDS) else [f"w{i}" for i in range(n)], sources)
    vectors = {"source": make_vectors(sources), "target": make_vectors(n, 1)}
    view = LexiconView(lexicon, Labels(lexicon))
    return Colouring(view, vectors), vectors


def box(panel: MapPanel, space: str, points: list[int]) -> None:
    """Simulate a box around these points."""
    panel._drawing.maps[space].selection = np.array(points, dtype=np.uint32)


def hover(panel: MapPanel, space: str, point: int | None) -> None:
    panel._drawing.maps[space].hovering = point


def look_at(panel: MapPanel, **views: list[float]) -> None:
    """Simulate panning or zooming a map."""
    panel._drawing.layer.views = panel._drawing.layer.views | views


def press(panel: MapPanel, name: str) -> None:
    (button,) = [child for child in panel._controls.children if getattr(child, "description", "") == name]
    button.click()


def highlighted(panel: MapPanel) -> dict[str, list[int]]:
    return {space: plot.selection.tolist() for space, plot in panel._drawing.maps.items()}


def signs(panel: MapPanel, kind: str) -> list[int]:
    """Return the points of the target map that have this sign."""
    return [point for point, sign in panel._drawing.layer.signs["target"] if sign == SIGNS[kind]]


class TestPlaces:
    def make(self, n: int = 400, shared: bool = True) -> MapView:
        lexicon = make_lexicon([f"w{i}" for i in range(n)], 100)
        vectors = make_vectors(100), make_vectors(n, 1)
        view = MapView(LexiconView(lexicon, Labels(lexicon)), *vectors)
        view.place(*project(vectors, "pca", shared=shared), shared=shared)
        return view

    @pytest.mark.parametrize("shared", [True, False])
    def test_every_token_with_a_vector_has_a_position_on_its_map(self, shared: bool) -> None:
        view = self.make(shared=shared)
        assert {space: xy.shape for space, xy in view.xy.items()} == {"source": (100, 2), "target": (400, 2)}
        together = [np.concatenate(list(view.xy.values()))] if shared else list(view.xy.values())
        for xy in together:
            assert xy.dtype == np.float32
            assert xy.min(axis=0) == pytest.approx([-EDGE, -EDGE])
            assert xy.max(axis=0) == pytest.approx([EDGE, EDGE])

    def test_points_are_rows_of_the_vectors(self) -> None:
        some = TokenVectors(np.array([3, 5, 9]), np.eye(3, dtype=np.float32), np.ones(3), "")
        lexicon = make_lexicon([f"w{i}" for i in range(10)], 10)
        view = MapView(LexiconView(lexicon, Labels(lexicon)), some, make_vectors(10, 1))
        assert view.points_of("source", np.array([9, 4, 3, 9])).tolist() == [0, 2]
        assert view.lines(np.array([[5, 7], [4, 1]])).tolist() == [[1, 7]]


class TestColours:
    @pytest.mark.parametrize("by", COLOURINGS)
    def test_every_token_is_counted_in_one_class(self, by: str) -> None:
        colouring, vectors = make_colouring()
        for part in colouring.unmeasured(by):
            colouring.measure(part)
        shades = colouring.shades(by)
        for space, some in vectors.items():
            assert len(shades.codes[space]) == len(some) == sum(shades.counts[space])
            assert shades.codes[space].dtype == np.uint8
            assert shades.codes[space].max() < len(shades.palette)
            named = np.array([shades.palette.index(colour) for _, colour in shades.classes])
            if by in ("origin", "script"):
                assert [named.tolist().count(i) for i in range(len(named))] == [1] * len(named)

    def test_scripts_by_name_and_all_others_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        colouring, _ = make_colouring()
        shades = colouring.shades("script")
        assert [name for name, _ in shades.classes] == ["Latin", "Han"]
        assert shades.counts == {"source": [6, 0], "target": [7, 1]}
        monkeypatch.setattr(colours, "PALETTE", ("#3a8fd0",))
        shades = colouring.shades("script")
        assert shades.classes == [("Latin", "#3a8fd0"), ("other scripts", colours.NO_VALUE)]
        assert shades.codes["target"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]

    def test_hubness_is_the_number_of_targets_of_a_source(self) -> None:
        colouring, _ = make_colouring()
        assert colouring.values("hubness", "source", np.array([0, 1, 2])).tolist() == [2, 2, 1]  # 0 and 6, 1 and 7
        assert colouring.values("hubness", "target", np.array([6, 2])).tolist() == [2, 1]

    def test_a_source_shows_the_figures_of_its_best_target(self) -> None:
        colouring, _ = make_colouring()
        assert colouring.best_target.tolist() == [0, 1, 2, 3, 4, 5]
        assert colouring.values("margin", "source", np.array([1])) == colouring.values(
            "margin", "target", np.array([1])
        )

    def test_a_missing_value_is_shown_in_colour_and_words(self) -> None:
        colouring, _ = make_colouring()
        shades = colouring.shades("neighbours")
        assert shades.classes[-1] == (NO_NUMBER, shades.palette[0])
        assert shades.counts["target"][-1] == 8  # not measured yet
        assert not shades.codes["target"].any()

    def test_the_overlap_is_computed_for_the_most_frequent_tokens(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(colours, "MEASURED", 3)
        colouring, _ = make_colouring()
        (part,) = colouring.unmeasured("neighbours")
        assert part.tolist() == [7, 6, 5]  # counts increase with the id
        colouring.measure(part)
        assert colouring.unmeasured("neighbours") == []
        assert colouring.unmeasured("score") == []


class TestNeighbourhoods:
    def test_overlap_is_what_a_plain_loop_counts(self) -> None:
        rng = np.random.default_rng(0)
        source = TokenVectors(np.arange(40), rng.normal(size=(40, 8)), np.arange(40) + 1, "")
        target = TokenVectors(np.arange(2, 52), rng.normal(size=(50, 8)), np.arange(50) + 1, "")
        source_of = rng.integers(-1, 45, size=52)
        found = Neighbourhoods(source, target, source_of, k=5).overlap(np.arange(52))

        def near(vectors: TokenVectors, i: int) -> list[int]:
            unit = unit_rows(vectors.rows).astype(np.float64)
            cosines = unit @ unit[vectors.positions_of(np.array([i]))[0]]
            return [int(vectors.ids[p]) for p in np.argsort(-cosines, kind="stable") if vectors.ids[p] != i][:5]

        for i in range(52):
            partner = int(source_of[i])
            if i < 2 or not 0 <= partner < 40:
                assert np.isnan(found[i])
            else:
                theirs = near(source, partner)
                assert found[i] == pytest.approx(np.mean([source_of[n] in theirs for n in near(target, i)]))

    def test_a_space_and_its_copy_agree_in_everything(self) -> None:
        vectors = make_vectors(60)
        known = Neighbourhoods(vectors, vectors, np.arange(60))
        assert known.overlap(np.arange(60)).tolist() == [1.0] * 60
        near = around_pair(known.spaces, {"source": 7, "target": 7}, np.arange(60))
        assert near["source"] == near["target"]
        assert all(one.matched and one.id != 7 for one in near["source"])

    def test_tokens_with_the_same_source_do_not_count_as_matches_of_each_other(self) -> None:
        vectors = make_vectors(60)
        assert Neighbourhoods(vectors, vectors, np.full(60, 4)).overlap(np.arange(60)).max() == 0.0

    def test_a_token_without_a_vector_has_no_neighbours(self) -> None:
        vectors = make_vectors(20)
        known = Neighbourhoods(vectors, vectors, np.arange(20))
        found = around_pair(known.spaces, {"source": -1, "target": 99}, np.arange(20))
        assert found == {"source": [], "target": []}


class TestWords:
    def test_hover_and_card_show_everything(self, smollm_vocabulary: Vocabulary, sp32k_vocabulary: Vocabulary) -> None:
        lexicon = make_lexicon([f"w{i}" for i in range(400)], 300)
        view = LexiconView(lexicon, Labels(lexicon))
        view.labels.vocabularies = {"source": smollm_vocabulary, "target": sp32k_vocabulary}
        vectors = {"source": make_vectors(300), "target": make_vectors(400, 1)}
        words = MapWords(view, Colouring(view, vectors))
        token = 350
        hover = words.hover("target", token)
        label, source = escape(sp32k_vocabulary.label(token)), escape(smollm_vocabulary.label(50))
        for told in (label, "id 350", f"← {source}", "aligned, score", "margin", "times in the text", "bytes "):
            assert told in hover
        card = words.card("target", token)
        for told in (
            "350",
            "bytes",
            "script",
            "times in the text",
            "row built from",
            "origin",
            "score, margin",
            "hubness",
        ):
            assert told in card
        assert "partner of" in words.card("source", 50)

    def test_a_token_too_rare_for_a_vector_has_the_lexicons_count(self) -> None:
        lexicon = make_lexicon([f"w{i}" for i in range(40)], 30)
        lexicon.table.loc[35, ["target_count", "source_count"]] = 4, 7
        view = LexiconView(lexicon, Labels(lexicon))
        vectors = {"source": make_vectors(30), "target": make_vectors(20, 1)}
        colouring = Colouring(view, vectors)
        assert colouring.values("frequency", "target", np.array([35])).tolist() == [4]
        source_id = int(lexicon.table.loc[35, "source_id"])
        known = vectors["source"].counts[vectors["source"].positions_of([source_id])[0]]
        assert colouring.values("frequency", "source", np.array([source_id])).tolist() == [known]

    def test_tokens_are_escaped_everywhere(self) -> None:
        panel = make_panel()
        panel.lab_state.select("target", [2])
        hover(panel, "target", 2)
        shown = [panel._drawing.layer.pointer["text"], panel._notes.card.value, panel.neighbours._heading.value]
        assert any("&lt;script&gt;" in text for text in shown)
        assert [text for text in shown if "<script" in text] == []


class TestPanel:
    def test_lines_are_drawn_for_pairs_in_view(self) -> None:
        panel = make_panel(shared=False)
        panel.lab_state.select("target", [1])
        assert len(panel._drawing.layer.lines) == 1
        x, y = panel._map.xy["target"][1].tolist()
        look_at(panel, target=[x + 1, y, 0.1])
        assert panel._drawing.layer.lines == []
        look_at(panel, target=[x, y, 0.1])
        assert len(panel._drawing.layer.lines) == 1

    def test_displaying_the_panel_does_not_copy_its_figure(self) -> None:
        panel, outer = make_panel(), Panel("tabs", "tl-tabs", None)
        outer._fill([VBox([panel])], bar())
        for shown in (panel, outer):
            assert shown._repr_mimebundle_()["text/plain"] == repr(shown)
        assert repr(panel) == "<MapPanel: Embedding maps>"

    def test_the_figure_is_closed_seconds_after_its_panel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[Callable[[], None], float]] = []
        monkeypatch.setattr(panel_module, "later", lambda *given: asked.append(given))
        panel = make_panel()
        table, parts = panel.table, [*panel._drawing.maps.values(), panel._drawing.layer]
        panel.close()
        assert (table.comm, panel.comm) == (None, None)
        assert None not in [part.comm for part in parts]  # the page may still be drawing
        ((close, seconds),) = asked
        assert seconds == panel_module.FIGURE_S
        later(close, 0.01)
        deadline = time.monotonic() + 60
        while panel.figure.comm is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert {part.comm for part in [*parts, panel.figure]} == {None}

    @pytest.mark.parametrize("around", ["", "outer = Panel('tabs', 'tl-tabs', None)\nouter._fill([panel], bar())\n"])
    def test_a_process_ends_with_a_panel_open(self, around: str) -> None:
        code = f"from test_widgets_maps import Panel, bar, make_panel\npanel = make_panel()\n{around}print('made')"
        message = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
        )
        assert (message.returncode, message.stdout) == (0, "made\n")

    def test_a_box_highlights_partners_and_joins_them_by_lines(self) -> None:
        panel = make_panel()
        box(panel, "source", [2, 0])
        assert panel.lab_state.selection.by == "maps"
        assert panel.lab_state.selection.ids == (2, 0)
        assert highlighted(panel) == {"source": [2, 0], "target": [0, 2, 6]}  # 0 and 6 inherit from source 0
        assert panel._drawing.layer.lines == [[0, 0], [2, 2], [0, 6]]
        assert panel._drawing.layer.names["target"] == [[0, "the"], [2, "<script>alert(1)</script>"], [6, "ive"]]
        assert "3 pairs" in panel._notes.chosen.value
        panel.lab_state.clear_selection()
        assert highlighted(panel) == {"source": [], "target": []}
        assert panel._drawing.layer.lines == panel._drawing.layer.names["target"] == []

    def test_a_selection_that_the_page_clears_is_cleared_on_both_maps(self) -> None:
        panel = make_panel()
        box(panel, "source", [0])
        box(panel, "target", [])
        assert not panel.lab_state.selection
        assert highlighted(panel) == {"source": [], "target": []}

    def test_lines_and_names_are_of_no_more_tokens_than_can_be_read(self) -> None:
        panel = make_panel(n=400, sources=300)
        plots = panel._drawing.maps.values()
        before = [dict(plot.regl_scatterplot_options) for plot in plots]
        panel.lab_state.select("target", range(400))
        assert [plot.regl_scatterplot_options for plot in plots] == before  # else the page would draw the maps twice
        assert len(panel._drawing.layer.lines) == MOST_LINES
        assert panel._drawing.layer.names == {"source": [], "target": []}
        assert f"Lines join {MOST_LINES} of 400 pairs" in panel._notes.chosen.value

    def test_a_shared_layout_has_one_view(self) -> None:
        linked, apart = make_panel(), make_panel(shared=False)
        (frame,) = {plot.view_sync for plot in linked._drawing.maps.values()}
        assert frame
        assert {plot.view_sync for plot in apart._drawing.maps.values()} == {None}
        assert linked._drawing.layer.views == {"source": list(WHOLE), "target": list(WHOLE)}

    def test_a_button_shows_the_whole_maps_again(self) -> None:
        panel = make_panel()
        look_at(panel, source=[0.1, 0.2, 0.5])
        assert panel.state["views"] is not None
        press(panel, "Whole maps")
        assert panel._drawing.layer.views == {"source": list(WHOLE), "target": list(WHOLE)}
        assert panel.state["views"] is None

    def test_found_pinned_and_worst_tokens_have_signs(self) -> None:
        state = LabState()
        panel = make_panel(state, n=400, sources=300)
        state.pin("target", 3)
        state.query = Query(text="w11")
        assert signs(panel, "pinned") == [3]
        assert signs(panel, "found") == [11, *range(110, 120)]
        panel._worst.value = True
        assert signs(panel, "worst") == list(range(350, 400))  # scores decrease with the id
        assert "found (" in panel._notes.legend.value
        state.query = Query()
        assert signs(panel, "found") == []

    def test_the_worst_are_those_of_the_lowest_score_not_those_without_one(self) -> None:
        lexicon = make_lexicon([f"w{i}" for i in range(400)], 300)
        lexicon.table.loc[200:, "score"] = np.nan
        panel = MapPanel(lexicon, make_vectors(300), make_vectors(400, 1), worst=True)
        assert set(panel._marked["worst"]["target"].tolist()) == set(range(150, 200))

    def test_the_search_is_shared_with_the_lab(self) -> None:
        panel = make_panel()
        panel._search.value = "東"
        assert panel.lab_state.query.text == "東"
        panel.lab_state.query = Query(text="(", regex=True)
        assert "not a regular expression" in panel._error.value
        assert panel._search.value == "("
        panel.lab_state.query = Query()
        assert panel._error.value == ""

    def test_an_invalid_search_does_not_prevent_the_panel_from_opening(self) -> None:
        panel = make_panel(LabState(query=Query(text="(", regex=True)))
        assert "not a regular expression" in panel._error.value
        assert len(panel._drawing.maps["target"].points) == 8

    @pytest.mark.parametrize("by", COLOURINGS)
    def test_all_colourings(self, by: str) -> None:
        panel = make_panel()
        panel.lab_state.colour_by = by
        assert panel._error.value == ""
        shades = panel._drawing.shades
        assert panel._drawing._codes == {space: codes.tobytes() for space, codes in shades.codes.items()}
        for plot in panel._drawing.maps.values():
            assert len(plot.color) == len(plot.color_selected) == len(plot.color_hover) == len(shades.palette)
        assert panel._notes.classes.value.count("<tr>") == len(shades.classes) + 2

    def test_new_colours_are_sent_as_one_byte_per_point(self) -> None:
        panel = make_panel()
        assert panel._drawing.layer.codes == {}
        panel.lab_state.colour_by = "script"
        assert list(panel._drawing.layer.codes["target"]) == [0, 0, 0, 1, 0, 0, 0, 0]
        panel.lab_state.colour_by = "origin"
        first = panel._drawing.maps["target"].points[:, 2].tolist()
        assert list(panel._drawing.layer.codes["target"]) == first == [0, 0, 0, 1, 1, 1, 1, 1]

    def test_neighbours_of_the_primary_token_in_both_spaces(self) -> None:
        vectors = make_vectors(30)
        panel = MapPanel(make_lexicon([f"w{i}" for i in range(30)], 30), vectors, vectors)
        panel.lab_state.select("source", [4])
        for space in ("source", "target"):
            table = panel.neighbours.tables[space]
            assert len(table.rows) == 10
            assert {row["cells"][3] for row in table.rows} == {"yes"}  # both spaces are equal
            assert f"{space} space" in table.caption.lower()
        chosen = panel.neighbours.tables["target"].rows[0]["key"]
        panel.neighbours.tables["target"].press(chosen)
        assert (panel.lab_state.selection.space, panel.lab_state.selection.ids) == ("target", (chosen,))

    def test_a_partner_without_a_vector_has_no_neighbours_to_compare(self) -> None:
        few = TokenVectors(np.arange(5, 30), make_vectors(25, 1).rows, np.ones(25), "", {"method": "anchored"})
        panel = MapPanel(make_lexicon([f"w{i}" for i in range(30)], 30), make_vectors(30), few)
        panel.lab_state.select("source", [2])
        assert {row["cells"][3] for row in panel.neighbours.tables["source"].rows} == {"–"}
        assert panel.neighbours.tables["target"].rows == []
        assert "no vector" in panel.neighbours.tables["target"].caption

    def test_hovering_shows_a_text_at_the_pointer_and_in_the_card(self) -> None:
        panel = make_panel()
        hover(panel, "target", 3)
        assert "東京" in panel._notes.card.value
        assert "東京" in panel._drawing.layer.pointer["text"]
        assert (panel._drawing.layer.pointer["space"], panel._drawing.layer.pointer["index"]) == ("target", 3)
        hover(panel, "target", None)
        assert panel._drawing.layer.pointer == {}
        assert "東京" in panel._notes.card.value

    def test_follows_the_theme(self) -> None:
        panel = make_panel()
        panel.lab_state.colour_by = "score"
        light = panel._drawing.maps["source"].color
        panel._probe.dark = True
        plot = panel._drawing.maps["source"]
        assert plot.background_color == BACKGROUND["dark"]
        assert panel._drawing.layer.highlight == HIGHLIGHT["dark"]
        assert plot.color != light
        assert panel._error.value == ""

    def test_closed_panels_do_not_react(self) -> None:
        state = LabState()
        panel = make_panel(state)
        shades = panel._drawing.shades
        panel.close()
        state.select("target", [1])
        state.colour_by = "score"
        state.query = Query(text="w")
        assert highlighted(panel) == {"source": [], "target": []}
        assert panel._drawing.shades is shades
        panel.close()  # closing twice is allowed

    def test_the_copied_code_shows_the_same_view(self) -> None:
        state = LabState(colour_by="hubness")
        panel = make_panel(state, n=40, sources=30, shared=False, worst=True)
        state.select("target", [3, 4])
        look_at(panel, target=[0.25, -0.5, 0.3])
        names = {
            "lexicon": panel.view.lexicon, "source_vectors": make_vectors(30), "target_vectors": make_vectors(40, 1),
        }  # fmt: skip
        *before, call = panel.to_code().splitlines()
        exec("\n".join(before), names)
        again = eval(call, names)
        assert again.state == panel.state
        assert np.array_equal(again._drawing.maps["target"].points, panel._drawing.maps["target"].points)
        assert again._drawing.layer.views == {"source": list(WHOLE), "target": [0.25, -0.5, 0.3]}

    def test_the_view_is_stored_on_disk(self, tmp_path: Path) -> None:
        panel = make_panel(LabState(tmp_path / "lab.json"), n=40, sources=30, shared=False)
        panel._worst.value = True
        look_at(panel, target=[0.25, -0.5, 0.3])
        again = LabState(tmp_path / "lab.json")
        opened = make_panel(again, n=40, sources=30, **again.looks["maps"])
        assert opened.state["views"] == panel.state["views"] is not None
        assert opened.state["worst"] is True


class TestJob:
    def test_umap_runs_in_a_separate_process_and_is_cached(self) -> None:
        panel = make_panel(n=90, sources=60)
        path = panel._job._path("umap", True)
        project([make_vectors(60), make_vectors(90, 1)], "umap", shared=True)
        assert path.is_dir()  # the panel and the engine use the same layout
        look_at(panel, source=[0.1, 0.2, 0.5])
        panel.lay_out("umap")
        assert panel.state["method"] == "umap"
        sent = np.frombuffer(panel._drawing.layer.places["target"], dtype=np.float32).reshape(-1, 2)
        assert np.array_equal(sent, panel._map.xy["target"])
        assert not np.allclose(sent, panel._drawing.maps["target"].points[:, :2])
        assert panel._drawing.layer.views["source"] == list(WHOLE)  # the view of one layout does not fit another
        assert panel._methods["umap"].disabled

    def test_progress_comes_from_umap_s_own_epochs(self) -> None:
        told: list[tuple[float, str]] = []
        project([make_vectors(60)], "umap", progress=lambda share, message: told.append((share, message)))
        shares = [share for share, _ in told]
        assert shares == sorted(shares)
        assert any("epoch" in message for _, message in told)

    def test_cancel_ends_a_running_job_and_hides_the_line(self) -> None:
        panel = make_panel(n=3000, sources=2000, fit_on=5000)
        panel.lay_out("umap")
        assert panel._job.layout.display == ""
        panel._job.job.children[0]._cancel.click()
        deadline = time.monotonic() + 120
        while panel._job.layout.display == "" and time.monotonic() < deadline:
            time.sleep(0.1)
        (run,) = [RunFolder(file.parent) for file in runs_root().glob("*/run.json")]
        assert run.state == "cancelled"
        assert panel._job.layout.display == "none"
        assert panel._error.value == ""
        assert panel.state["method"] == "pca"

    def test_the_remaining_time_is_shown(self) -> None:
        told = [{"share": 0.0, "message": "UMAP", "time": 100.0}, {"share": 0.5, "message": "epoch 5", "time": 110.0}]
        assert job_words(told, 120.0) == "epoch 5, about 20 s left"
        assert job_words([], 0.0) == "starting"
        view = RunView("a map")
        for second in range(5):
            event = {"share": second / 8, "message": f"epoch {second}", "time": 100.0 + second}
            view.add([{"kind": "progress", **event}])
        assert len(view.progress) == 2, "a run that reports for hours does not fill the memory"
        assert job_words(view.progress, 108.0) == "epoch 4, about 8 s left"


def test_vectors_in_one_space_are_recognised_by_their_provenance() -> None:
    def of(**provenance: Any) -> TokenVectors:
        return TokenVectors(np.arange(4), np.eye(4), np.ones(4), "", provenance)

    assert share_a_space(of(method="relative"), of(method="relative"))
    assert share_a_space(of(method="glove", mapping="unsupervised"), of(method="glove", mapping="unsupervised"))
    assert not share_a_space(of(method="glove"), of(method="glove"))
    assert not share_a_space(of(method="anchored"), of(method="relative"))


def _bytes_of(message: dict[str, Any], buffers: Any) -> int:
    text = json.dumps(message, default=str, ensure_ascii=False)  # as Jupyter writes it
    return len(text.encode()) + sum(memoryview(b).nbytes for b in buffers or ())


def test_messages_for_a_quarter_of_a_million_tokens_are_under_a_megabyte(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After opening the maps, only a new layout or a box around all tokens sends a larger message."""
    n, sources = 262_144, 49_152
    rng = np.random.default_rng(0)
    lexicon = make_lexicon([f"token{i}" for i in range(n)], sources)
    vectors = [
        TokenVectors(np.arange(m), rng.normal(size=(m, 32)).astype(np.float32), rng.permutation(m) + 1, "",
                     {"method": "anchored"})
        for m in (sources, n)
    ]  # fmt: skip
    began = time.perf_counter()
    panel = MapPanel(lexicon, *vectors)
    created = time.perf_counter() - began
    sent: list[int] = []
    send = Widget._send

    def counted(self: Widget, msg: dict[str, Any], buffers: Any = None) -> None:
        sent.append(_bytes_of(msg, buffers))
        send(self, msg, buffers)

    monkeypatch.setattr(Widget, "_send", counted)
    assert [len(plot.points) for plot in panel._drawing.maps.values()] == [sources, n]
    panel.lab_state.colour_by = "frequency"
    look_at(panel, source=[0.1, 0.2, 0.5])
    panel.refresh()
    box(panel, "target", list(range(20_000)))
    assert panel._error.value == ""
    assert len(panel.lab_state.selection.ids) == 20_000
    with capsys.disabled():
        print(f"\n  opened in {created:.1f} s; {len(sent)} messages, the largest {max(sent):,} bytes")
    assert max(sent) > 100_000  # they were counted
    assert max(sent) < MESSAGE_BYTES


class TestProjection:
    def test_layouts_are_cached_by_content(self, tmp_path: Path) -> None:
        vectors = [make_vectors(20), make_vectors(30, 1)]
        first = project(vectors, "pca", shared=True)
        files = list((tmp_path / "cache" / "projections").glob("*/*.npz"))
        second = project(vectors, "pca", shared=True)
        assert len(files) == 1
        assert np.array_equal(first[1].xy, second[1].xy)
        assert first[0].xy.shape == (20, 2)
        assert first[0].xy.dtype == np.float32

    def test_a_shared_token_in_one_space_has_one_position(self) -> None:
        one, two = project([make_vectors(20), make_vectors(20)], "pca", shared=True)
        assert np.allclose(one.xy, two.xy)

    def test_a_mirrored_layout_is_aligned(self) -> None:
        (one,) = project([make_vectors(20)], "pca")
        mirrored = replace(one, xy=one.xy[:, ::-1] * np.array([1, -1], dtype=np.float32))
        turned = rotated_onto(mirrored, one, one.ids, one.ids)
        assert np.allclose(turned.xy, one.xy - one.xy.mean(axis=0), atol=1e-4)

    def test_umap_places_what_it_was_not_fitted_on(self) -> None:
        (one,) = project([make_vectors(80)], "umap", fit_on=60)
        assert one.fitted is not None
        assert one.fitted.sum() == 60
        assert np.isfinite(one.xy).all()

    def test_vectors_of_different_widths_cannot_share_a_layout(self) -> None:
        narrow = TokenVectors(np.arange(5), np.ones((5, 3)), np.ones(5), "")
        with pytest.raises(InputError, match="one width"):
            project([make_vectors(5), narrow], "pca", shared=True)
