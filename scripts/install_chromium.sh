#!/usr/bin/env bash
# Install Debian's chromium and fonts for many scripts where that is possible; else say what follows from it.
set -euo pipefail

if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing chromium for the browser tests."
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        chromium fonts-dejavu-core fonts-noto-core fonts-noto-cjk >/dev/null; then
        exit 0
    fi
fi
echo "chromium is not here and cannot be installed (that needs root and apt), so the browser tests will be skipped."
