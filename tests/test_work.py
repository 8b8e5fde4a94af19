"""The runs of a lab: found again, restored after a restart, and dropped if an earlier step changes."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import threading
import time
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets")

import ipywidgets as w

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError
from tokalign_lab.runs import queue
from tokalign_lab.runs.chain import Chain, rearrange_settings
from tokalign_lab.runs.control import start_again
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.following import run_of_the_source
from tokalign_lab.widgets import Lab
from tokalign_lab.widgets.common.state import LabState
from tokalign_lab.widgets.lab import runs_folder
from tokalign_lab.widgets.lab_boxes import export_html, next_html, step_states
from tokalign_lab.widgets.lab_panels import LabPanels
from tokalign_lab.widgets.lab_tabs import LabTabs


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A chain that creates runs without starting them; processes are tested in test_runs.py."""
    monkeypatch.setattr(queue, "start", lambda kind, settings, path: RunFolder.create(path, kind, settings))
    monkeypatch.setattr(RunFolder, "start", lambda self, resume=False, queued=False: None)
    monkeypatch.setattr(queue, "start_waiting", lambda root: None)
    return Chain(tmp_path, LabState(tmp_path / "lab.json"))


def finish(run: RunFolder) -> RunFolder:
    run.update(state="finished")
    made = run.path / {"align": "alignment/lexicon.parquet"}.get(run.info()["kind"], "model/config.json")
    made.parent.mkdir(exist_ok=True)
    made.touch()
    return run


def test_the_same_settings_find_the_same_run(work: Chain) -> None:
    first = work.align(text=["default"], seed=0)
    assert work.align(text=["default"], seed=0, max_bytes=None).path == first.path
    assert work.align(text=["default"], seed=1).path != first.path


def test_a_restarted_lab_shows_the_same_runs(work: Chain, tmp_path: Path) -> None:
    run = finish(work.align(text=["default"]))
    again = Chain(tmp_path, LabState(tmp_path / "lab.json"))
    found = again.finished("align")
    assert found is not None
    assert found.path == run.path
    assert again.find("adapt") is None


def test_runs_of_another_alignment_are_not_shown(work: Chain) -> None:
    finish(work.align(text=["default"]))
    finish(work.rearrange())
    work.tune(10)
    assert work.find("adapt") is not None
    work.align(text=["default"], recipe="pieces")
    assert work.find("rearrange") is None
    assert work.find("adapt") is None


def test_the_model_is_calibrated_on_the_text_that_was_aligned(work: Chain) -> None:
    run = finish(work.align(text=["a", "b"]))
    made = work.rearrange()
    assert made.info()["settings"]["calibrate"] == ["a", "b"]
    assert "calibrate" not in work.rearrange(calibrate=False).info()["settings"]
    assert work.rearrange(special_tokens="target").info()["settings"]["special_tokens"] == "target"
    lexicon = run.path / "alignment" / "lexicon.parquet"
    assert rearrange_settings("smollm2-135m", lexicon, ["a", "b"]) == made.info()["settings"]


def test_tuning_reads_the_text_that_was_aligned(work: Chain) -> None:
    finish(work.align(text=["a", "b"], max_bytes=1000, seed=3))
    run = work.tune(16, batch_size=2)
    settings = run.info()["settings"]
    assert (settings["text"], settings["max_bytes"], settings["seed"]) == (["a", "b"], 1000, 3)
    assert (settings["steps"], settings["batch_size"], settings["evaluate_every"]) == (16, 2, 2)
    assert settings["recipe"] == "recover", "run.json without a recipe is one from before there were recipes"
    assert settings["sequence_length"] == AdaptSettings().sequence_length
    reference = work.reference(run).info()["settings"]
    assert reference == {"model": "smollm2-135m", "text": ["a", "b"], "max_bytes": 1000, "seed": 3}


def test_a_finished_reference_is_preferred_to_a_newer_failed_one(work: Chain) -> None:
    finish(work.align(text=["a", "b"]))
    run = work.tune(16)
    reference = finish(work.reference(run))
    newer = RunFolder.create(work.root / "newer", "measure", {**reference.info()["settings"], "device": "cpu"})
    newer.update(state="failed", created="2999-01-01T00:00:00+00:00")
    assert run_of_the_source(run, "measure").path == reference.path


