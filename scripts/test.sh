#!/usr/bin/env bash
# Everything that must hold before a change is merged: style, types, tests.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install_chromium.sh
scripts/assets.sh pythia qwen2
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/pytest
