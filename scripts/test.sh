#!/usr/bin/env bash
# All checks that must pass before a change is merged: style, types, tests.
#
#   JOBS=1 scripts/test.sh     one test file at a time (default: one per core, at most four)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install_chromium.sh
scripts/assets.sh pythia qwen2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
failed=0
# In parallel, each file has one thread for arithmetic, because waiting threads would block the other files.
OMP_NUM_THREADS=1 .venv/bin/pytest -n "$(scripts/jobs.sh)" --dist loadfile --ignore=tests/ui || failed=1
# The browser tests run alone, because on a busy machine their time limits are exceeded.
.venv/bin/pytest tests/ui || failed=1
exit "$failed"
