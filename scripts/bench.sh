#!/usr/bin/env bash
# Run each benchmark; each prints its own table.
set -euo pipefail
cd "$(dirname "$0")/.."

for file in benchmarks/*.py; do
    [ -e "$file" ] || { echo "There are no benchmarks yet."; exit 0; }
    echo "== $file"
    .venv/bin/python "$file"
done
