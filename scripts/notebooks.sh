#!/usr/bin/env bash
# Run every notebook from top to bottom in small sizes, several at a time, each with runs of its own.
#
#   JOBS=1 scripts/notebooks.sh     one at a time (default: one for each core, at most four)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/assets.sh pythia qwen2 gemma-3-270m
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Side by side, each has one thread for its arithmetic: waiting threads would take the others' cores.
export TOKALIGN_FAST=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 work
# The largest file is the longest notebook, more or less: it comes first.
find notebooks -name '*.ipynb' -not -path '*/.*' -printf '%s %p\n' | sort -rn | cut -d' ' -f2- |
    xargs -P "$(scripts/jobs.sh)" -I{} bash -c '
        log=$(mktemp -p "$work")
        status=0
        TOKALIGN_RUNS=$(mktemp -d -p "$work") .venv/bin/pytest -p no:cacheprovider --nbmake --nbmake-timeout=1800 "$1" \
            >"$log" 2>&1 || status=$?
        echo "== $1"
        cat "$log"
        exit "$status"' _ {}
