#!/usr/bin/env bash
# Run every notebook from top to bottom in small sizes, several at a time, each with a separate folder of runs.
#
#   JOBS=1 scripts/notebooks.sh     one at a time (default: one per core, at most four)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/assets.sh pythia qwen2 gemma-3-270m
# In parallel, each notebook has one thread for arithmetic, because waiting threads would block the other notebooks.
export TOKALIGN_FAST=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1
# Start with the largest file, which is roughly the longest notebook.
find notebooks -name '*.ipynb' -not -path '*/.*' -printf '%s %p\n' | sort -rn | cut -d' ' -f2- |
    xargs .venv/bin/python scripts/notebooks.py "$(scripts/jobs.sh)"
