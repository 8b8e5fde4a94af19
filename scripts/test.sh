#!/usr/bin/env bash
# All checks that must pass before a change is merged: style, types, tests.
#
#   JOBS=1 scripts/test.sh          one test file at a time (default: one per core, at most four)
#   NOTEBOOKS=yes scripts/test.sh   run the notebooks too, while the browser tests leave a core idle (Linux)
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/mypy & # has one thread
mypy=$!
scripts/install_chromium.sh
scripts/assets.sh pythia qwen2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
wait "$mypy"
failed=0
# In parallel, each file has one thread for arithmetic, because waiting threads would block the other files.
OMP_NUM_THREADS=1 .venv/bin/pytest -n "$(scripts/jobs.sh)" --dist loadfile --ignore=tests/ui || failed=1
if [ -n "${NOTEBOOKS:-}" ]; then
    log="$(mktemp)"
    # With this policy, they use only the time of a core that no other process wants.
    chrt --idle 0 scripts/notebooks.sh >"$log" 2>&1 &
    notebooks=$!
fi
# No other tests run next to the browser tests, because on a busy machine their time limits are exceeded.
.venv/bin/pytest tests/ui || failed=1
if [ -n "${NOTEBOOKS:-}" ]; then
    wait "$notebooks" || failed=1
    cat "$log"
fi
exit "$failed"
