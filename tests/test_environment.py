"""All ways to install give the same packages, and the engine imports without the packages of the notebooks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

BLOCKED = """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ipywidgets", "plotly", "anywidget", "jscatter", "jupyterlab", "IPython", "umap"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import tokalign_lab
names = [m.name for m in pkgutil.walk_packages(tokalign_lab.__path__, "tokalign_lab.", onerror=lambda name: None)]
names = [n for n in names if not n.startswith(("tokalign_lab.widgets", "tokalign_lab.plots"))]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def pinned() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower(): line.split("==")[1] for line in lines}


def required() -> list[Requirement]:
    extras = [text for texts in PROJECT["project"]["optional-dependencies"].values() for text in texts]
    groups = [text for group in PROJECT["dependency-groups"].values() for text in group if isinstance(text, str)]
    return [Requirement(text) for text in PROJECT["project"]["dependencies"] + groups + extras]


def test_nothing_needs_a_home_folder_that_can_be_written_to(tmp_path: Path) -> None:
    package = tmp_path / "tokalign_lab"
    shutil.copytree(ROOT / "tokalign_lab", package, ignore=shutil.ignore_patterns("__pycache__", "data", "notebooks"))
    for folder in ("vectors", "alignment/search", "alignment/methods"):
        (package / folder / "__pycache__").touch()  # a file, so that not even root can write into it
    code = "import tokalign_lab.alignment.methods.induction\n"
    code += "from tokalign_lab.vectors import compiled, stream; print(compiled.__file__, compiled.IS_CACHED)"
    for cache, kept in (tmp_path / "cache", True), (Path("/dev/null/cache"), False):
        environment = {**os.environ, "HOME": "/dev/null", "PYTHONPATH": str(tmp_path), "TOKALIGN_CACHE": str(cache)}
        environment.pop("XDG_CACHE_HOME", None)
        ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd="/")
        assert ended.stdout.split() == [str(package / "vectors" / "compiled.py"), str(kept)], ended.stderr


@pytest.mark.parametrize("order", ["numba first", "torch first"])
def test_numba_keeps_the_number_of_threads_of_torch(order: str) -> None:
    imports = ["import tokalign_lab.vectors.strips, numba", "import torch"]
    code = "; ".join(imports if order == "numba first" else imports[::-1])
    code += "; numba.set_num_threads(numba.get_num_threads()); print(torch.get_num_threads())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert ended.stdout.split() == ["1"], ended.stderr


def test_environment_yml_installs_this_project_with_the_same_constraints() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["project"]["name"]
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python="))
    assert (
        Version(python.removeprefix("python="))
        in Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    )
    assert "pip" in environment["dependencies"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-c constraints.txt", "-e .[lab,app]"]


def test_constraints_pin_every_requirement_to_a_version_that_it_allows() -> None:
    versions = pinned()
    for requirement in required():
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert name in versions, f"constraints.txt lacks {name}"
        assert requirement.specifier.contains(versions[name], prereleases=True), f"{requirement} but {versions[name]}"
    assert "+" not in versions["torch"]


def test_engine_names_what_it_needs() -> None:
    names = {requirement.name for requirement in required()}
    assert {"torch", "transformers", "tokenizers", "gguf", "pytest"} <= names
    assert {"jupyterlab", "ipywidgets", "plotly", "jupyter-scatter"} <= names


def test_every_package_is_listed_for_installation() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "tokalign_lab").rglob("__init__.py")}
    folders |= {"tokalign_lab" / path.parent.relative_to(ROOT) for path in (ROOT / "widgets").rglob("__init__.py")}
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert {".".join(folder.parts) for folder in folders} == listed


def test_engine_imports_without_widgets_and_plotly() -> None:
    result = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 20


@pytest.mark.parametrize(
    "target", ["help", "setup", "lab", "test", "demo", "lint", "notebooks", "bench", "docs", "clean"]
)
def test_make_help_lists_the_target(target: str) -> None:
    shown = subprocess.run(["make", "-s", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE)


# A stand-in for Python whose pip only records when it runs; everything except `-m` runs the real Python.
FAKE_PYTHON = """#!/bin/bash
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pip" ;;
"-m ensurepip") touch .venv/pip; echo ensurepip >>record ;;
"-m pip")
    if [ "$3" = --version ]; then [ -e .venv/pip ]; exit; fi
    echo "begin $$" >>record; sleep 0.2; echo "end $$" >>record ;;
*) exec REAL "$@" ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which `setup.sh` can run with a Python that installs nothing."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name, content in (
        ("python", FAKE_PYTHON.replace("REAL", sys.executable)),
        ("df", "#!/bin/sh\nprintf 'x\\n1 2 3 99999\\n'\n"),
    ):
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def set_up(project: Path, kind: str = "base") -> subprocess.Popen[str]:
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHON": str(project / "bin" / "python")}
    command = ["bash", project / "scripts" / "setup.sh", kind]
    return subprocess.Popen(
        command, env=env, cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )


def pips_in_turn(project: Path) -> list[str]:
    """Return the process ids of the pips that ran, after a check that no two ran at the same time."""
    numbers = re.findall(r"(?:begin|end) (\d+)", (project / "record").read_text())
    assert numbers[::2] == numbers[1::2]
    return numbers[::2]


def test_of_two_setups_at_once_one_waits_for_the_other(project: Path) -> None:
    both = [set_up(project, "dev"), set_up(project, "dev")]
    printed = sorted((process.communicate(timeout=300)[0] for process in both), key=len)
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed[0].splitlines() == [
        "Another process is making .venv; waiting for it.",
        "The environment in .venv is up to date.",
    ]
    assert len(pips_in_turn(project)) == 4, "one of them installs"


def test_a_setup_after_a_killed_one_waits_for_its_pip_and_repairs_the_environment(project: Path) -> None:
    first = set_up(project)
    while not (project / "record").exists() or "begin" not in (project / "record").read_text():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)  # not its pip
    first.wait()
    begun = (project / "record").read_text().count("begin")
    (project / ".venv" / "pip").unlink()
    second = set_up(project)
    assert "is ready" in second.communicate(timeout=300)[0]
    assert "ensurepip" in (project / "record").read_text()
    assert len(pips_in_turn(project)) == begun + 3
