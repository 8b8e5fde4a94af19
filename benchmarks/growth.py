"""Time and memory for more text (1, 10, 100 MB) and for larger vocabularies (32k, 128k, 262k).

    python benchmarks/growth.py --out benchmarks/results/growth.jsonl

Each cell is measured in a separate process. The slope is the exponent b of `a size^b`, fitted to the logarithms (1:
twice the size takes twice as long). Memory is the peak of the process; `of which before` is its memory before the
measured work: libraries, vocabularies, compiled functions. The slope of the peak is fitted to the memory above that.

- Text: Python files of the installed packages, in random order, until there are enough bytes; from SmolLM2 (49k) to a
  32k SentencePiece vocabulary. Anchored vectors of both sides; GloVe of both sides for ONE iteration (the paper:
  15).
- Vocabulary, real: 10 MB of that text, from SmolLM2 to vocabularies of 32k, 128k and 262k. Only tokens that occur in
  the text add work, so there is also:
- Vocabulary, full: the 10 nearest of 49,152 random vectors by CSLS, for one random vector of 300 dimensions per token.

Takes about 25 minutes on two cores.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import Table, limit_threads, measured, parser, peak, report, slope

from tokalign_lab import catalog
from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.search.neighbours import nearest_csls
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document
from tokalign_lab.vectors.anchored import anchored_vectors
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.glove import GloveSettings, glove_vectors

SOURCE, SMALL = "smollm2-135m", "sp32k"
VOCABULARIES = {"sp32k": 32_000, "llama3": 128_256, "gemma3": 262_144}
N_SOURCE, DIMENSIONS = 49_152, 300
NOTICEABLE = 0.01  # GB; a smaller increase fits into memory that the libraries freed, and gets no slope


def main() -> None:
    options = parser(__doc__).parse_args()
    limit_threads(options.threads)
    megabytes = [0.1, 0.3, 1.0] if options.quick else [1.0, 10.0, 100.0]
    vocabularies = dict(list(VOCABULARIES.items())[:2] if options.quick else VOCABULARIES)
    sizes = [size // 8 for size in VOCABULARIES.values()] if options.quick else list(VOCABULARIES.values())

    by_text = [{"megabytes": size, **measured(vectors, size, SMALL, True)} for size in megabytes]
    by_vocabulary = [
        {"vocabulary": name, "size": size, **measured(vectors, megabytes[1], name, False)}
        for name, size in vocabularies.items()
    ]
    full = [{"size": n, **measured(search, n, N_SOURCE // 8 if options.quick else N_SOURCE)} for n in sizes]
    tables: list[Table] = [
        (f"Text: {SOURCE} and {SMALL}", with_slopes(by_text, "megabytes")),
        (f"Vocabulary, real: from {SOURCE}, {megabytes[1]:g} MB of text", with_slopes(by_vocabulary, "size")),
        ("Vocabulary, full: CSLS among made-up vectors", with_slopes(full, "size")),
    ]
    notes = [
        "GloVe: one iteration of both sides, 300 dimensions, window 15; peak GB is of all stages of a row.",
        "Text: .py files of site-packages in a drawn order; numbers of vectors are tokens seen at least five times.",
    ]
    report("Growth", tables, notes, options.out)


def with_slopes(rows: Sequence[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    """Add a last row with the slope of each measured column, and the unit to the names of memory columns."""
    names = [name for name in rows[0] if name not in (by, "vocabulary", "before", "peak")]
    sizes = [row[by] for row in rows]
    last: dict[str, Any] = {name: None for name in rows[0]}
    last |= {name: slope(sizes, [row[name] for row in rows]) for name in names}
    grown = [row["peak"] - row["before"] for row in rows]
    last["peak"] = slope(sizes, grown) if min(grown) > NOTICEABLE else None
    labelled = [{"": "", **row} for row in rows] + [{"": "slope", **last}]
    names_of = {"peak": "peak GB", "before": "of which before"}
    return [{names_of.get(name, name): value for name, value in row.items()} for row in labelled]


def python_files(megabytes: float) -> list[Document]:
    """Return `megabytes` of Python files of the installed packages; the same packages give the same files."""
    root = Path(sysconfig.get_paths()["purelib"])
    files = sorted(path for path in root.rglob("*.py") if "__pycache__" not in path.parts)
    documents, left = [], megabytes * 1e6
    for i in np.random.default_rng(0).permutation(len(files)):
        try:
            text = files[i].read_bytes().decode("utf-8")[: int(left)]
        except UnicodeDecodeError:
            continue
        if text:
            name = files[i].relative_to(root).as_posix()
            documents.append(Document(text, name, name, "code"))
            left -= len(text.encode())
        if left < 1:
            break
    else:
        print(f"The installed packages have only {megabytes - left / 1e6:.0f} MB of Python.")
    return documents


def load_pair(megabytes: float, target: str) -> TokenizedPair:
    return tokenize_pair(catalog.load_vocabulary(SOURCE), catalog.load_vocabulary(target), python_files(megabytes))


def vectors(megabytes: float, target: str, glove: bool) -> dict[str, Any]:
    """Measure the seconds of each stage from token ids on; functions are compiled before, on another text."""
    small = load_pair(0.05, target)
    anchored(small, AnchoredSettings(dimensions=8))
    if glove:
        gloves(small)
    pair = load_pair(megabytes, target)
    result: dict[str, Any] = {"tokens": len(pair.source_corpus.ids) + len(pair.target_corpus.ids)}
    before = peak()
    started = time.perf_counter()
    result["vectors"] = anchored(pair, AnchoredSettings())
    result["anchored s"] = time.perf_counter() - started
    if glove:
        started = time.perf_counter()
        gloves(pair)
        result["GloVe s"] = time.perf_counter() - started
    return {**result, "before": before}


def anchored(pair: TokenizedPair, settings: AnchoredSettings) -> int:
    shared = text_tokens_shared(pair.source, pair.target, "bytes")
    sizes = (pair.source.size, pair.target.size)
    found = anchored_vectors(
        pair.source_corpus, pair.target_corpus, (shared.source_ids, shared.target_ids), sizes, settings
    )
    return len(found[0]) + len(found[1])


def gloves(pair: TokenizedPair) -> None:
    for corpus, of in ((pair.source_corpus, pair.source), (pair.target_corpus, pair.target)):
        glove_vectors(corpus, of.size, GloveSettings(iterations=1), cached=False, device="cpu")


def search(n_target: int, n_source: int) -> dict[str, Any]:
    random = np.random.default_rng(0)
    few = random.standard_normal((300, DIMENSIONS), dtype=np.float32)
    nearest_csls(few, few)  # compiles
    before = peak()
    target, source = (random.standard_normal((n, DIMENSIONS), dtype=np.float32) for n in (n_target, n_source))
    started = time.perf_counter()
    nearest_csls(target, source)
    return {"CSLS s": time.perf_counter() - started, "before": before}


if __name__ == "__main__":
    main()
