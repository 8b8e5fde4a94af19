"""lm-eval is an optional extra: without it all modules import, and one sentence names the extra to install."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
sys.modules["lm_eval"] = None  # as if it were not installed
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation import tasks
try:
    tasks.check_harness()
except InputError as error:
    print(error)
"""


def test_without_the_harness_the_modules_import_and_a_sentence_names_the_extra() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "pip install 'tokalign-lab[tasks]'" in done.stdout
    assert len(done.stdout.splitlines()) == 1
