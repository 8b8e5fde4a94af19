#!/usr/bin/env bash
# Install the wheel in clean environments, without extras and with `[lab]`, and run every command in each; then test the sdist.
# Usage: scripts/clean_install.sh [FOLDER]; FOLDER stores the environments and the list of this commit's passed commands.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
work=$(cd "$work" && pwd)
commit=$(git -C "$root" rev-parse HEAD)
if [ "$(cat "$work/commit" 2>/dev/null)" != "$commit" ]; then
    rm -rf "$work"/{clean,sdist,wheel,"run of light","run of lab"}
    mkdir -p "$work/clean"
    git -C "$root" archive HEAD | tar x -C "$work/clean" # without untracked files and without the build folder of an earlier wheel
    (cd "$work/clean" && "$root/.venv/bin/python" -c 'from setuptools import build_meta; build_meta.build_sdist("../sdist")' >/dev/null)
    "$root/.venv/bin/python" -m pip wheel --quiet --no-deps -w "$work/wheel" "$work"/sdist/*.tar.gz
    tar xzf "$work"/sdist/*.tar.gz -C "$work/sdist" --strip-components=1
    echo "$commit" >"$work/commit"
fi
wheel=$(ls "$work"/wheel/*.whl)
wrong=0
for extras in light lab; do
    environment=$work/$extras
    [ -d "$environment" ] || "$root/.venv/bin/python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet -c "$root/constraints.txt" "$wheel$([ $extras = light ] || echo "[$extras]")"
    "$environment/bin/python" -m pip install --quiet --no-deps --force-reinstall "$wheel"
    (cd "$work" && "$environment/bin/python" "$root/scripts/clean_install.py" "$work/run of $extras" $extras) || wrong=1
done
"$work/lab/bin/python" -m pip install --quiet -c "$root/constraints.txt" hypothesis pytest
(cd "$work/sdist" && "$work/lab/bin/pytest" tests/test_{house,settings,calibrate,merges,cases_models}.py) || wrong=1
exit $wrong
