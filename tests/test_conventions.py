"""Conventions of Python packages: the cache folder, extras, copied notebooks, trackers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import WORDS, save_tiny
from typer.testing import CliRunner

from tokalign_lab import pipeline
from tokalign_lab.adaptation.settings import AdaptRunSettings, AdaptSettings
from tokalign_lab.adaptation.train import adapt
from tokalign_lab.cli import app
from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_file, cache_folder, sha256_of
from tokalign_lab.lessons import RECORD

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("/own", "/shared", "/own"),
        ("~/own", None, "/home/me/own"),
        (None, "/shared", "/shared/tokalign-lab"),
        ("", "/shared", "/shared/tokalign-lab"),
        (None, None, "/home/me/.cache/tokalign-lab"),
        (None, "", "/home/me/.cache/tokalign-lab"),
        (None, "relative", "/home/me/.cache/tokalign-lab"),
    ],
)
def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, own: str | None, shared: str | None, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("TOKALIGN_CACHE", own), ("XDG_CACHE_HOME", shared)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


LAB_PACKAGES = ("anywidget", "ipywidgets", "jscatter", "jupyterlab", "plotly", "umap")

WITHOUT_LAB = """
import sys
for name in {packages}:
    sys.modules[name] = None  # as if it were not installed
import numpy as np
import json
import subprocess
import sys
from pathlib import Path
from typer.testing import CliRunner
from tokalign_lab import pipeline
from tokalign_lab.adaptation.settings import AdaptRunSettings, AdaptSettings
from tokalign_lab.adaptation.train import adapt
from tokalign_lab.cli import app
from tokalign_lab.errors import InputError
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.token_vectors import TokenVectors

def commands(*words):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2, (words, done.exception)
    print(done.stderr)

def library(what):
    try:
        what()
    except InputError as error:
        print(error)

def umap():
    from tokalign_lab.projection import project
    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    vectors = TokenVectors(np.arange(20), rows, np.ones(20, dtype=np.int64), "none")
    assert len(project([vectors], "pca")) == 1
    project([vectors], "umap")

def panels():
    import tokalign_lab.widgets

commands("demo", "--out", "{folder}/demo")
assert not Path("{folder}/demo").exists()
commands("app", "--runs", "{folder}/runs")
library(panels)
library(umap)
"""


def test_without_the_extra_lab_the_engine_works_and_each_part_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    program = WITHOUT_LAB.format(packages=LAB_PACKAGES, folder=tmp_path)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sentences = [line for line in done.stdout.splitlines() if line]
    subjects = [sentence.split(" needs ")[0] for sentence in sentences]
    assert subjects == ["The report", "The app", "A panel", "A UMAP map"]
    assert all(sentence.endswith("pip install 'tokalign-lab[lab]'.") for sentence in sentences)


def notebooks(folder: Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["notebooks", str(folder), "--json"])
    return {"exit_code": done.exit_code, **json.loads(done.stdout.splitlines()[-1])}


def test_notebooks_are_copied_and_an_edited_one_is_kept(tmp_path: Path) -> None:
    originals = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}
    folder = tmp_path / "my" / "lessons"
    made = notebooks(folder)
    assert len(originals) == 9
    assert (made["copied"], made["kept"]) == (sorted(originals), [])
    assert {path.name: path.read_bytes() for path in folder.glob("*.ipynb")} == originals

    edited, older, removed = sorted(originals)[:3]
    (folder / edited).write_text("{}")
    (folder / older).write_text("[]")  # as an earlier version of the package copied it
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, older: sha256_of(folder / older)}))
    (folder / removed).unlink()
    (folder / "mine.txt").write_text("a note")
    again = notebooks(folder)
    assert again["kept"] == [edited]
    assert (folder / edited).read_text() == "{}"
    assert (folder / older).read_bytes() == originals[older]
    assert (folder / removed).read_bytes() == originals[removed]
    assert (folder / "mine.txt").read_text() == "a note"
    assert notebooks(folder)["kept"] == [edited]  # also at the third call


@pytest.mark.parametrize(
    ("inside", "message"), [("file.txt", "not empty"), (RECORD, "is damaged"), (None, "is not a folder")]
)
def test_notebooks_are_not_copied_into_a_folder_with_other_files(
    tmp_path: Path, inside: str | None, message: str
) -> None:
    folder = tmp_path / "mine"
    if inside is None:
        folder.write_text("[]")
    else:
        folder.mkdir()
        (folder / inside).write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    done = notebooks(folder)
    assert done["exit_code"] == 2
    assert message in done["error"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_path_that_cannot_hold_a_folder_is_refused() -> None:
    done = notebooks(Path("/proc/notebooks"))
    assert done["exit_code"] == 2
    assert "'/proc/notebooks' cannot be made there" in done["error"]
    with pytest.raises(InputError, match="no folder can be made there"), atomic_file(Path("/proc/folder/file")):
        pass


# In a separate process: setuptools refuses to be imported after the standard library's distutils.
MATCH = """
import json, sys
from setuptools._distutils.filelist import FileList

