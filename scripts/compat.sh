#!/usr/bin/env bash
# Test other versions than those of .venv, in new environments:
# - Models saved by this version load in an older transformers, with equal ids and logits.
# - Pipeline and panels work with the lowest versions that pyproject.toml promises, and with the newest.
#
#   scripts/compat.sh [FOLDER]   FOLDER stores the environments for the next time; each takes 6 GB with PyPI's torch.
#                                Without it, they are in a temporary folder, which is removed at the end.
#   PYTHON_LOWEST=3.11 PYTHON_NEWEST=3.13   versions or paths of Python
#   UV_TORCH_BACKEND=cpu         a torch without CUDA, from PyTorch's own index
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$work"' EXIT
python=$root/.venv/bin/python
readonly OLDER=4.57.3
mkdir -p "$work"
cd "$work" # so that the installed package is tested, not the one in this clone
work=$PWD

load_in_older_transformers() {
    local old=$work/transformers-$OLDER
    if [ ! -f "$old/ready" ]; then
        "$python" -m venv --without-pip "$old"
        # torch is several GB, so this environment uses that of .venv; packages that pip installs come first on the path.
        "$python" -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" \
            >"$("$old/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
        "$python" -m pip --python "$old/bin/python" install --quiet "transformers==$OLDER"
        touch "$old/ready"
    fi
    rm -rf "$work/models"
    "$python" "$root/scripts/compat.py" save "$work/models"
    "$old/bin/python" "$root/scripts/compat.py" load "$work/models"
}

# use_lab NAME PYTHON RESOLUTION: run the lab with an empty cache, so that no file comes from another version.
use_lab() {
    local new=$work/$1
    rm -rf "$new/source" "$new/cache" "$new/runs"
    [ -f "$new/bin/python" ] || "$uv" venv --quiet --seed --python "$2" "$new"
    mkdir "$new/source"
    (cd "$root" && cp -rL pyproject.toml README.md LICENSE tokalign_lab widgets "$new/source")
    "$uv" pip install --quiet --python "$new/bin/python" --resolution "$3" --reinstall-package tokalign-lab "$new/source[lab]"
    echo "$1 versions:" $("$uv" pip list --quiet --python "$new/bin/python" | grep -E '^(torch|transformers|numpy|jupyterlab|ipywidgets|plotly) ')
    TOKALIGN_CACHE=$new/cache "$new/bin/python" "$root/scripts/compat.py" use "$new/runs"
}

load_in_older_transformers
# uv finds the lowest versions that fit together; pip can only find the newest.
[ -x "$work/uv/bin/uv" ] || { "$python" -m venv "$work/uv" && "$work/uv/bin/python" -m pip install --quiet uv; }
uv=$work/uv/bin/uv
use_lab lowest "${PYTHON_LOWEST:-3.11}" lowest-direct
use_lab newest "${PYTHON_NEWEST:-3.13}" highest
