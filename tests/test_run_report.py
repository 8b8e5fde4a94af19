"""The report on runs, the commands at its end, and the page that the app serves."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import pytest
import typer

from tokalign_lab import app as lab_app
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.catalog import load_vocabulary
from tokalign_lab.cli import app as commands
from tokalign_lab.errors import InputError
from tokalign_lab.report import score_rows, write_report, write_run_report
from tokalign_lab.runs.control import start
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.runs.kinds import command_of

TEXT = "The cat sat on the <b>mat</b> and looked at the dog. 東京は大きい。\ndef add(a, b):\n    return a + b\n"


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("report")
    text = folder / "text"  # the run folder is next to it
    text.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (text / name).write_text(TEXT * 80 + name, encoding="utf-8")
    run = start("align", {"source": "smollm2-135m", "target": "sp32k", "text": [str(text)]}, folder / "align-1")
    assert run.wait() == "finished", run.info()["error"]
    return run


def tuned(folder: Path, text: Path) -> RunFolder:
    """A tuning run with its events only; the report reads nothing else."""
    settings = {"model": "moved", "text": [str(text)], "steps": 4, "cross_documents": False, "mix": {"de": 2.0}}
    run = RunFolder.create(folder, "adapt", settings)
    for step in range(1, 5):
        run.emit({"kind": "step", "step": step, "stage": 1, "loss": 5.0 - step, "learning_rate": 1e-3})
    run.emit({"kind": "evaluation", "step": 4, "stage": 1, "bits_per_byte": 2.5, "by_slice": {"code": 2.0}})
    run.emit({"kind": "sample", "step": 4, "stage": 1, "prompt": "<script>alert(1)</script>", "text": "</table>"})
    run.update(state="finished")
    return run


def test_a_report_is_complete_and_self_contained(aligned: RunFolder, tmp_path: Path) -> None:
    run = tuned(tmp_path / "adapt-1", tmp_path)
    page = write_run_report(tmp_path / "report.html", aligned, [run]).read_text(encoding="utf-8")
    for words in ("<h2>Scores", "<h2>Diagnosis", "<h2>Tuning: adapt-1", "least sure", "surest", "tokalign-lab align"):
        assert words in page
    assert "2.5" in page
    assert "<script>alert(1)</script>" not in page  # generated text is escaped
    assert 'src="http' not in page  # no external file
    assert page.count("<script>/**\n* plotly.js v") == 1  # once, for any number of plots
    assert page.count("Plotly.newPlot(") >= 2
    scores = json.loads((aligned.path / "scores.json").read_text())
    assert f"{scores['lexicon']['bleu1']['target_to_source']:.3f}" in page


def test_a_report_without_tuning_has_maps(aligned: RunFolder, tmp_path: Path) -> None:
    page = write_run_report(tmp_path / "report.html", aligned).read_text(encoding="utf-8")
    assert page.count("<script>/**\n* plotly.js v") == 1
    assert "<h2>Tuning" not in page


def test_the_demos_report_is_the_same_page_with_its_models_and_settings(aligned: RunFolder, tmp_path: Path) -> None:
    tuned(tmp_path / "run", tmp_path)
    result = {
        "pair": {"source": "smollm2-135m", "target": "sp32k", "device": "CPU <1 thread>"},
        "lexicons": [{"recipe": "anchored", "coverage": 0.5}],
        "models": [{"model": "source", "bits_per_byte": 1.25}, {"model": "random rows", "bits_per_byte": 3.5}],
        "seconds": {"assets": 1.7},
        "settings": {"steps": 4},
    }
    alignment = Alignment.load(aligned.path / "alignment")
    vocabularies = load_vocabulary("smollm2-135m"), load_vocabulary("sp32k")
    page = write_report(tmp_path, result, alignment, *vocabularies).read_text(encoding="utf-8")
    for words in ("CPU &lt;1 thread&gt;", "<h2>The models", "2.2500", "least sure", "tokalign-lab demo", "<td>assets"):
        assert words in page
    assert page.count("Plotly.newPlot(") >= 2
    assert "<script>alert(1)</script>" not in page


def test_a_report_begins_with_an_alignment_that_has_finished(aligned: RunFolder, tmp_path: Path) -> None:
    run = tuned(tmp_path / "adapt-1", tmp_path)
    with pytest.raises(InputError, match="adapt-1 is no alignment"):
        write_run_report(tmp_path / "report.html", run)
    assert not (tmp_path / "report.html").exists()


def test_scores_that_were_not_measured_have_no_row() -> None:
    assert score_rows({}) == []


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("align", {"source": "a", "target": "b c", "text": ["x", "y z"], "recipe": "anchored", "seed": 3}),
        ("rearrange", {"model": "m", "lexicon": "l.parquet", "keep_tied": True, "seed": 0}),
        ("rearrange", {"model": "m", "lexicon": "l.parquet", "keep_tied": False, "pad_to_multiple_of": 64}),
        ("adapt", {"model": "m", "text": ["t"], "steps": 5, "mix": {"de": 2.0}, "cross_documents": False,
                   "bf16": True, "max_bytes": 10, "learning_rate_stage1": 1e-4}),
    ],
)  # fmt: skip
def test_the_command_of_a_run_is_one_that_the_command_line_takes(kind: str, settings: dict[str, object]) -> None:
    words = shlex.split(command_of({"kind": kind, "settings": settings}))
    assert words[:2] == ["tokalign-lab", kind]
    command = typer.main.get_command(commands).commands[kind]
    context = command.make_context(kind, words[2:])  # refuses an option that it does not have
    if "mix" in settings:
        assert context.params["mix"] == ["de=2.0"]
        assert context.params["cross_documents"] is False
    if "text" in settings:
        assert context.params["text"] == settings["text"]


def test_a_run_kind_without_a_command_is_shown_as_python() -> None:
    line = command_of({"kind": "measure", "settings": {"model": "it's"}})
    assert shlex.split(line)[0] == "python"
    compile(shlex.split(line)[2], "line", "exec")


class TestApp:
    def test_the_page_is_the_lab_of_a_folder(self, tmp_path: Path) -> None:
        lab_app.write_page(tmp_path / "lab.ipynb", tmp_path / "my runs")
        (cell,) = json.loads((tmp_path / "lab.ipynb").read_text())["cells"]
        assert str(tmp_path / "my runs") in "".join(cell["source"])

    def test_asks_for_a_token_on_loopback(self) -> None:
        options = lab_app.options(1, lab_app.LOOPBACK, browser=False)
        assert {"--Voila.ip=127.0.0.1", "--no-browser"} <= set(options)
        assert lab_app.configuration("secret")["Voila"]["token"] == "secret"

    def test_a_taken_port_is_one_sentence(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(InputError, match="cannot be listened on"):
                lab_app.serve(tmp_path, taken.getsockname()[1])
