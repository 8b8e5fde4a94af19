"""`benchmarks/gpu_check.py` without a GPU, in small sizes, with only the packages that it lists as needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import save_tiny, tiny_tokenizer

ROOT = Path(__file__).parent.parent
ABSENT = ("gensim", "umap", "plotly", "ipywidgets", "datasets", "pydantic")


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import gpu_check

    return gpu_check


def test_every_check_passes_on_a_cpu_without_the_packages_of_the_lab(tmp_path: Path) -> None:
    """The tiny model is of a kind with a bias in its head, so that calibration has an effect."""
    save_tiny(tmp_path / "model", "phi", size=400)
    tiny_tokenizer(300).save_pretrained(tmp_path / "target")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    assert subprocess.run([sys.executable, "-c", "import gensim"], env=environment, capture_output=True).returncode
    options = ["--device", "cpu", "--quick", "--threads", "1", "--encoder", "", "--minutes", "60"]
    options += ["--model", str(tmp_path / "model"), "--target", str(tmp_path / "target")]
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), *options, "--out", str(tmp_path / "out.md")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"check"')]
    assert {row["check"]: row["ok"] for row in rows} == {row["check"]: "ok" for row in rows}, done.stderr
    assert len(rows) == 15
    assert done.returncode == 0
    assert all(row["check"] in (tmp_path / "out.md").read_text() for row in rows)


def test_a_difference_above_the_tolerance_fails(gpu_check) -> None:
    check = gpu_check.Check("x", gpu_check.bits, gpu_check.apart, 0.1, "bits")
    expected = {"bits": np.ones(3), "seconds": 1.0}
    for tried, ok in ((1.05, "ok"), (1.2, "NOT OK"), (np.nan, "NOT OK")):
        assert gpu_check.row_of(check, {"bits": [1, 1, tried], "seconds": 1.0}, expected)["ok"] == ok
    assert gpu_check.row_of(check, {"bits": [1, 1], "seconds": 1.0}, expected)["difference"] == "inf"
    failed = gpu_check.row_of(check, {"error": "cuda: RuntimeError: out of memory"}, expected)
    assert failed["ok"] == "NOT OK"
    assert "out of memory" in failed["note"]


def test_measures_compute_what_their_names_say(gpu_check) -> None:
    one, other = np.array([[3.0, 4.0], [0.0, 5.0]]), np.array([[3.0, 4.5], [0.0, 5.0]])
    assert gpu_check.of_rows(other, one) == pytest.approx(0.1)
    assert gpu_check.apart(other, one) == 0.5
    assert gpu_check.relative(other[:, 1], one[:, 1]) == pytest.approx(0.125)
    assert gpu_check.unequal(np.array(["a", "b"]), np.array(["a", "c"])) == 1
