#!/usr/bin/env bash
# Rebuild the screenshots of README and docs in a real browser, from a real pair in small sizes.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install_chromium.sh
fc-list :lang=ja 2>/dev/null | grep -q . || {
    echo "screenshots: no font for Chinese, Japanese and Korean is here, so pictures would show boxes; install fonts-noto-cjk." >&2
    exit 1
}
.venv/bin/pytest tests/ui/test_lab.py tests/ui/test_gallery.py
for picture in lab-pair-light lab-diagnosis-light gallery-offer-light gallery-training-light gallery-maps-dark; do
    cp "test-artefacts/$picture.png" docs/images/
done
