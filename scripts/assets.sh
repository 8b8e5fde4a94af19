#!/usr/bin/env bash
# Fetch the assets that the quick start, the demo and the tests use; those that are already cached are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/tokalign-lab assets get smollm2-135m sp32k minilm default "$@"