names, lines = json.load(sys.stdin)
files = FileList()
files.set_allfiles(names)
for line in lines:
    files.process_template_line(line)
print(json.dumps(files.files))
"""


def test_the_source_distribution_has_what_the_tests_need() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    names = listed.stdout.splitlines()
    given = json.dumps([names, (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()[1:]])
    done = subprocess.run([sys.executable, "-c", MATCH], input=given, capture_output=True, text=True, check=True)
    packaged = ("tokalign_lab/", "widgets/", "pyproject.toml", "LICENSE", "environment.yml")
    missing = {name for name in names if not name.startswith(packaged)} - set(json.loads(done.stdout))
    assert missing == {"MANIFEST.in"}, "setuptools adds it itself"


# A writer with the interface of tensorboardX, which the trainer uses if TensorBoard is not installed.
WRITER = """
import json
from pathlib import Path

class SummaryWriter:
    def __init__(self, log_dir):
        Path(log_dir).mkdir(parents=True)
        self._file = open(Path(log_dir) / "scalars.jsonl", "w")

    def add_text(self, *words):
        pass

    def add_scalar(self, name, value, step):
        self._file.write(json.dumps([name, value, step]) + "\\n")

    def flush(self):
        self._file.flush()

    def close(self):
        self._file.close()
"""


@pytest.fixture
def tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A tiny model and a text; no tracker is installed except the one that a test makes."""
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    for name in ("tensorboard", "tensorboardX", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number}. {WORDS}" for number in range(40)), encoding="utf-8")
    return str(save_tiny(tmp_path / "tiny")), str(text)


def test_a_run_reports_each_step_and_measurement_to_a_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuning: tuple[str, str]
) -> None:
    (tmp_path / "packages" / "tensorboardX").mkdir(parents=True)
    (tmp_path / "packages" / "tensorboardX" / "__init__.py").write_text(WRITER)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "tensorboardX")
    model, text = tuning
    size = {"batch_size": 2, "sequence_length": 16, "evaluate_bytes": 200, "held_out_share": 0.2, "sample_tokens": 1}
    settings = AdaptSettings(steps=4, stage1_share=0.5, evaluate_every=1, report_to="tensorboard", **size)
    events: list[dict[str, Any]] = []
    adapt(model, [text], settings, tmp_path / "run", emit=events.append, device="cpu")

    assert not (tmp_path / "run" / "checkpoints").exists()
    reported = [
        (stage, *json.loads(line))
        for stage in (1, 2)
        for line in (tmp_path / "run" / "tensorboard" / f"stage{stage}" / "scalars.jsonl").read_text().splitlines()
    ]
    losses = {(stage, step): value for stage, name, value, step in reported if name == "train/loss"}
    steps = {
        (event["stage"], event["step"] - 2 * (event["stage"] - 1)): event["loss"]
        for event in events
        if event["kind"] == "step"
    }
    assert losses == steps
    assert len(losses) == 4
    bits = [value for _, name, value, _ in reported if name == "eval/bits_per_byte"]
    measured = [event["bits_per_byte"] for event in events if event["kind"] == "evaluation"]
    assert bits == measured[1:]  # the first is of the model before tuning
    assert len(bits) == 4


def test_a_tracker_that_is_not_installed_is_named_before_a_run_is_made(tmp_path: Path, tuning: tuple[str, str]) -> None:
    model, text = tuning
    with pytest.raises(InputError, match=r"report_to names wandb, .* pip install wandb\.$"):
        pipeline.check_tune(AdaptRunSettings.from_dict({"model": model, "text": [text], "report_to": "wandb"}))
    with pytest.raises(InputError, match="report_to names trackio"):
        adapt(model, [text], AdaptSettings(report_to="trackio"), tmp_path / "run", emit=print)
    assert not (tmp_path / "run").exists()


def test_trackers_are_named_with_commas_and_an_unknown_one_is_refused() -> None:
    assert AdaptSettings().trackers == ()
    assert AdaptSettings(report_to="wandb, tensorboard,wandb").trackers == ("wandb", "tensorboard")
    with pytest.raises(InputError, match="no tracker 'mlflow'"):
        AdaptSettings(report_to="wandb,mlflow")
