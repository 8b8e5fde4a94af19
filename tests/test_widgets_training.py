"""The training monitor and the list of runs, without a browser or a kernel.

The runs here are written by hand, some with damaged events. Events of real runs are tested in `test_adaptation.py` and
`test_runs.py`, the page in `tests/ui`.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from ipywidgets import Widget
from plotly.basewidget import BaseFigureWidget

from tokalign_lab.errors import InputError
from tokalign_lab.plots.curves import (
    AXES,
    COLOURS,
    DASHES,
    MARKS,
    MOST_CURVE_POINTS,
    MOST_RUNS,
    CurveOptions,
    curves_figure,
    smoothed,
)
from tokalign_lab.runs.folder import ENDED, RunFolder
from tokalign_lab.runs.folding import RunView, view_of
from tokalign_lab.runs.process import start_time
from tokalign_lab.runs.trash import delete_run
from tokalign_lab.runs.words import STATE_WORDS, status_words
from tokalign_lab.widgets import LabState, RunsPanel, TrainingPanel
from tokalign_lab.widgets.common.background import WATCHER, Watcher, inline
from tokalign_lab.widgets.training.curves import numbers_of, samples_html, verdict_html
from tokalign_lab.widgets.training.forms import TuneForm

SETTINGS = {"model": "moved", "text": ["default"], "steps": 40, "batch_size": 2, "sequence_length": 8}
NASTY = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with inline():
        yield


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Size in bytes of each message that a widget sends to the page."""
    sizes: list[int] = []
    monkeypatch.setattr(
        Widget, "_send", lambda self, message, buffers=None: sizes.append(len(json.dumps(message, default=str)))
    )
    return sizes


def make_run(folder: Path, done: int = 12, state: str = "finished", **settings: Any) -> RunFolder:
    run = RunFolder.create(folder, "adapt", SETTINGS | settings)
    run.emit({"kind": "device", "device": "CPU"})
    run.emit({"kind": "evaluation", "step": 0, "bits_per_byte": 2.5, "by_slice": {"de": 3.0, "code": 2.0}})
    run.emit({"kind": "sample", "step": 0, "prompt": "One", "text": NASTY})
    run.emit({"kind": "stage", "stage": 1, "step": 0, "steps": 20})
    write_steps(run, range(1, done + 1))
    run.emit({"kind": "evaluation", "step": done, "bits_per_byte": 1.5, "by_slice": {"de": 1.8, "code": 1.2}})
    run.emit({"kind": "sample", "step": done, "prompt": "One", "text": "two"})
    run.update(state=state)
    return run


def write_steps(run: RunFolder, steps: Any, **more: Any) -> None:
    lines = []
    for step in steps:
        event = {
            "kind": "step",
            "step": step,
            "stage": 1,
            "loss": 5 - step / 100,
            "learning_rate": 1e-3,
            "grad_norm": 0.5,
        }
        event |= {"tokens": step * 16, "tokens_per_second": 500.0, "bytes_per_second": 1500.0, "memory_bytes": 2e9}
        lines.append(json.dumps(event | {"time": 1e9 + step} | more))
    with open(run.path / "events.jsonl", "a", encoding="utf-8") as file:
        file.write("".join(line + "\n" for line in lines))


