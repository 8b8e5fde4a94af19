"""The rules of every notebook, checked from the files; `make notebooks` runs them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
LESSONS = [path for path in NOTEBOOKS if re.match(r"0[1-9]_", path.name)]
RESEARCH = [path for path in NOTEBOOKS if path.parent.name == "research"]
LONGEST_CELL = 25  # lines


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def sources(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == kind]


def name_of(path: Path) -> str:
    return path.stem


every = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
lesson = pytest.mark.parametrize("path", LESSONS, ids=name_of)
research = pytest.mark.parametrize("path", RESEARCH, ids=name_of)


def test_all_lessons_exist() -> None:
    assert [path.name[:2] for path in LESSONS] == ["01", "02", "03", "04", "05", "06", "07", "08"]
    named = {"corpus_size", "extreme_divergence", "metrics_and_first_loss", "proxy_text", "stages"}
    assert {path.stem for path in RESEARCH} == named


def test_readme_and_tutorial_name_every_notebook() -> None:
    for page in ("README.md", "docs/tutorial.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert [path.name for path in NOTEBOOKS if path.relative_to(ROOT).as_posix() not in text] == []


@every
def test_imported_modules_exist(path: Path) -> None:
    imported = re.findall(r"^from (tokalign_lab[\w.]*) import", "\n".join(sources(path, "code")), re.MULTILINE)
    assert [module for module in imported if importlib.util.find_spec(module) is None] == []


@every
def test_notebooks_contain_no_outputs(path: Path) -> None:
    for cell in read(path)["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        assert "execution" not in cell["metadata"]  # when a cell was run, and for how long


@every
def test_notebooks_use_the_default_kernel(path: Path) -> None:
    assert read(path)["metadata"]["kernelspec"]["name"] == "python3"


@every
def test_cells_have_unique_ids(path: Path) -> None:
    names = [cell["id"] for cell in read(path)["cells"]]
    assert len(set(names)) == len(names)


@every
def test_cells_are_short(path: Path) -> None:
    assert [cell for cell in sources(path, "code") if len(cell.splitlines()) > LONGEST_CELL] == []


@every
def test_figures_fit_the_dark_theme(path: Path) -> None:
    code = "\n".join(sources(path, "code"))
    assert ("go.Figure" in code) == ("\nplain_figures()" in code)


@every
def test_a_notebook_begins_with_its_learning_goals(path: Path) -> None:
    first = read(path)["cells"][0]
    text = "".join(first["source"])
    assert first["cell_type"] == "markdown"
    assert text.startswith("# ")
    assert "you will" in text.lower()
    assert len(re.findall(r"^- ", text, flags=re.MULTILINE)) >= 3


@lesson
def test_a_lesson_lists_what_readers_can_do_afterwards(path: Path) -> None:
    assert "able to" in sources(path, "markdown")[0]


@lesson
def test_a_prediction_is_asked_for_before_the_cell_with_the_answer(path: Path) -> None:
    cells = read(path)["cells"]
    asking = [
        (place, "".join(cell["source"]))
        for place, cell in enumerate(cells)
        if cell["cell_type"] == "code" and "".join(cell["source"]).startswith("prediction = ")
    ]
    assert len(asking) >= 2
    for place, code in asking:
        assert "{prediction" in code  # the prediction is compared with the result
        before = ["".join(cell["source"]) for cell in cells[max(0, place - 2) : place]]
        assert any("**Predict:**" in text for text in before)


@lesson
def test_a_lesson_breaks_something_on_purpose(path: Path) -> None:
    assert any(re.search(r"^## .*Break it", text, flags=re.MULTILINE) for text in sources(path, "markdown"))


@lesson
def test_the_exercise_has_a_check_and_a_solution(path: Path) -> None:
    code = sources(path, "code")
    (exercise,) = [cell for cell in code if "def check(answer)" in cell]
    assert re.search(r"^answer = None", exercise, flags=re.MULTILINE)
    assert "Not answered yet" in exercise
    last = read(path)["cells"][-1]
    assert last["metadata"]["jupyter"]["source_hidden"] is True
    assert "if fast():\n    assert check(solution)" in "".join(last["source"])


@research
def test_a_research_notebook_has_question_method_and_what_would_change_our_mind(path: Path) -> None:
    text = "\n".join(sources(path, "markdown"))
    headings = re.findall(r"^##+ (.*)$", text, flags=re.MULTILINE)
    parts = ["Question", "Method", "Result", "What would change our mind"]
    assert [heading for heading in headings if heading in parts] == parts
    assert len(re.findall(r"^- ", text.split("## What would change our mind")[1], flags=re.MULTILINE)) >= 2


@research
def test_a_research_notebook_has_seeds_and_intervals_and_runs_live(path: Path) -> None:
    code = "\n".join(sources(path, "code"))
    assert "seeds = range(1 if fast() else" in code
    assert re.search(r"per_byte|of_mean|intervals", code)
    assert re.search(r"document_bits\(|tuned\(|bits_per_byte\(", code)


@research
def test_a_research_notebook_is_short(path: Path) -> None:
    assert 8 <= len(read(path)["cells"]) <= 16


@research
def test_recorded_results_name_an_existing_program(path: Path) -> None:
    code = "\n".join(sources(path, "code"))
    programs = re.findall(r"python (benchmarks/\w+\.py)", code)
    assert programs or path.stem == "proxy_text"  # which is its own experiment
    assert all((ROOT / program).is_file() for program in programs)
