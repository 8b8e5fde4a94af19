#!/usr/bin/env bash
# Save models here and load them with an older transformers in a separate environment: ids and logits must be equal.
# Usage: scripts/compat.sh [FOLDER] [VERSION]; FOLDER keeps the environment for the next time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
version=${2:-4.57.3}
python=$root/.venv/bin/python
old=$work/transformers-$version
mkdir -p "$work"
if [ ! -f "$old/ready" ]; then
    "$python" -m venv --without-pip "$old"
    # torch is several GB, so the older transformers takes that of .venv; what pip installs comes first on the path.
    "$python" -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" \
        >"$("$old/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
    "$python" -m pip --python "$old/bin/python" install --quiet "transformers==$version"
    touch "$old/ready"
fi
rm -rf "$work/models"
"$python" "$root/scripts/compat.py" save "$work/models"
"$old/bin/python" "$root/scripts/compat.py" load "$work/models"
