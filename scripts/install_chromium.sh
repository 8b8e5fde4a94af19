#!/usr/bin/env bash
# Install Debian's chromium and fonts for many scripts, if they are missing and can be installed; otherwise print what
# will not work.
set -euo pipefail

missing=()
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
    missing+=(chromium fonts-dejavu-core fonts-noto-core)
# A browser without such a font shows boxes for Chinese, Japanese and Korean.
fc-list :lang=ja 2>/dev/null | grep -q . || missing+=(fontconfig fonts-noto-cjk)
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]} for the browser tests."
    if apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; then
        exit 0
    fi
fi
echo "${missing[*]}: not here, and cannot be installed (that needs root and apt). Without chromium the browser tests are" \
    "skipped; without fonts-noto-cjk pages show boxes for Chinese, Japanese and Korean."
