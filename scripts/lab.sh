#!/usr/bin/env bash
# Serve JupyterLab on the quick start: lab.sh PORT BROWSER, where BROWSER=no does not open one.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/assets.sh
options=(--port "$1")
[ "$2" = no ] && options+=(--no-browser)
[ "$(id -u)" = 0 ] && options+=(--allow-root)
# As the default page, so that the printed address leads to the notebook where no browser is opened.
exec .venv/bin/jupyter lab "${options[@]}" --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb
