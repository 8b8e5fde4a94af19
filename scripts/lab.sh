#!/usr/bin/env bash
# Serve JupyterLab on the quick start: lab.sh PORT BROWSER, where BROWSER=no does not open one.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/assets.sh
options=(--port "$1")
[ "$2" = no ] && options+=(--no-browser)
[ "$(id -u)" = 0 ] && options+=(--allow-root)
# The notebook is the default page, so that the printed address opens it if no browser is started.
exec .venv/bin/jupyter lab "${options[@]}" --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb
