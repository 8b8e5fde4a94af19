"""Time and memory of the exact CSLS search, compared with bare matrix products and with the rules of TokAlign's script.

    python benchmarks/alignment_speed.py --out benchmarks/results/alignment_speed.jsonl

The first measurement searches the 10 nearest neighbours by CSLS among 262k target and 152k source vectors of 300
dimensions, in a separate process. The algorithm needs two matrix products of that shape: one for the density of both
sides, one for the neighbours. The same process computes two bare products with numpy, in blocks that it discards, one
before and one after the search. The vectors are random (groups of twenty around common centres); the time hardly
depends on them.

The second measurement follows the rules of TokAlign's script in a plain re-implementation, not its code: float64
cosines to 300 pivots, the dense product of all pairs, `in` and `index` on lists for every target token. It uses real
anchored vectors of both vocabularies, few enough for the dense matrix. Our search gets the same pivots and compares by
the same dot product. Takes about twelve minutes on two cores.
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import numpy as np
from harness import limit_threads, measured, parser, report

from tokalign_lab import catalog
from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.methods.relative import as_cosines, choose_pivots, relative_rows
from tokalign_lab.alignment.search.neighbours import nearest, nearest_csls
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import read_documents, split_documents
from tokalign_lab.vectors.anchored import anchored_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors

DIMENSIONS, NEIGHBOURS = 300, 10
PRODUCT_BLOCK = (2048, 4096)  # the block size with the fastest numpy product on the machines that we tried


def main() -> None:
    options = parse()
    limit_threads(options.threads)
    n_target, n_source = (20_000, 12_000) if options.quick else (262_144, 151_936)
    csls = measured(csls_and_products, n_target, n_source)
    script = measured(against_the_script, 2_000 if options.quick else 20_000, 600_000 if options.quick else 12_000_000)
    bare = csls["products"]
    ratio = csls["csls"] / bare
    report(
        "Speed and memory of alignment",
        [
            (
                f"CSLS top {NEIGHBOURS}, {n_target:,} x {n_source:,} x {DIMENSIONS}, {options.threads} threads",
                [
                    {"what": "two bare products", "seconds": bare, "GFLOP/s": csls["gflops"]},
                    {"what": "nearest_csls, densities included", "seconds": csls["csls"], "GFLOP/s": None},
                ],
            ),
            (
                f"The script's rules, {script['n_target']:,} target x {script['n_source']:,} source vectors",
                [
                    {"what": "as described: dense, float64, lists", "seconds": script["dense"]},
                    {"what": "ours, same rules", "seconds": script["ours"]},
                ],
            ),
        ],
        [
            f"CSLS against the bare products: {ratio:.2f} times (bar: 1.5). Peak memory of the process, vectors, "
            f"products and Python included: {csls['peak']:.2f} GB (bar: 3).",
            f"Same rules: ours is {script['dense'] / script['ours']:.1f} times as fast; {script['same']:.2%} of the "
            f"{script['compared']:,} answers that are neither copied nor drawn are the same, and where they differ the "
            f"two scores differ by at most {script['gap']:.1e} of the best.",
        ],
        options.out,
    )


def csls_and_products(n_target: int, n_source: int) -> dict[str, Any]:
    """Measure the seconds of the search and of the products that it needs."""
    random_numbers = np.random.default_rng(0)
    centres = random_numbers.standard_normal((n_source // 20, DIMENSIONS), dtype=np.float32)
    target, source = (_around(centres, n, random_numbers) for n in (n_target, n_source))
    nearest_csls(target[:300], source[:300])  # compiles
    before, csls, after = (_seconds(work, target, source) for work in (_product, _search, _product))
    flops = 2 * 2 * n_target * n_source * DIMENSIONS
    return {"products": before + after, "csls": csls, "gflops": flops / (before + after) / 1e9}


def _around(centres: np.ndarray, n: int, random_numbers: np.random.Generator) -> np.ndarray:
    rows = random_numbers.standard_normal((n, DIMENSIONS), dtype=np.float32)
    for first in range(0, n, 10_000):
        rows[first : first + 10_000] += centres[random_numbers.integers(len(centres), size=len(rows[first:][:10_000]))]
    return rows


def _seconds(work: Any, *arguments: Any) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _product(queries: np.ndarray, keys: np.ndarray) -> None:
    n_rows, n_columns = PRODUCT_BLOCK
    room = np.empty(n_rows * n_columns, dtype=np.float32)
    for i in range(0, len(queries), n_rows):
        for j in range(0, len(keys), n_columns):
            here, there = queries[i : i + n_rows], keys[j : j + n_columns]
            np.matmul(here, there.T, out=room[: len(here) * len(there)].reshape(len(here), len(there)))


def _search(target: np.ndarray, source: np.ndarray) -> None:
    nearest_csls(target, source, NEIGHBOURS)


def against_the_script(n_tokens: int, text_bytes: int) -> dict[str, Any]:
    """Follow the script's rules, as described and with our search, on the most frequent tokens of a real pair."""
    source, target = catalog.load_vocabulary("smollm2-135m"), catalog.load_vocabulary("sp32k")
    pair = tokenize_pair(source, target, split_documents(read_documents(["default"], max_bytes=text_bytes))[0])
    shared = text_tokens_shared(source, target, "raw")
    ids = (shared.source_ids, shared.target_ids)
    sizes = (source.size, target.size)
    found = anchored_vectors(pair.source_corpus, pair.target_corpus, ids, sizes)
    source_vectors, target_vectors = (_most_frequent(vectors, n_tokens) for vectors in found)
    pivots = choose_pivots(source_vectors, target_vectors, ids)
    gold = dict(zip(shared.target_ids.tolist(), shared.source_ids.tolist(), strict=True))
    _ours(source_vectors, target_vectors, pivots, gold, sizes)  # compiles

    started = time.perf_counter()
    ours = _ours(source_vectors, target_vectors, pivots, gold, sizes)
    halfway = time.perf_counter()
    dense, similarity = _as_described(source_vectors, target_vectors, pivots, gold, sizes)
    done = time.perf_counter()

    compared = [i for i in target_vectors.ids.tolist() if i not in gold]
    rows = target_vectors.positions_of(np.array(compared))
    theirs, mine = (source_vectors.positions_of(np.array([answer[i] for i in compared])) for answer in (dense, ours))
    best = similarity[rows, theirs]
    return {
        "dense": done - halfway,
        "ours": halfway - started,
        "n_target": len(target_vectors),
        "n_source": len(source_vectors),
        "compared": len(compared),
        "same": float((theirs == mine).mean()),
        "gap": float(np.max((best - similarity[rows, mine]) / np.abs(best))),
    }


def _most_frequent(vectors: TokenVectors, n: int) -> TokenVectors:
    """Take the n most frequent tokens with contexts; a vector of zeros would make the script's cosine NaN."""
    with_row = np.flatnonzero(vectors.rows.any(axis=1))
    kept = np.sort(with_row[np.argsort(-vectors.counts[with_row], kind="stable")[:n]])
    return TokenVectors(vectors.ids[kept], vectors.rows[kept], vectors.counts[kept], vectors.vocabulary_fingerprint)


def _ours(
    source: TokenVectors, target: TokenVectors, pivots: Any, gold: dict[int, int], sizes: tuple[int, int]
) -> np.ndarray:
    answer = np.random.default_rng(0).integers(sizes[0], size=sizes[1])
    described = [
        relative_rows(vectors, ids, normalise=False) for vectors, ids in zip((source, target), pivots, strict=True)
    ]
    positions, _ = nearest(*as_cosines(described[1], described[0]), 1)
    answer[target.ids] = source.ids[positions[:, 0]]
    answer[list(gold)] = list(gold.values())
    return answer


def _as_described(
    source: TokenVectors, target: TokenVectors, pivots: Any, gold: dict[int, int], sizes: tuple[int, int]
) -> tuple[list[int], np.ndarray]:
    described = []
    for vectors, ids in zip((source, target), pivots, strict=True):
        rows = vectors.rows.astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        described.append(np.matmul(rows, rows[vectors.positions_of(ids)].T))
    similarity = np.matmul(described[1], described[0].T)
    with_vector, sources, copied = target.ids.tolist(), source.ids.tolist(), list(gold)
    draw = random.Random(0)
    answer = []
    for target_id in range(sizes[1]):
        if target_id in copied:
            answer.append(gold[target_id])
        elif target_id not in with_vector:
            answer.append(draw.randrange(sizes[0]))
        else:
            answer.append(sources[int(similarity[with_vector.index(target_id)].argmax())])
    return answer, similarity


def parse() -> argparse.Namespace:
    return parser(__doc__).parse_args()


if __name__ == "__main__":
    main()
