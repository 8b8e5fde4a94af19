"""Seconds from token ids to vectors of both vocabularies: anchored vectors and our GloVe against Stanford's GloVe.

    python benchmarks/vectors_speed.py --glove-bin GloVe/build --out benchmarks/results/vectors_speed.jsonl

TokAlign trains with Stanford's GloVe, which runs here with the paper's settings. `--glove-bin` is the folder with its
four programs. The default is `~/.glopy/build`, where the package glovpy builds them (glovpy contains no program: when
it is first imported, it fetches the source with git and runs make). The time is measured from token ids on. For
Stanford's GloVe it includes `vocab_count`, `cooccur`, `shuffle` and `glove`, but not writing ids and reading vectors as
text. Our functions are compiled before the measurement, on a small text.

Quality is P@1 on held-out shared tokens, the same ones for all. The two spaces of GloVe are mapped by orthogonal
Procrustes (on centred rows of length 1) and by VecMap, both with the other shared tokens, and searched by CSLS; the
better P@1 counts. The loss of both GloVes is the mean over pairs of f(X) error^2 / 2, computed as both programs print
it: each pair when it is trained. Ours runs a third more iterations; the compared time ends with the first iteration
whose loss is not above Stanford's last. Takes about an hour and a half on two cores.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import limit_threads, measured, parser, report
from scipy.linalg import orthogonal_procrustes

from tokalign_lab import catalog
from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.methods.spaces import Space, find_candidates
from tokalign_lab.alignment.methods.vecmap import normalise, vecmap
from tokalign_lab.alignment.search.neighbours import density
from tokalign_lab.corpus import Corpus, TokenizedPair, tokenize_pair
from tokalign_lab.documents import read_documents, split_documents
from tokalign_lab.evaluation.held_out import held_out_precision
from tokalign_lab.vectors.anchored import anchored_vectors
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.glove import GloveSettings, train_glove
from tokalign_lab.vectors.text_counts import text_counts
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import SharedTokens, Vocabulary

PROGRAMS = ("vocab_count", "cooccur", "shuffle", "glove")


def main() -> None:
    options = parse()
    limit_threads(options.threads)
    hidden = measured(draw_hidden, options)["hidden"]
    anchored = measured(anchored_run, options, hidden)
    stanford = measured(stanford_run, options, hidden)
    ours = measured(glove_run, options, hidden, [losses[-1] for losses in stanford["losses"]])
    iterations, last = options.settings.iterations, ours["equal"]
    equal = (
        None
        if None in last
        else ours["counting"] + sum(seconds[n - 1] for seconds, n in zip(ours["seconds"], last, strict=True))
    )
    same = ours["counting"] + sum(seconds[iterations - 1] for seconds in ours["seconds"])
    theirs = stanford["counting"] + stanford["training"]
    when = " and ".join("-" if n is None else str(n) for n in last)
    rows = [
        _row("Stanford's GloVe", theirs, stanford["counting"], theirs, _at(stanford["losses"], iterations), stanford),
        _row("our GloVe", same, ours["counting"], theirs, _at(ours["losses"], iterations), None),
        _row("our GloVe, equal loss", equal, ours["counting"], theirs, None, None),
        _row(f"our GloVe, {len(ours['losses'][0])} iterations", None, ours["counting"], theirs,
             _at(ours["losses"], 0), ours),
        _row("anchored", anchored["seconds"], None, theirs, None, anchored),
    ]  # fmt: skip
    report(
        "Speed of vectors",
        [
            (f"{options.source} and {options.target}, {stanford['bytes']:,} bytes, {options.threads} threads", rows),
            (
                "P@1 of GloVe by mapping (ours after a third more iterations)",
                [{"mapping": name, **{k: x["by_mapping"][name] for k, x in (("Stanford's", stanford), ("ours", ours))}}
                 for name in stanford["by_mapping"]],
            ),
        ],
        [
            f"Anchored against Stanford's GloVe: {theirs / anchored['seconds']:.1f} times as fast (bar: 20), P@1 "
            f"{anchored['p_at_1']:.4f} against {stanford['p_at_1']:.4f} (bar: no lower), n = {len(hidden)}.",
            "Our GloVe against Stanford's at equal loss: "
            + (f"{theirs / equal:.1f} times as fast (bar: 2)" if equal else "not reached")
            + f", after {when} iterations of the two sides."
            + f" At {iterations} iterations: {theirs / same:.1f} times.",
            f"Pairs: Stanford's {stanford['pairs']}, ours {ours['pairs']}. Not in the table, for Stanford's: "
            f"{stanford['writing']:.1f} s of writing ids and {stanford['reading']:.1f} s of reading vectors as text.",
            f"Settings of both GloVes: {options.settings}. Peak memory of the processes: anchored "
            f"{anchored['peak']:.2f} GB, our GloVe {ours['peak']:.2f} GB (mapping included).",
        ],
        options.out,
    )  # fmt: skip


def _row(
    name: str, seconds: float | None, counting: float | None, theirs: float, losses: Any, run: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "vectors": name,
        "seconds": seconds,
        "of which counting": counting,
        "times as fast": theirs / seconds if seconds else None,
        "loss source": losses and losses[0],
        "loss target": losses and losses[1],
        "P@1": run and run["p_at_1"],
    }


def _at(losses: list[list[float]], iteration: int) -> list[float]:
    return [side[iteration - 1] for side in losses]


# --- the text and the hidden tokens


def load_pair(options: argparse.Namespace) -> TokenizedPair:
    documents = split_documents(read_documents(options.texts, max_bytes=options.max_bytes))[0]
    return tokenize_pair(catalog.load_vocabulary(options.source), catalog.load_vocabulary(options.target), documents)


def small_pair(pair: TokenizedPair) -> TokenizedPair:
    """Return a small text on which every function is compiled."""
    chosen, size = [], 0
    for document in pair.documents:
        chosen.append(document)
        size += len(document.text)
        if size > 100_000:
            break
    return tokenize_pair(pair.source, pair.target, chosen)


def draw_hidden(options: argparse.Namespace) -> dict[str, Any]:
    hidden = held_out_precision(load_pair(options), "anchored", seed=0).hidden
    return {"hidden": SharedTokens(source_ids=hidden.source_ids, target_ids=hidden.target_ids)}


def kept_tokens(pair: TokenizedPair, hidden: SharedTokens) -> tuple[np.ndarray, np.ndarray]:
    shared = text_tokens_shared(pair.source, pair.target, "bytes", hidden.target_ids)
    return shared.source_ids, shared.target_ids


def p_at_1(source: TokenVectors, target: TokenVectors, hidden: SharedTokens, pair: TokenizedPair) -> float:
    space = Space(source, target, density(target.rows, source.rows), {})
    found = find_candidates(space, hidden.target_ids, pair.source.is_control, k=1)
    counterparts = hidden.source_ids[np.searchsorted(hidden.target_ids, found.target_ids)]
    return float((found.candidate_ids[:, 0] == counterparts).sum() / len(hidden))


def p_by_mapping(
    source: TokenVectors, target: TokenVectors, hidden: SharedTokens, pair: TokenizedPair
) -> dict[str, Any]:
    """Return P@1 by each mapping, and the better of the two."""
    ids = kept_tokens(pair, hidden)
    known = (source.positions_of(ids[0]) >= 0) & (target.positions_of(ids[1]) >= 0)
    pairs = ids[0][known], ids[1][known]
    straight, there = replace(source, rows=normalise(source.rows)), replace(target, rows=normalise(target.rows))
    turned = straight.rows @ orthogonal_procrustes(straight.rows_for(pairs[0]), there.rows_for(pairs[1]))[0]
    by_mapping = {
        "Procrustes, CSLS": p_at_1(replace(straight, rows=turned), there, hidden, pair),
        "VecMap, CSLS": p_at_1(*vecmap(source, target, pairs), hidden, pair),
    }
    return {"by_mapping": by_mapping, "p_at_1": max(by_mapping.values())}


# --- the three runs, each in a separate process


def anchored_run(options: argparse.Namespace, hidden: SharedTokens) -> dict[str, Any]:
    pair = load_pair(options)
    ids, sizes = kept_tokens(pair, hidden), (pair.source.size, pair.target.size)
    small = small_pair(pair)
    anchored_vectors(small.source_corpus, small.target_corpus, ids, sizes, AnchoredSettings(dimensions=8))
    started = time.perf_counter()
    vectors = anchored_vectors(pair.source_corpus, pair.target_corpus, ids, sizes)
    return {"seconds": time.perf_counter() - started, "p_at_1": p_at_1(*vectors, hidden, pair)}


def glove_run(options: argparse.Namespace, hidden: SharedTokens, wanted: list[float]) -> dict[str, Any]:
    """Train both sides; return when each iteration ended, and the first iteration with at most the wanted loss."""
    pair, small = load_pair(options), None
    settings = replace(options.settings, iterations=-(-4 * options.settings.iterations // 3))
    small = small_pair(pair)
    warm = text_counts(small.source_corpus, pair.source.size, settings.window, settings.min_count, cached=False)
    train_glove(warm.counts, replace(settings, iterations=1))
    result: dict[str, Any] = {"counting": 0.0, "seconds": [], "losses": [], "equal": [], "pairs": []}
    vectors = []
    for of, corpus, loss in zip(*_sides(pair), wanted, strict=True):
        started = time.perf_counter()
        counted = text_counts(corpus, of.size, settings.window, settings.min_count, cached=False, device="cpu")
        result["counting"] += time.perf_counter() - started
        ends: list[float] = []
        started = time.perf_counter()
        rows, losses = train_glove(
            counted.counts, settings, progress=lambda *_, e=ends, s=started: e.append(time.perf_counter() - s)
        )
        vectors.append(TokenVectors(counted.ids, rows, counted.occurrences, of.fingerprint))
        result["seconds"].append(ends)
        result["losses"].append(losses)
        result["equal"].append(next((i for i, x in enumerate(losses, start=1) if x <= loss), None))
        result["pairs"].append(counted.counts.nnz)
    return {**result, **p_by_mapping(*vectors, hidden, pair)}


def stanford_run(options: argparse.Namespace, hidden: SharedTokens) -> dict[str, Any]:
    pair = load_pair(options)
    result: dict[str, Any] = {"losses": [], "pairs": [], "bytes": pair.source_corpus.n_bytes}
    seconds = {"writing": 0.0, "counting": 0.0, "training": 0.0, "reading": 0.0}
    vectors = []
    for of, corpus in zip(*_sides(pair), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            found, losses, pairs = _stanford(Path(folder), of, corpus, options, seconds)
        vectors.append(found)
        result["losses"].append(losses)
        result["pairs"].append(pairs)
    return {**result, **seconds, **p_by_mapping(*vectors, hidden, pair)}


def _sides(pair: TokenizedPair) -> tuple[tuple[Vocabulary, Vocabulary], tuple[Corpus, Corpus]]:
    return (pair.source, pair.target), (pair.source_corpus, pair.target_corpus)


def _stanford(
    folder: Path, of: Vocabulary, corpus: Corpus, options: argparse.Namespace, seconds: dict[str, float]
) -> tuple[TokenVectors, list[float], int]:
    """Run the four programs as `train_glove.sh` does, one document per line; add their time to `seconds`."""
    settings: GloveSettings = options.settings
    started = time.perf_counter()
    with open(folder / "ids.txt", "w", encoding="ascii") as file:
        file.writelines(" ".join(map(str, corpus[i].tolist())) + "\n" for i in range(len(corpus)))
    seconds["writing"] += time.perf_counter() - started

    def run(program: str, *arguments: Any, stdin: str | None = None, stdout: str | None = None) -> str:
        words = [str(options.glove_bin / program), *map(str, arguments)]
        source = open(folder / stdin, "rb") if stdin else subprocess.DEVNULL  # noqa: SIM115 - closed below
        goal = open(folder / stdout, "wb") if stdout else subprocess.DEVNULL  # noqa: SIM115
        done = subprocess.run(words, cwd=folder, stdin=source, stdout=goal, stderr=subprocess.PIPE, text=True)
        for file in (source, goal):
            if not isinstance(file, int):
                file.close()
        if done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr[-500:]}")
        return done.stderr

    started = time.perf_counter()
    run("vocab_count", "-min-count", settings.min_count, stdin="ids.txt", stdout="vocab.txt")
    run("cooccur", "-memory", 4, "-window-size", settings.window, "-vocab-file", "vocab.txt",
        stdin="ids.txt", stdout="pairs.bin")  # fmt: skip
    run("shuffle", "-memory", 4, stdin="pairs.bin", stdout="shuffled.bin")
    seconds["counting"] += time.perf_counter() - started
    started = time.perf_counter()
    printed = run(
        "glove", "-input-file", "shuffled.bin", "-vocab-file", "vocab.txt", "-save-file", "vectors",
        "-vector-size", settings.dimensions, "-iter", settings.iterations, "-x-max", settings.x_max,
        "-alpha", settings.alpha, "-eta", settings.learning_rate, "-threads", options.threads, "-binary", 0, "-seed", 1,
    )  # fmt: skip
    seconds["training"] += time.perf_counter() - started
    started = time.perf_counter()
    vectors = _read(folder / "vectors.txt", of, corpus)
    seconds["reading"] += time.perf_counter() - started
    losses = [float(cost) for cost in re.findall(r"cost: ([\d.eE+-]+)", printed)]
    return vectors, losses, (folder / "pairs.bin").stat().st_size // 16  # two int32 and a float64


def _read(path: Path, of: Vocabulary, corpus: Corpus) -> TokenVectors:
    ids, rows = [], []
    with open(path, encoding="utf-8") as file:
        for line in file:
            word, *numbers = line.split(" ")
            if word != "<unk>":
                ids.append(int(word))
                rows.append(np.array(numbers, dtype=np.float32))
    order = np.argsort(ids)
    sorted_ids = np.array(ids)[order]
    return TokenVectors(sorted_ids, np.stack(rows)[order], corpus.counts(of.size)[sorted_ids], of.fingerprint)


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--source", default="smollm2-135m")
    options.add_argument("--target", default="sp32k")
    options.add_argument("--texts", nargs="+", default=["default"], help="names or paths, as for read_documents")
    options.add_argument("--max-bytes", type=int, default=6_000_000)
    options.add_argument("--iterations", type=int, default=15)
    options.add_argument("--glove-bin", type=Path, default=Path.home() / ".glopy" / "build")
    chosen = options.parse_args()
    if chosen.quick:
        chosen.max_bytes, chosen.iterations = 400_000, 3
    chosen.settings = GloveSettings(iterations=chosen.iterations)
    chosen.glove_bin = chosen.glove_bin.expanduser().resolve()
    missing = [name for name in PROGRAMS if not (chosen.glove_bin / name).is_file()]
    if missing:
        options.error(
            f"there is no {missing[0]} in {chosen.glove_bin}; build Stanford's GloVe (make) and name its folder build "
            "with --glove-bin, or run `python -c 'import glovpy'` where the package glovpy is installed"
        )
    return chosen


if __name__ == "__main__":
    main()