def test_a_run_that_was_deleted_is_not_found(work: Chain) -> None:
    run = work.align(text=["default"])
    (run.path / "run.json").unlink()
    assert work.find("align") is None


def test_every_step_needs_an_alignment(work: Chain) -> None:
    with pytest.raises(InputError, match="align a pair first"):
        work.rearrange()
    with pytest.raises(InputError, match="align a pair first"):
        work.tune(5)


def test_a_tab_is_made_by_one_thread_at_a_time_and_shows_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKALIGN_RUNS", str(tmp_path))  # a lab sets it; the test restores it
    lab = Lab(runs=tmp_path)
    lab.lab_state.tab = "recovery"
    tabs = LabTabs(lab)
    lock, made = threading.Lock(), []

    def make() -> list[w.Widget]:
        assert lock.acquire(blocking=False), "two threads make the tab at once"
        time.sleep(0.05)
        made.append(w.HTML(value=str(lab.lab_state.work)))
        lock.release()
        return [made[-1]]

    tabs._makers["recovery"] = make
    for step in range(6):
        lab.lab_state.work = {"adapt": f"adapt-{step}"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and "adapt-5" not in str([box.value for box in tabs._boxes["recovery"].children]):
        time.sleep(0.02)
    (shown,) = tabs._boxes["recovery"].children
    assert "adapt-5" in shown.value
    assert shown is made[-1]
    assert shown.comm is not None, "the visible panel is not closed"
    tabs.close()


def test_notebooks_at_any_depth_share_one_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKALIGN_RUNS", raising=False)
    (tmp_path / "notebooks" / "research").mkdir(parents=True)
    for place in ("notebooks", "notebooks/research", "."):
        monkeypatch.chdir(tmp_path / place)
        assert runs_folder() == tmp_path / "runs"


def test_the_next_step_depends_on_the_finished_ones(tmp_path: Path) -> None:
    states = dict.fromkeys(("pair", "lexicon", "model", "recovery", "export"), "to do")
    reported = []
    for step, state in (
        ("pair", "done"), ("lexicon", "running"), ("lexicon", "done"), ("model", "stopped"), ("model", "done"),
        ("recovery", "done"),
    ):  # fmt: skip
        states[step] = state
        words = next_html(states, tmp_path, recorded=False)
        assert str(tmp_path) in words
        reported.append(words.partition("Next:</b> ")[2].partition(".</div>")[0])
    assert [words.split(",")[0] for words in reported] == [
        "choose a pair. Click “Is it worth it?” for a verdict in about a minute",
        "wait: the step Lexicon is running; the tab Pair shows its progress",
        "check the alignment on the tab Lexicon",
        "the step Model is stopped; see why on the tab Runs",
        "click “Rearrange and tune” on the tab Recovery: before tuning",
        "use the model; the tab Export shows its folder and how to load it",
    ]  # fmt: skip
    assert "Back to your own runs" in next_html(states, tmp_path, recorded=True)


def test_the_states_of_steps_are_those_of_the_runs(work: Chain) -> None:
    assert set(step_states(work).values()) == {"to do"}
    aligned = work.align(text=["default"])
    assert step_states(work) | {"lexicon": ""} == {
        "pair": "done", "lexicon": "", "model": "to do", "recovery": "to do", "export": "to do",
    }  # fmt: skip
    assert step_states(work)["lexicon"] == "waiting"
    finish(aligned)
    made = work.rearrange()
    made.update(state="failed")
    assert step_states(work)["model"] == "stopped"
    assert step_states(work)["export"] == "to do"
    finish(made)
    assert (step_states(work)["model"], step_states(work)["export"]) == ("done", "ready")
    assert str(made.path / "model") in export_html(made, None)
    assert "no model" in export_html(None, None).lower()


def test_settings_that_tuning_does_not_take_are_refused_before_a_run_is_made(tmp_path: Path, work: Chain) -> None:
    finish(work.align(text=["default"]))
    with pytest.raises(InputError, match="no setting 'rate'"):
        work.tune(steps=8, rate=1.0)
    for settings in ({"steps": 8, "seed": "5"}, {"steps": "5"}, {"steps": None}):
        with pytest.raises(InputError, match=rf"The setting {[*settings][-1]} must be a whole number"):
            work.tune(**settings)
    assert not [*tmp_path.glob("adapt-*"), *tmp_path.glob("rearrange-*")]


@pytest.mark.parametrize(
    "settings", [{"steps": "5"}, {"losses": "prefix"}, {"head_floor": 1}, {"recipe": 3}, {"learning_rate_rows": "fast"}]
)
def test_settings_of_the_wrong_type_are_refused_in_a_sentence(settings: dict) -> None:
    (name,) = settings
    with pytest.raises(InputError, match=f"The setting {name} must be"):
        AdaptSettings(**settings)
    with pytest.raises(InputError, match=r"no recovery recipe \['recover'\]"):
        AdaptSettings.from_dict({"recipe": ["recover"]})


def test_a_tilde_in_the_name_of_a_folder_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOKALIGN_RUNS", "~/set")
    assert runs_folder() == tmp_path / "set"
    assert Lab(runs="~/given").runs == tmp_path / "given"


def test_commands_of_the_tab_export_work_in_a_folder_of_any_name(tmp_path: Path) -> None:
    made = RunFolder.create(tmp_path / "R&D's runs" / "rearrange-1", "rearrange", {})
    shown = unescape(export_html(finish(made), None))
    command = next(line for line in re.findall(">(tokalign-lab .*?)<", shown) if "check" in line)
    assert shlex.split(command) == ["tokalign-lab", "check", str(made.path / "model")]
    literal = re.search(r"AutoTokenizer.from_pretrained\((.*)\)", shown)
    assert literal is not None
    assert ast.literal_eval(literal[1]) == str(made.path / "model")


def test_a_deleted_model_is_missing(tmp_path: Path, work: Chain) -> None:
    finish(work.align(text=["default"]))
    made = finish(work.rearrange())
    shutil.rmtree(made.path / "model")
    states = step_states(work)
    assert (states["model"], states["export"]) == ("missing", "to do")
    assert "delete its run on the tab Runs" in next_html(states, tmp_path, recorded=False)
    assert "was deleted" in export_html(made, None)
    words = next_html(states | {"recovery": "running"}, tmp_path, recorded=False)
    assert "wait: the step Recovery" in words
    assert "Export" in next_html(states | {"recovery": "done", "export": "ready"}, tmp_path, recorded=False)
    panel = LabPanels(work, work._view).rearranging(made)
    assert "the new model was deleted" in panel._line.value
    panel.close()
    finish(made)
    tuned = finish(work.tune(steps=8))
    shutil.rmtree(tuned.path / "model")
    assert (step_states(work)["recovery"], step_states(work)["export"]) == ("missing", "ready")
    assert "the result of the step Recovery was deleted" in next_html(step_states(work), tmp_path, recorded=False)
    assert "the tuned one was deleted" in export_html(made, tuned)
    assert "The model was deleted. To make it again, first delete its run on the tab Runs." in export_html(None, tuned)


def test_a_step_whose_input_was_deleted_is_refused(work: Chain) -> None:
    aligned = finish(work.align(text=["default"]))
    made = finish(work.rearrange())
    tuned = finish(work.tune(steps=8))
    shutil.rmtree(made.path / "model")
    for settings in ({"steps": 9}, {"steps": 8, "restart": True}):
        with pytest.raises(InputError, match=r"The model of the run rearrange-.* was deleted; delete that run"):
            work.tune(**settings)
    assert work.tune(steps=8).path == tuned.path  # nothing starts
    with pytest.raises(InputError, match=r"The model .* does not exist"):
        start_again(tuned, {"steps": 9})
    shutil.rmtree(aligned.path / "alignment")
    with pytest.raises(InputError, match=r"The lexicon of the run align-.* was deleted; delete that run"):
        work.rearrange(calibrate=False)
    with pytest.raises(InputError, match=r"The lexicon of the run align-.* was deleted; delete that run"):
        work.align(text=["default"])
    assert (step_states(work)["lexicon"], step_states(work)["model"]) == ("missing", "missing")
    assert {run.name for run in work.root.iterdir() if run.is_dir()} == {aligned.name, made.name, tuned.name}
