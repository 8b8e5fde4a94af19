#!/usr/bin/env bash
# Install the wheel in clean environments, without extras and with `[lab]`, and run every command in each.
# Usage: scripts/clean_install.sh [FOLDER]; FOLDER keeps the environments for the next time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
rm -rf "$work/clean" "$work/wheel"
mkdir -p "$work/clean"
work=$(cd "$work" && pwd)
git -C "$root" archive HEAD | tar x -C "$work/clean" # no untracked file, and no build folder of an earlier wheel
"$root/.venv/bin/python" -m pip wheel --quiet --no-deps -w "$work/wheel" "$work/clean"
wheel=$(ls "$work"/wheel/*.whl)
for extras in light lab; do
    environment=$work/$extras
    [ -d "$environment" ] || "$root/.venv/bin/python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet -c "$root/constraints.txt" "$wheel$([ $extras = light ] || echo "[$extras]")"
    "$environment/bin/python" -m pip install --quiet --no-deps --force-reinstall "$wheel"
    rm -rf "$work/run of $extras"
    (cd "$work" && "$environment/bin/python" "$root/scripts/clean_install.py" "$work/run of $extras" $extras)
done
