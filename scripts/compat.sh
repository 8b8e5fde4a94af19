#!/usr/bin/env bash
# Save models here and load them with an older transformers in an environment of its own: ids and logits must be equal.
# Usage: scripts/compat.sh [FOLDER] [VERSION]; FOLDER keeps the environment for the next time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
version=${2:-4.57.3}
python=$root/.venv/bin/python
mkdir -p "$work"
if [ ! -x "$work/old/bin/python" ]; then
    "$python" -m venv "$work/old"
    torch=$("$python" -c "import importlib.metadata as m; print(m.version('torch').split('+')[0])")
    "$work/old/bin/python" -m pip install --quiet "transformers==$version" "torch==$torch"
fi
rm -rf "$work/models"
"$python" "$root/scripts/compat.py" save "$work/models"
"$work/old/bin/python" "$root/scripts/compat.py" load "$work/models"
