"""Pages of results are built from raw data: they are up to date, short, and all in the same order."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import pytest

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "results"
RESULTS = [page for page in sorted(PAGES.glob("*.md")) if page.name != "README.md"]
PARTS = ["Question", "Answer", "Limits", "Command", "Raw data"]


@pytest.fixture(scope="module")
def built() -> Any:
    """Import the modules of `make results`, whose names are short."""
    folder = str(ROOT / "benchmarks" / "pages")
    names = ("index", "moves", "page", "plots", "recovery", "speed")
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, folder)
    import index
    import page

    yield {"index": index, "page": page}
    sys.path.remove(folder)
    sys.modules.update({name: module for name, module in before.items() if module is not None})


def test_make_results_builds_exactly_what_is_committed(built: dict[str, ModuleType], tmp_path: Path) -> None:
    built["index"].build(tmp_path)
    made, committed = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path, PAGES)
    )
    assert made.keys() == committed.keys()
    version = f"Matplotlib v{matplotlib.__version__},".encode()  # another version may write the same plot differently
    known = [name for name in made if name.endswith(".md") or version in committed[name]]
    assert [name for name in known if made[name] != committed[name]] == []


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_page_has_its_parts_in_order_and_a_small_table(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [part for part in re.findall(r"^\*\*([A-Z][a-z ]+)\.\*\*", text, flags=re.MULTILINE) if part in PARTS]
    assert found == PARTS
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) - 2 <= 6
    assert all(line.count("|") - 1 <= 5 for line in rows)
    answer = re.search(r"\*\*Answer\.\*\* (.*)", text)
    assert answer
    assert len(re.findall(r"[.!?](?: |$)", answer[1])) == 1, "the answer is one sentence"
    assert text.index("![") < text.index("\n| ")


def test_all_pages_together_stay_short() -> None:
    assert sum(len(page.read_text(encoding="utf-8").split()) for page in PAGES.glob("*.md")) < 7_000


def test_the_index_begins_with_negative_results() -> None:
    text = (PAGES / "README.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)", text, flags=re.MULTILINE)
    assert headings[0] == "What does not work"
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        verdicts = re.findall(r"^\| \*\*(not met|not tested|met)\*\*", section, flags=re.MULTILINE)
        assert verdicts == sorted(verdicts, key=["not met", "not tested", "met"].index)
    claims = re.findall(r"^\| \*\*.*", text, flags=re.MULTILINE)
    assert [row for row in claims if not re.search(r" \| \[[^]]{2,}\]\([^)]+\) \|$", row)] == [], (
        "a figure and its page"
    )


def test_recovery_with_several_targets_budgets_and_seeds_becomes_a_page(built: dict[str, ModuleType]) -> None:
    def line(way: str, tokens: int, bits: float, target: str = "sp32k", **more: Any) -> dict[str, Any]:
        figures = dict.fromkeys(("prose", "o_en", "o_code", "o_de"), bits)
        return {"way": way, **figures, **more, "settings": {"threads": 1, "tokens": tokens, "target": target}}

    lines = [
        line("step 0", 10_000, 1.5),
        line("papers", 10_000, 1.45),
        line("recover", 10_000, 1.3, seed=0),
        line("recover", 10_000, 1.5, seed=1),
        line("control", 10_000, 1.0),
        line("step 0", 30_000, 1.5),
        line("recover", 30_000, 1.2, seed=0),
        line("step 0", 10_000, 2.0, "qwen2"),
        line("papers", 10_000, 1.9, "qwen2"),
        line("recover", 10_000, 1.5, "qwen2", seed=0),
        line("control", 10_000, 1.0, "qwen2"),
    ]
    raw = built["page"].Raw("recovery", lines)
    text = built["page"].write("recovery", raw, built["index"].MAKERS["recovery"][1])
    # (1.5 - mean of 1.3 and 1.5) / (1.5 - 1.0); the control was not measured with 30,000 tokens
    assert "closes 20 % and 20 % (sp32k, 10,000 tokens), 50 % and 50 % (qwen2, 10,000 tokens)" in text
    assert "| sp32k, `recover` | 1.40 (20 %) | 1.40 (20 %) |" in text
    assert "2 seeds at 10,000 and 1 seed at 30,000 (sp32k)" in text
    recovery = sys.modules["recovery"]
    assert recovery.closed_by_tokens(raw)[30_000]["o_en"] == pytest.approx(0.6)
    assert recovery.behind(raw, "prose") == pytest.approx([0.4, 0.5])


def test_the_run_before_is_kept_and_shown(built: dict[str, ModuleType], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", ["benchmarks/utilisation.py", "--out", "x.jsonl", "--steps", "4"])
    harness = pytest.importorskip("harness")
    out = tmp_path / "utilisation.jsonl"
    out.write_text(json.dumps({"value": 1, "settings": {"steps": 4}}) + "\n")
    row = {
        "stage": 1,
        "tokens_per_second": 1.0,
        "GFLOP_per_token": 1.0,
        "utilisation": 0.8,
        "half_of_attention_counted": 0.7,
    }
    for share in (0.8, 0.9):
        rows = [{**row, "utilisation": share}, {**row, "stage": 2, "utilisation": share}]
        harness.report("Use", [("Both stages", rows)], ["a note"], out)
    raw = built["page"].Raw("utilisation", [json.loads(line) for line in out.read_text().splitlines()])
    assert raw.about["command"] == "python benchmarks/utilisation.py --steps 4"
    assert len(raw.measured) == 1
    text = built["page"].write("utilisation", raw, built["index"].MAKERS["utilisation"][1])
    assert "At 90 % in stage 1" in text
    assert re.search(r"\*\*Run of \d{4}-\d\d-\d\d\.\*\* At 80 % in stage 1", text)
    raw.lines[:] = [{**line, "utilisation": 0.8} if "utilisation" in line else line for line in raw.lines]
    text = built["page"].write("utilisation", raw, built["index"].MAKERS["utilisation"][1])
    assert text.count("80 % in stage 1") == 1, "an answer is not repeated"
