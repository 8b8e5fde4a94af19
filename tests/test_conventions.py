"""What people expect of any Python package: where it caches, what it installs, how it reports to other tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tokalign_lab.files import cache_folder


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("/own", "/shared", "/own"),
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


LAB_PACKAGES = ("anywidget", "ipywidgets", "jupyterlab", "plotly", "umap")

WITHOUT_LAB = """
import sys
for name in {packages}:
    sys.modules[name] = None  # as if it were not installed
import numpy as np
import subprocess
import sys
from pathlib import Path
from typer.testing import CliRunner
from tokalign_lab.cli import app
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
    assert subjects == ["The report", "The app", "The panels", "A UMAP map"]
    assert all(sentence.endswith("pip install 'tokalign-lab[lab]'.") for sentence in sentences)
