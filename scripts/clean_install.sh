#!/usr/bin/env bash
# Install the wheel in clean environments, without extras and with `[lab]`, and run every command in each.
# Usage: scripts/clean_install.sh [FOLDER]; FOLDER keeps the environments for the next time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work/clean"
git -C "$root" archive HEAD | tar x -C "$work/clean" # no build folder and no untracked file
"$root/.venv/bin/python" -m pip wheel --quiet --no-deps -w "$work" "$work/clean"
wheel=$(ls -t "$work"/*.whl | head -1)
for extras in light lab; do
    environment=$work/$extras
    [ -d "$environment" ] || "$root/.venv/bin/python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet -c "$root/constraints.txt" "$wheel$([ $extras = light ] || echo "[$extras]")"
    "$environment/bin/python" -m pip install --quiet --no-deps --force-reinstall "$wheel"
    rm -rf "$work/run of $extras"
    (cd "$work" && "$environment/bin/python" "$root/scripts/clean_install.py" "$work/run of $extras" $extras)
done
