#!/usr/bin/env bash
# Run every notebook from top to bottom in small sizes, several at a time, each with runs of its own.
#
#   JOBS=1 scripts/notebooks.sh     one at a time (default: one for each core, at most four)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/assets.sh pythia qwen2 gemma-3-270m
# Side by side, each has one thread for its arithmetic: waiting threads would take the others' cores.
export TOKALIGN_FAST=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
# The largest file is the longest notebook, more or less: it comes first.
find notebooks -name '*.ipynb' -not -path '*/.*' -printf '%s %p\n' | sort -rn | cut -d' ' -f2- |
    xargs .venv/bin/python scripts/notebooks.py "$(scripts/jobs.sh)"
