#!/usr/bin/env bash
# Everything that must hold before a change is merged: style, types, tests.
#
#   JOBS=1 scripts/test.sh     one test file at a time (default: one for each core, at most four)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install_chromium.sh
scripts/assets.sh pythia qwen2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
failed=0
# Side by side, each file has one thread for its arithmetic: waiting threads would take the others' cores.
OMP_NUM_THREADS=1 .venv/bin/pytest -n "$(scripts/jobs.sh)" --dist loadfile --ignore=tests/ui || failed=1
# A browser that waits for a busy machine gives up, so its tests have the machine for themselves.
.venv/bin/pytest tests/ui || failed=1
exit "$failed"