class TestView:
    def test_incomplete_missing_and_invalid_values_become_gaps(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", 3)
        with open(run.path / "events.jsonl", "a", encoding="utf-8") as file:
            for line in (
                '{"kind": "step", "step": 4, "loss": NaN, "tokens": "many"}',
                '{"kind": "step", "loss": 1.0}',
                '{"kind": "step", "step": null}',
                '{"kind": "step", "step": -1}',
                '{"kind": "step", "step": true, "loss": 1}',
                '{"kind": "tomorrow\'s", "step": 5}',
                '{"kind": "evaluation", "step": 4}',
                '{"kind": "evaluation", "step": 4, "bits_per_byte": null, "by_slice": {"de": "?"}}',
                '{"kind": "stage"}',
                '{"kind": "sample"}',
                '{"kind": "resumed"}',
                '{"time": "noon"}',
                "[1, 2]",
                "3",
                '{"kind": "step", "step": 5, "lo',
            ):
                file.write(line + ("\n" if line.endswith(("}", "]", "3")) else ""))
        view = view_of(run.events()[0], 40)
        assert view.steps == [1, 2, 3, 4]
        assert math.isnan(view.trained.column("loss")[-1])
        assert view.trained.last("loss") == pytest.approx(4.97)
        panel = TrainingPanel(run)
        assert list(panel.figure.data[0].x) == [1, 2, 3]
        assert panel._error.value == ""
        for axis in ("tokens", "minutes", "step"):
            panel.curve_bar._axis.value = axis
        assert panel._error.value == ""

    def test_an_empty_run_opens(self, tmp_path: Path) -> None:
        run = RunFolder.create(tmp_path / "run", "adapt", {"model": "m", "text": []})
        panel = TrainingPanel(run)
        for axis in ("tokens", "minutes"):
            panel.curve_bar._axis.value = axis
        assert panel._error.value == ""
        assert "waiting to start" in panel._state_line.value
        panel.close()

    def test_a_resumed_run_replaces_repeated_steps(self) -> None:
        events = [{"kind": "step", "step": n, "loss": 1.0} for n in (1, 2, 3)]
        events += [
            {"kind": "evaluation", "step": 3, "bits_per_byte": 9.0},
            {"kind": "sample", "step": 3, "prompt": "p"},
        ]
        view = view_of([*events, {"kind": "resumed", "step": 2}])
        assert (view.steps, view.measured.steps, view.samples) == ([1, 2], [], {"p": {}})
        view.add([{"kind": "step", "step": 3, "loss": 2.0}])
        assert view.trained.column("loss").tolist() == [1, 1, 2]

    def test_a_run_that_restarts_without_an_event_is_a_new_curve(self) -> None:
        view = view_of({"kind": "step", "step": n, "loss": 1.0} for n in (1, 2, 3, 1, 2))
        assert view.steps == [1, 2]

    def test_time_without_heartbeats_is_not_counted(self) -> None:
        beats = [{"kind": "heartbeat", "time": t} for t in (0, 2, 4)]
        later = [{"kind": "heartbeat", "time": t} for t in (10_000, 10_002)]
        view = view_of(
            [*beats, {"kind": "step", "step": 1, "time": 4}, *later, {"kind": "step", "step": 2, "time": 10_002}]
        )
        assert view.seconds == 6
        assert view.x("minutes").tolist() == [4 / 60, 6 / 60]

    def test_events_are_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = make_run(tmp_path / "run", 2000, state="running")
        panel = TrainingPanel(run)
        offsets: list[int] = []
        read = panel.run.events
        monkeypatch.setattr(panel.run, "events", lambda offset=0: offsets.append(offset) or read(offset))
        write_steps(run, [2001])
        panel._poll()
        assert offsets[0] > 2000 * 100, "the panel continues after the last event that it read"
        assert panel.view.steps[-1] == 2001

    def test_every_state_has_a_word(self) -> None:
        assert set(STATE_WORDS) == ENDED | {"queued", "running"}
        assert "worked 12 s" in status_words({"state": "paused"}, view_of([{"time": 0}, {"time": 12}]))


class TestCurves:
    @pytest.mark.parametrize("weight", [0.0, 0.5, 0.99])
    def test_smoothing_is_exponential_without_its_bias(self, weight: float) -> None:
        assert np.allclose(smoothed(np.full(50, 3.0), weight), 3.0), "smoothing does not change a constant curve"
        y = np.random.default_rng(0).normal(size=30)
        mean, expected = 0.0, []
        for n, value in enumerate(y, start=1):
            mean = weight * mean + (1 - weight) * value
            expected.append(mean / (1 - weight**n))
        assert np.allclose(smoothed(y, weight), expected)

    def test_runs_differ_in_colour_line_and_mark(self) -> None:
        assert len(set(COLOURS)) == len(set(DASHES)) == len(set(MARKS)) == MOST_RUNS

    def test_raw_curves_are_drawn_below_smoothed_ones(self, tmp_path: Path) -> None:
        figure = TrainingPanel([make_run(tmp_path / "one"), make_run(tmp_path / "two")]).figure
        raw, smooth = figure.data[0:8:4], figure.data[1:8:4]
        assert max(trace.zorder or 0 for trace in raw) < min(trace.zorder for trace in smooth)
        assert all(trace.opacity < 0.5 for trace in raw)

    @pytest.mark.parametrize("background", ["#ffffff", "#111111"])
    def test_lines_have_contrast_in_both_themes(self, background: str) -> None:
        def light(colour: str) -> float:
            parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
            return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

        for colour in COLOURS:
            ratio = light(colour) / light(background)
            assert max(ratio, 1 / ratio) >= 3

    def test_ten_thousand_events_and_one_more_send_little(self, tmp_path: Path, sent: list[int]) -> None:
        run = make_run(tmp_path / "run", 10_000, state="running", steps=20_000)
        panel = TrainingPanel(run)
        assert all(len(trace.x) <= MOST_CURVE_POINTS for trace in panel.figure.data)
        sent.clear()
        write_steps(run, [10_001])
        panel._poll()
        assert panel.figure.data[0].x[-1] == 10_001
        assert 1_000 < sum(sent) < 100_000
        sent.clear()
        run.emit({"kind": "heartbeat"})
        panel._poll()
        assert sum(sent) < 2_000, "a heartbeat alone draws nothing"

    def test_the_figure_is_updated_and_never_rebuilt(self, tmp_path: Path) -> None:
        one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", 5)
        panel = TrainingPanel(one)
        figure = panel.figure
        panel.show_runs([two, one])
        panel.curve_bar._value.value = "grad_norm"
        assert panel.figure is figure
        assert list(figure.data[4].x) == [1, 2, 3, 4, 5]  # a run that stays keeps its place and colour
        assert len(figure.data[0].x) == 12
        assert figure.data[4].y[0] == 0.5
        panel.show_runs([two])
        assert not figure.data[0].visible
        assert list(figure.data[4].x) == [1, 2, 3, 4, 5]
        panel.show_runs([two, make_run(tmp_path / "three", 7)])
        assert len(figure.data[0].x) == 7

    def test_every_figure_of_a_step_and_every_slice_can_be_drawn(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        panel = TrainingPanel(run)
        values = [value for _, value in panel.curve_bar._value.options]
        assert values == ["loss", "learning_rate", "grad_norm", "tokens_per_second", "bytes_per_second", "memory"]
        assert [value for _, value in panel.curve_bar._part.options] == ["", "code", "de"]
        panel.curve_bar._part.value = "de"
        assert list(panel.figure.data[2].y) == [3.0, 1.8]
        assert "1.800" in panel._table.value
        panel.curve_bar._value.value = "memory"
        assert panel.figure.data[0].y[0] == 2.0  # GB

    def test_a_distillation_has_two_more(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", state="running")
        panel = TrainingPanel(run)
        write_steps(run, [13], next_token=2.0, divergence=0.25)
        panel._poll()
        assert {"next_token", "divergence"} <= {value for _, value in panel.curve_bar._value.options}
        panel.curve_bar._value.value = "divergence"
        assert list(panel.figure.data[0].y) == [0.25]
        assert "divergence from the teacher" in panel._cards.value
        panel.close()

    def test_the_table_has_no_values_for_steps_that_a_run_has_not_done(self, tmp_path: Path) -> None:
        runs = [make_run(tmp_path / "long", 12), make_run(tmp_path / "short", 5)]
        panel = TrainingPanel(runs, value="loss", smoothing=0)
        rows = {row.split("</th>")[0]: row for row in panel._table.value.split("<th scope='row'>")[1:]}
        assert list(rows) == ["0", "5", "12"]
        cells = [cell.split("<")[0] for cell in rows["12"].split("<td class='tl-number'>")[1:]]
        assert cells == ["4.880", "1.500", "–", "–"]

    @pytest.mark.parametrize(("steps", "weight"), [(0, 0.6), (60, 0.6), (500, 0.9), (10_000, 0.99)])
    def test_smoothing_fits_the_length_of_the_run(self, tmp_path: Path, steps: int, weight: float) -> None:
        assert TrainingPanel(make_run(tmp_path / "run", steps=steps)).curve_bar.options.smoothing == weight

    def test_axes(self, tmp_path: Path) -> None:
        panel = TrainingPanel(make_run(tmp_path / "run"))
        panel.curve_bar._axis.value = "tokens"
        assert list(panel.figure.data[0].x) == [step * 16 for step in range(1, 13)]
        assert list(panel.figure.data[2].x) == [0, 12 * 16]
        assert panel.figure.layout.shapes[0].x1 == 20 * 16  # the stage is planned to end at step 20
        panel.curve_bar._axis.value = "minutes"
        assert panel.figure.layout.xaxis.autorange
        assert panel.figure.data[0].x[-1] == pytest.approx(11 / 60, rel=1e-3)
        assert not [x for trace in panel.figure.data if trace.xaxis == "x2" for x in trace.x]
        assert panel.figure.layout.xaxis2.autorange is False, "plotly would show an empty plot from -1 to 6"

    @pytest.mark.parametrize("axis", list(AXES))
    def test_plots_without_a_curve_have_axes_from_0_to_1(self, axis: str) -> None:
        figure = curves_figure([RunView()], CurveOptions(axis=axis))
        assert [y.range for y in figure.select_yaxes()] == [(0, 1)] * 3, "plotly's own begin at -1"
        assert [x.range for x in figure.select_xaxes()] == [(-0.02, 1.02)] * 3
        assert all(y.autorange for y in figure.select_yaxes()), "the first curve changes them"

    def test_the_only_stage_of_a_run_has_no_band_and_no_number(self) -> None:
        view = view_of([{"kind": "stage", "stage": 2, "step": 0, "steps": 20}, {"kind": "step", "step": 5}])
        assert not curves_figure([view], CurveOptions()).layout.shapes
        assert view.stage == ""

    def test_smoothing_keeps_the_raw_curve(self, tmp_path: Path) -> None:
        panel = TrainingPanel(make_run(tmp_path / "run"), value="loss")
        raw = list(panel.figure.data[0].y)
        panel.curve_bar._smoothing.value = 0.95
        assert list(panel.figure.data[0].y) == raw
        assert list(panel.figure.data[1].y) != raw
        panel.curve_bar._smoothing.value = 0
        assert list(panel.figure.data[1].y) == raw

    def test_names_and_texts_are_escaped(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", by="<b>")
        run.entitle(NASTY)
        panel = TrainingPanel([run, make_run(tmp_path / "two")])
        shown = [panel._head.value, panel._note.value, panel._table.value, panel.samples.html, panel._cards.value]
        shown += [str(trace.name) for trace in panel.figure.data]
        assert not [text for text in shown if "<script" in text]
        assert "&lt;script&gt;" in panel.samples.html

    def test_a_sample_keeps_its_indentation_without_empty_lines(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        run.emit({"kind": "sample", "step": 20, "prompt": "def f():", "text": " \n\n    return 1\n\n"})
        assert "<td>    return 1</td>" in samples_html([view_of(run.events()[0])], 20, None)


class TestMonitor:
    def test_samples_are_side_by_side_and_follow_until_one_is_chosen(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", state="running")
        panel = TrainingPanel(run)
        assert "Continued at step 0" in panel.samples.html
        assert "Continued at step 12" in panel.samples.html
        run.emit({"kind": "sample", "step": 20, "prompt": "One", "text": "three"})
        panel._poll()
        assert "Continued at step 20" in panel.samples.html
        panel.samples._steps[1].value = 12
        run.emit({"kind": "sample", "step": 30, "prompt": "One", "text": "four"})
        panel._poll()
        assert "Continued at step 12" in panel.samples.html
        panel.close()

    def test_forgotten_and_relearned_probes_are_marked(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run")
        for step, lost in ((20, ["Bees make", "Two and two"]), (30, ["Two and two", NASTY])):
            reported = {"probes": 9, "probes_answered": 0.5, "probes_lost": lost}
            run.emit({"kind": "evaluation", "step": step, "bits_per_byte": 1.4, **reported})
        panel = TrainingPanel(run)
        panel.samples._steps[0].value = 20
        shown = panel.samples.html
        assert "What the model forgot: 1 forgotten, 1 learned again, 1 still wrong" in shown
        assert shown.index(">forgotten<") < shown.index(">learned again<") < shown.index(">still wrong<")
        assert "<script" not in shown
        assert "of the probes right" in panel._head.value
        run.emit({"kind": "resumed", "step": 20})
        panel._poll()
        assert list(panel.view.lost) == [20]

    def test_gap_and_control(self, tmp_path: Path) -> None:
        """The control is the source tuned on the same text: a run in the same folder whose model is the source."""
        before = RunFolder.create(tmp_path / "rearrange-1", "rearrange", {"model": "source", "lexicon": "x"})
        one = make_run(tmp_path / "one", model=str(before.path / "model"))
        control = make_run(tmp_path / "control", 5, model="source")
        make_run(tmp_path / "other", model="source", seed=7)
        panel = TrainingPanel(one, reference=0.5)
        assert list(panel.figure.data[3].y) == [0.0, 0.5]  # from 2.5 to 1.5, and the source is at 0.5
        assert list(panel.figure.data[-2].x) == [0, 5]
        assert "50" in panel._head.value
        assert "(1.500 if tuned on the same text)" in panel._head.value
        delete_run(control)
        assert not TrainingPanel(one, reference=0.5).figure.data[-2].visible

    @pytest.mark.parametrize(
        ("bits", "reference", "key", "words"),
        [
            (1.5, 0.5, "gap", "50\u00a0% of the gap is closed"),
            (1.5, 1.75, "better", "better than the source model"),
            (2.6, 0.5, "worse", "worse than at step 0"),
            (2.6, None, "worse", "worse than at step 0"),
            (2.6, 3.0, "worse", "worse than at step 0 and better than the source model"),
            (1.5, None, None, "The source model is not measured yet"),
        ],
    )
    def test_a_share_of_the_gap_only_between_step_0_and_the_reference(
        self, tmp_path: Path, bits: float, reference: float | None, key: str | None, words: str
    ) -> None:
        run = make_run(tmp_path / "run")
        run.emit({"kind": "evaluation", "step": 13, "bits_per_byte": bits})
        panel = TrainingPanel(run, reference=reference)
        assert words in verdict_html(panel.view)
        assert ("of the gap" in panel._head.value) == (key == "gap")
        assert [k for k, _ in numbers_of(panel.view) if k in ("gap", "better", "worse")] == [key] * (key is not None)

    @pytest.mark.parametrize(
        ("losses", "reason", "words"),
        [
            ({}, "No <source>.", "learns from the text alone, without the source model: No &lt;source&gt;."),
            ({"prefix": 1.0}, "No branches.", "is not measured yet. No branches."),
            ({"prefix": 1.0}, "", "is not measured yet."),
        ],
    )
    def test_why_the_source_does_not_teach_is_reported(self, losses: dict[str, float], reason: str, words: str) -> None:
        view = view_of(
            [
                {"kind": "evaluation", "step": 0, "bits_per_byte": 2.5},
                {"kind": "source", "losses": losses, "reason": reason},
            ]
        )
        assert verdict_html(view).endswith(words)

    def test_a_model_worse_than_at_step_0_is_drawn_below_0(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The messages to the page are checked, because in the page an axis that was limited at 0 stays limited."""
        sent: list[str] = []
        monkeypatch.setattr(
            BaseFigureWidget, "_send_update_msg", lambda _self, relayout_data, **_: sent.extend(relayout_data)
        )
        run = make_run(tmp_path / "run")
        panel = TrainingPanel(run, reference=0.5)
        run.emit({"kind": "evaluation", "step": 13, "bits_per_byte": 2.7})
        panel._poll()
        assert panel.figure.data[3].y[-1] == pytest.approx(-0.1)
        assert not [name for name in sent if name.startswith("yaxis2.autorangeoptions")]

    def test_the_reference_is_that_of_the_same_text(self, tmp_path: Path) -> None:
        """The source is found by the run that made the model; a run with another seed has another held-out text."""
        before = RunFolder.create(tmp_path / "rearrange-1", "rearrange", {"model": "source", "lexicon": "x"})
        measure = RunFolder.create(tmp_path / "measure-1", "measure", {"model": "source", "text": ["default"]})
        measure.emit({"kind": "evaluation", "step": 0, "bits_per_byte": 1.1, "by_slice": {"de": 1.3}})
        measure.update(state="finished")
        model = str(before.path / "model")
        one = make_run(tmp_path / "one", model=model)
        other = make_run(tmp_path / "other", model=model, seed=7)
        panel = TrainingPanel(one)
        assert list(panel.figure.data[-1].y) == [1.1, 1.1]
        panel.curve_bar._part.value = "de"
        assert list(panel.figure.data[-1].y) == [1.3, 1.3]
        panel.show_runs([one, other])
        assert "Not comparable (other held-out text): bits per byte of “other”" in panel._note.value
        panel.show_runs([other])
        assert not panel.figure.data[-1].visible
        given = TrainingPanel(one, reference=1.05)
        given.show_runs([other, one])
        assert not given.figure.data[-1].visible

    @pytest.mark.parametrize(
        ("state", "pressable"),
        [
            ("queued", {"Cancel"}), ("running", {"Pause", "Cancel"}), ("paused", {"Resume"}), ("cancelled", {"Resume"}),
            ("failed", {"Resume"}), ("lost", {"Resume"}), ("finished", set()),
        ],
    )  # fmt: skip
    def test_buttons_are_enabled_by_state(self, tmp_path: Path, state: str, pressable: set[str]) -> None:
        panel = TrainingPanel(make_run(tmp_path / "run"))
        panel.controls.show("adapt", state, "")
        buttons = (panel.controls.pause_button, panel.controls.cancel_button, panel.controls.resume_button)
        assert {one.description for one in buttons if not one.disabled} == pressable

    def test_pause_asks_and_cancel_may_follow(self, tmp_path: Path) -> None:
        run = make_run(tmp_path / "run", state="running")
        run.update(pid=os.getpid(), pid_started=start_time(os.getpid()))
        panel = TrainingPanel(run)
        panel.controls.pause_button.click()
        assert run.asked == "paused"
        assert "pausing" in panel._state_line.value
        assert not panel.controls.cancel_button.disabled
        panel.controls.cancel_button.click()
        assert run.asked == "cancelled"
        assert "cancelling" in panel._state_line.value
        assert panel.controls.cancel_button.disabled
        run.update(state="finished")
        panel.close()

    def test_the_tuning_form_passes_only_rates_that_the_user_set(self) -> None:
        given: list[dict[str, Any]] = []
        form = TuneForm(given.append, {"steps": 20})
        form.settings.fields["batch_size"].value = 8
        form.start_button.click()
        assert given == [{"steps": 20, "batch_size": 8}], "rates follow the batch"
        form.close()

    def test_start_again_with_a_changed_setting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RunFolder, "start", lambda self: self.update(state="finished"))
        old = make_run(tmp_path / "old")
        panel = TrainingPanel(old)
        panel.again.fields["steps"].value = 0
        panel.again.start_button.click()
        assert "at least 1" in panel._error.value
        assert len(list(tmp_path.glob("*/run.json"))) == 1
        panel.again.fields["steps"].value = 80
        panel.again.fields["learning_rate_stage1"].value = 1e-4
        panel.again.name.value = "slower"
        panel.again.start_button.click()
        assert panel._error.value == ""
        assert [view.name for view in panel.views] == ["slower", "old"]
        before = SETTINGS | {"recipe": "recover"}
        assert panel.run.info()["settings"] == before | {"steps": 80, "learning_rate_stage1": 1e-4}
        assert old.info()["settings"] == before
        assert panel.again.fields["steps"].value == 80  # the form is now that of the new run

    def test_other_runs_are_overlaid(self, tmp_path: Path) -> None:
        one = make_run(tmp_path / "one")
        for number in range(7):
            make_run(tmp_path / f"other{number}")
        RunFolder.create(tmp_path / "align-1", "align", {})
        panel = TrainingPanel(one)

        def offered() -> list[str]:
            return [title for title, _ in panel._other.options if not title.startswith("Recorded: ")]

        assert len(offered()) == 1 + 7
        assert len(panel._other.options) > len(offered())  # the recorded runs of the package come last
        panel._other.value = panel._other.options[1][1]
        assert len(panel.views) == 2
        assert len(offered()) == 1 + 6
        assert panel._other.value == ""
        panel._alone.click()
        assert [view.name for view in panel.views] == ["one"]
        with pytest.raises(InputError, match="1 to 6 runs, not 8"):
            TrainingPanel([one, *tmp_path.glob("other*")])
        with pytest.raises(InputError, match="1 to 6 runs, not 0"):
            TrainingPanel([])

    def test_a_run_that_is_deleted_while_it_is_shown(self, tmp_path: Path) -> None:
        one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
        panel = TrainingPanel([one, two])
        delete_run(two)
        panel._poll()
        assert [view.name for view in panel.views] == ["one"]
        delete_run(one)
        panel._follow()
        assert "not a run folder" in panel._error.value

    def test_code_shows_the_same_view(self, tmp_path: Path) -> None:
        runs = [make_run(tmp_path / "one"), make_run(tmp_path / "it's two")]
        panel = TrainingPanel(runs, reference=1.04)
        panel.curve_bar._axis.value, panel.curve_bar._value.value, panel.curve_bar._part.value = (
            "tokens",
            "grad_norm",
            "de",
        )
        panel.curve_bar._smoothing.value = 0.5
        again = run_code(panel.to_code())
        assert again.state == panel.state
        assert [list(t.y) for t in again.figure.data] == [list(t.y) for t in panel.figure.data]

    def test_closed_panels_watch_no_run_and_do_not_react(self, tmp_path: Path) -> None:
        state = LabState()
        panel = TrainingPanel(make_run(tmp_path / "run", state="queued"), state=state)
        assert any(name.startswith("run:") for name in WATCHER.names())
        panel.close()
        assert not any(str(tmp_path) in name for name in WATCHER.names())
        before = panel.figure.layout.template
        state.theme = "dark"
        assert panel.figure.layout.template == before

    def test_follows_the_theme(self, tmp_path: Path) -> None:
        panel = TrainingPanel(make_run(tmp_path / "run"))
        panel._probe.dark = True
        assert panel.figure.layout.template.layout.font.color == "#e8e8e8"


def test_a_watcher_that_raises_does_not_stop_the_others() -> None:
    watcher, seen, done = Watcher(tick_s=0.01), [], threading.Event()

    def poll() -> bool:
        seen.append(1)
        if len(seen) == 3:
            done.set()
        return len(seen) < 3

    watcher.watch("broken", lambda: 1 / 0 > 0)
    watcher.watch("whole", poll)
    assert done.wait(60)
    assert "broken" not in watcher.names()


def run_code(code: str) -> Any:
    """Run a cell and return the value of its last line."""
    *lines, last = code.splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    return eval(last, names)


class TestRuns:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        for number in range(3):
            make_run(tmp_path / f"adapt-{number}").update(created=f"2026-01-0{number + 1}T10:00:00+00:00")
        failed = RunFolder.create(tmp_path / "align-1", "align", {"text": [NASTY]})
        failed.update(
            state="failed", error=NASTY, created="2026-02-01T10:00:00+00:00", ended="2026-02-01T12:30:00+00:00"
        )
        (failed.path / "log.txt").write_text(f"Traceback\n{NASTY}\n")
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "run.json").write_text("{")
        return tmp_path

    def rows(self, panel: RunsPanel) -> list[list[str]]:
        return [row["cells"] for row in panel.table.rows]

    def choose(self, panel: RunsPanel, title: str) -> None:
        panel.table.press(next(row["key"] for row in panel.table.rows if row["cells"][1] == title))

    def test_lists_newest_first_in_words(self, root: Path) -> None:
        panel = RunsPanel(root)
        names = ["broken", "align-1", "adapt-2", "adapt-1", "adapt-0"]
        assert [row[1] for row in self.rows(panel)] == names
        damaged, failed, tuned = self.rows(panel)[:3]
        assert damaged[3].startswith("damaged")
        assert failed[2:4] == ["align", "failed"]
        assert failed[5:] == ["2 h 30 min", NASTY]  # cells are set as text
        assert tuned[6] == "step 12 of 40, loss 4.880, 1.500 bits per byte"
        assert list(panel.selection["name"]) == names
        panel.close()

    def test_the_chosen_run_shows_its_log(self, root: Path) -> None:
        panel = RunsPanel(root)
        self.choose(panel, "align-1")
        assert "Traceback" in panel._log.value
        assert "<script" not in panel._log.value + panel._details.value
        assert panel._tick_button.disabled  # it has no curves
        assert not panel.controls.resume_button.disabled
        panel.close()

    def test_ticked_runs_are_overlaid(self, root: Path) -> None:
        panel = RunsPanel(root)
        assert panel.monitor is None, "the figure is built on first use"
        for title in ("adapt-0", "adapt-2"):
            self.choose(panel, title)
            panel._tick_button.click()
        assert [view.name for view in panel.monitor.views] == ["adapt-0", "adapt-2"]
        assert [row[0] for row in self.rows(panel)] == ["", "", "✓ 2", "", "✓ 1"]
        figure = panel.monitor.figure
        panel._tick_button.click()
        assert [view.name for view in panel.monitor.views] == ["adapt-0"]
        assert panel.monitor.figure is figure
        panel.close()
        assert panel.monitor.closed

    def test_a_run_started_in_the_monitor_is_ticked(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(RunFolder, "start", lambda self: self.update(state="finished"))
        panel = RunsPanel(root, shown=["adapt-1"])
        panel.monitor.again.name.value = "new one"
        panel.monitor.again.start_button.click()
        assert self.rows(panel)[0][:2] == ["✓ 1", "new one"]
        assert panel.state["shown"][1] == "adapt-1"
        panel.close()

    def test_rename_delete_and_undo(self, root: Path) -> None:
        panel = RunsPanel(root, shown=["adapt-1", "adapt-2"])
        self.choose(panel, "adapt-1")
        panel._rename.value = "adapt-2"
        panel._rename_button.click()
        assert "choose another name" in panel._error.value
        panel._rename.value = NASTY
        panel._rename_button.click()
        assert panel._error.value == ""
        assert NASTY in [row[1] for row in self.rows(panel)]
        assert "<script" not in panel._details.value
        panel._rename.value = "half typed"
        panel._poll()
        assert panel._rename.value == "half typed"
        panel._delete.click()
        assert panel._rename.value == ""
        assert not (root / "adapt-1").exists()
        assert NASTY not in [row[1] for row in self.rows(panel)]
        assert [view.name for view in panel.monitor.views] == ["adapt-2"]
        assert "Undo delete: " in panel.trash.undo_button.description
        again = RunsPanel(root)  # a new panel, as in another kernel, can still undo it
        again.trash.undo_button.click()
        assert NASTY in [row[1] for row in self.rows(again)]
        assert again.trash.undo_button.disabled
        panel._poll()
        assert len(panel.table.rows) == 5
        panel.close()
        again.close()

    def test_the_trash_is_emptied_after_a_second_click(self, root: Path) -> None:
        panel = RunsPanel(root, chosen="adapt-0")
        panel._delete.click()
        assert "kB" in panel.trash.empty_button.description
        panel.trash.empty_button.click()
        assert (root / ".trash" / "adapt-0").exists()
        panel.trash.empty_button.click()
        assert not (root / ".trash").exists()
        assert panel.trash.empty_button.disabled
        panel.close()

    def test_a_running_run_cannot_be_deleted_here(self, root: Path) -> None:
        run = RunFolder(root / "adapt-0")
        run.update(state="running", pid=os.getpid(), pid_started=start_time(os.getpid()))
        panel = RunsPanel(root, chosen="adapt-0")
        assert panel._delete.disabled
        with pytest.raises(InputError, match="cancel it before"):
            panel.delete()
        run.update(state="finished")
        panel.close()

    def test_changes_by_other_processes_are_shown(self, root: Path) -> None:
        panel = RunsPanel(root, chosen="adapt-0")
        run = RunFolder(root / "adapt-0")
        run.update(state="failed", error="out of memory")
        run.emit({"kind": "step", "step": 13, "loss": 4.0})
        make_run(root / "from-a-shell")
        panel._poll()
        assert "out of memory" in panel._details.value
        assert "from-a-shell" in [row[1] for row in self.rows(panel)]
        panel.close()

    def test_many_runs_send_one_page(self, tmp_path: Path, sent: list[int]) -> None:
        for number in range(120):
            RunFolder.create(tmp_path / f"run-{number:03}", "adapt", SETTINGS)
        panel = RunsPanel(tmp_path)
        assert len(panel.table.rows) == 10
        sent.clear()
        panel.pages.later.click()
        assert 0 < sum(sent) < 20_000
        panel.go_to(99)
        assert panel.pages.later.disabled
        assert "111 to 120 of 120" in panel.pages.where.value
        sent.clear()
        panel._poll()
        assert sum(sent) == 0, "no event has arrived"
        panel.close()

    def test_sort_and_kind(self, root: Path) -> None:
        panel = RunsPanel(root)
        panel.table.on_heading("title")
        assert [row[1] for row in self.rows(panel)] == ["adapt-0", "adapt-1", "adapt-2", "align-1", "broken"]
        panel.table.on_heading("title")
        assert self.rows(panel)[0][1] == "broken"
        panel._kind.value = "adapt"
        assert len(panel.table.rows) == 3
        panel.close()

    def test_code_shows_the_same_view(self, root: Path) -> None:
        panel = RunsPanel(root, kind="adapt")
        self.choose(panel, "adapt-2")
        panel._tick_button.click()
        again = run_code(panel.to_code())
        assert again.state == panel.state
        assert again.table.rows == panel.table.rows
        assert [view.name for view in again.monitor.views] == ["adapt-2"]
        panel.close()
        again.close()

    def test_an_empty_root_opens(self, tmp_path: Path) -> None:
        panel = RunsPanel(tmp_path / "none")
        assert "You have no runs here yet" in panel._head.value
        assert panel.trash.empty_button.disabled
        panel.close()
        assert not any(str(tmp_path) in name for name in WATCHER.names())


def test_the_view_is_stored_on_disk(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=30)
    panel = TrainingPanel(run, state=LabState(tmp_path / "lab.json"))
    panel.curve_bar._axis.value = "tokens"
    again = LabState(tmp_path / "lab.json")
    assert TrainingPanel(run, state=again, **again.looks["training"]).curve_bar.options == panel.curve_bar.options
