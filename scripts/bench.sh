#!/usr/bin/env bash
# Run the benchmarks; each prints its tables, and those with --out write raw data, from which `make results` builds docs/results.
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

# $1 is the name of the benchmark, followed by its arguments
speed() {
    if [ -n "$quick" ]; then
        run "benchmarks/$1.py" "${@:2}" --quick
    else
        run "benchmarks/$1.py" "${@:2}" --out "benchmarks/results/$1.jsonl"
    fi
}

speed alignment_speed
speed growth
speed tuning_speed
speed tuning_memory
speed utilisation
speed compression
[ -n "$quick" ] || run benchmarks/tuning_speed.py --targets gemma3 --stages 1 --batch-size 1 --sequence-length 2048 --steps 3 \
    --out benchmarks/results/tuning_speed_2048.jsonl
if [ -x "$glove/glove" ]; then
    speed vectors_speed --glove-bin "$glove"
else
    echo "== benchmarks/vectors_speed.py left out: no program 'glove' in $glove; set GLOVE_BIN"
fi
[ -z "$quick" ] || exit 0

run benchmarks/overlap.py --out benchmarks/results/overlap.jsonl
run benchmarks/anchored_settings.py --out benchmarks/results/anchored_settings.jsonl
run benchmarks/ui.py --out benchmarks/results/ui.jsonl
run benchmarks/notebooks.py --out benchmarks/results/notebooks.jsonl
run benchmarks/quickstart.py --out benchmarks/results/quickstart.jsonl
run benchmarks/mixture_shares.py --out benchmarks/results/mixture_shares.jsonl
run benchmarks/faithfulness.py --out benchmarks/results/faithfulness.jsonl
run benchmarks/distillation.py --limit 40 --ablate --out benchmarks/results/distillation.jsonl
run benchmarks/excess.py --out benchmarks/results/excess.jsonl
run benchmarks/recovery.py --ways recover text papers source control --out benchmarks/results/recovery.jsonl
run benchmarks/stages.py --out benchmarks/results/stages.jsonl
run benchmarks/corpus_size.py --out benchmarks/results/corpus_size.jsonl
run benchmarks/extreme.py --out benchmarks/results/extreme.jsonl
run benchmarks/quality.py ${PEERS_PYTHON:+--peers-python "$PEERS_PYTHON"}
run benchmarks/pages
run benchmarks/soak.py --out benchmarks/results/soak.jsonl
rm -f benchmarks/results/faults.jsonl # otherwise the benchmark would continue from this file, and inject nothing
run benchmarks/faults.py --out benchmarks/results/faults.jsonl
