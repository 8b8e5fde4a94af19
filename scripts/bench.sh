#!/usr/bin/env bash
# Run the benchmarks; each prints its own tables, and those with --out write them to docs/results/ too.
#
#   scripts/bench.sh                 all of them (hours)
#   scripts/bench.sh --quick         the speed benchmarks in small, nothing written
#   GLOVE_BIN=GloVe/build            folder of Stanford's GloVe programs for vectors_speed (default: ~/.glopy/build)
#   PEERS_PYTHON=PEERS/bin/python    environment of the peers for quality (default: without peers)
set -euo pipefail
cd "$(dirname "$0")/.."

quick=${1:-}
if [ -n "$quick" ] && [ "$quick" != --quick ]; then
    echo "usage: scripts/bench.sh [--quick]" >&2
    exit 2
fi
glove=${GLOVE_BIN:-$HOME/.glopy/build}

run() {
    echo "== $*"
    .venv/bin/python "$@"
}

# $1 its name, the rest its own arguments
speed() {
    if [ -n "$quick" ]; then
        run "benchmarks/$1.py" "${@:2}" --quick
    else
        run "benchmarks/$1.py" "${@:2}" --out "docs/results/$1.md"
    fi
}

speed alignment_speed
speed growth
speed tuning_speed
speed tuning_memory
speed utilisation
speed compression
[ -n "$quick" ] || run benchmarks/tuning_speed.py --targets gemma3 --stages 1 --batch-size 1 --sequence-length 2048 --steps 3 \
    --out docs/results/tuning_speed_2048.md
if [ -x "$glove/glove" ]; then
    speed vectors_speed --glove-bin "$glove"
else
    echo "== benchmarks/vectors_speed.py left out: no program 'glove' in $glove; set GLOVE_BIN"
fi
[ -z "$quick" ] || exit 0

run benchmarks/overlap.py --out docs/results/overlap.md
run benchmarks/anchored_settings.py --out docs/results/anchored_settings.md
run benchmarks/ui.py --out docs/results/ui.md
run benchmarks/notebooks.py --out docs/results/notebooks.md
run benchmarks/mixture_shares.py --out docs/results/mixture_shares.md
run benchmarks/faithfulness.py --out docs/results/faithfulness.md
run benchmarks/distillation.py --limit 40 --ablate --out docs/results/distillation.md
run benchmarks/excess.py --out docs/results/excess.md
run benchmarks/recovery.py --out docs/results/recovery.md
run benchmarks/stages.py --out docs/results/stages.md
run benchmarks/corpus_size.py --out docs/results/corpus_size.md
run benchmarks/extreme.py --out docs/results/extreme.md
run benchmarks/quality.py ${PEERS_PYTHON:+--peers-python "$PEERS_PYTHON"}
