#!/usr/bin/env bash
# Make the environment in .venv: `setup.sh` what the lab needs, `setup.sh dev` also what the tests need.
# Does nothing if it is up to date: .venv has a stamp file with the hash of the requirement files.
# Only one process changes .venv at a time: it holds the lock of .venv.lock, which the operating system releases when the
# process and the pip that it started have ended, for whatever reason.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly KIND="${1:-base}"
readonly LOG=.venv/setup.log
readonly NEEDED_MB=6000
STAMP=""

fail() {
    echo "setup: $*" >&2
    exit 1
}

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local name
    # 3.11 first, because constraints.txt was made with it.
    for name in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
        if fits "$name"; then
            "$name" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
                fail "$name lacks the venv module; install it (on Debian and Ubuntu: apt-get install python3-venv)."
            command -v "$name"
            return
        elif [ "$name" = "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not a Python 3.11 or newer that runs here."
        fi
    done
    fail "Python 3.11 or newer was not found; install it or name one: make setup PYTHON=/path/to/python3."
}

key_of() { cat pyproject.toml constraints.txt | "$1" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'; }

# If the environment's own Python works, it is used, so that an up-to-date environment needs no search.
up_to_date() {
    fits .venv/bin/python || return 1
    STAMP="$(key_of .venv/bin/python) $PWD"
    [ "$(cat ".venv/stamp-$KIND" 2>/dev/null)" = "$STAMP" ]
}

stop_if_up_to_date() {
    if up_to_date; then
        echo "The environment in .venv is up to date."
        exit 0
    fi
}

# Hold the lock of .venv.lock until this process ends. macOS has no flock(1), so Python makes the system call.
# The lock belongs to the open file, so it stays when that Python ends.
lock_environment() {
    local python=.venv/bin/python
    fits "$python" || python="$(find_python)"
    exec 9>>.venv.lock
    "$python" - <<'EOF' || echo "setup: .venv cannot be locked here; run one setup at a time."
import fcntl
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Another process is making .venv; waiting for it.", flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)
EOF
}

check_disk() {
    local free
    free=$(df -Pm . | awk 'NR == 2 {print $4}')
    [ "$free" -ge "$NEEDED_MB" ] ||
        fail "$NEEDED_MB MB of free disk are needed here and there are $free MB; free some space."
}

# Run pip with its output in the log, and print every few seconds that it is still running.
run_pip() {
    local what="$1" started=$SECONDS
    shift
    echo "  $what"
    .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --no-input --retries 2 "$@" >>"$LOG" 2>&1 &
    local pid=$!
    trap 'kill $pid 2>/dev/null || true' EXIT
    while kill -0 "$pid" 2>/dev/null; do
        sleep 1
        if (((SECONDS - started) % 15 == 0)); then
            echo "    ... $((SECONDS - started)) s, $(du -sm .venv 2>/dev/null | cut -f1) MB installed"
        fi
    done
    trap - EXIT
    wait "$pid" || explain_failure
}

explain_failure() {
    if grep -qE 'No space left on device' "$LOG"; then
        fail "the disk is full; free some space and run it again."
    elif grep -qE 'NewConnectionError|ConnectionError|ConnectTimeout|ReadTimeout|Max retries|Temporary failure in name|Network is unreachable|ProxyError' "$LOG"; then
        fail "the package index cannot be reached; connect to the network (or set pip's index or proxy) and run it again."
    fi
    grep -v '^WARNING' "$LOG" | tail -n 15 >&2
    fail "pip could not install the packages; its last words are above, all of them in $LOG."
}

stop_if_up_to_date
lock_environment
stop_if_up_to_date # the process that held the lock may have made the environment
if ! fits .venv/bin/python; then
    python="$(find_python)"
    check_disk
    echo "Making .venv with $("$python" --version) ($python); the first time takes a few minutes."
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not make a virtual environment in .venv."
else
    check_disk
    echo "Bringing .venv up to date."
fi
: >"$LOG"
# A process that was killed while making .venv leaves a Python without pip.
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >>"$LOG" 2>&1 ||
    fail "$PWD/.venv has no pip; remove .venv and run it again."
torch="$(grep -m1 '^torch==' constraints.txt)"
run_pip "pip" --upgrade "pip>=25.1"
# torch alone and first, so that only torch is searched for in another index.
run_pip "$torch (the largest part)" ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$torch" -c constraints.txt
# The tests also need the extras.
extras="[lab,app]"
[ "$KIND" = dev ] && extras="[lab,app,cluster,tasks]"
run_pip "tokalign-lab and what it needs" -c constraints.txt -e ".$extras"
if [ "$KIND" = dev ]; then
    run_pip "what the tests need" -c constraints.txt --group dev
fi
# pip would compile with one core. Some packages contain files that cannot be compiled; pip ignores them too.
echo "  compiling all modules"
.venv/bin/python -m compileall -qq -j 0 "$PWD/.venv/lib" >>"$LOG" 2>&1 || true
STAMP="$(key_of .venv/bin/python) $PWD"
echo "$STAMP" >.venv/stamp-base
[ "$KIND" = base ] || echo "$STAMP" >".venv/stamp-$KIND"
echo "The environment in .venv is ready ($(du -sm .venv | cut -f1) MB, $SECONDS s)."
