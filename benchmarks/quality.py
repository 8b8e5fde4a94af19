"""Which method loses least before any tuning? Bits per byte right after rearranging, by our methods and others.

    python benchmarks/quality.py --peers-python PEERS/bin/python

Every method gets the same source model, the same target tokenizer and (except the donor methods) the same text to learn
from. Its rows are put into the source model, which then reads held-out prose, code, digits and non-Latin text with the
target tokenizer. Seed i is the method's seed and selects the i-th draw of passages. `floor` is the source model with
its own tokenizer; `ceiling` is a model with random rows only. `peers/__init__.py` describes the environment of the
other authors' programs (peers); without it they are skipped.

Each measurement is a line of `benchmarks/results/quality.jsonl`, written immediately, so that a stopped run continues.
Measurements on other text or with other settings are ignored. Those of older code are not: delete their lines. A failed
method also has a line, with its error. The tables are computed from these lines at the end; `--methods none` computes
them without a new measurement.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import Table, read_lines, report
from peers import PeerFailed
from quality_methods import DONORS, METHODS, PEERS, SEEDLESS, TARGETS, Bench, Made

from tokalign_lab.console import set_up_logging
from tokalign_lab.documents import Document, excerpts, n_bytes, read_documents, split_documents, text_hash
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.interval import Interval, of_mean
from tokalign_lab.vocabulary import Vocabulary

SLICES = ("prose", "code", "digits", "non-Latin")
NON_LATIN = frozenset({"ar", "bn", "el", "fa", "he", "hi", "ja", "ko", "ru", "ta", "te", "th", "uk", "ur", "zh"})
PASSAGE = 500  # characters
NOTES = [
    "Mean over seeds; lower is better. One seed is about 8 kB of passages, and not every method ran with every seed: "
    "compare methods by the last column, method minus `anchored` on the same passages, with a 95 % interval (bootstrap "
    "over pairs and seeds).",
    "Seconds are those of the slowest seed, from text to rows; vectors that an earlier method trained on the same text "
    "come from the cache. A peer's seconds include starting Python and loading the model, ours do not.",
    "Calibration reads 8,000 tokens here, 20,000 by default elsewhere. FOCUS's package trains 100 dimensions, our "
    "`focus` 300.",
]
DIGIT_POOL = 20_000  # the slice "digits" is drawn from this many bytes of held-out passages with the most digits


class Results:
    """The measurements in a file that have these settings."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.lines: list[dict[str, Any]] = [line for line in read_lines(path) if line.get("settings") == settings]

    def has(self, source: str, target: str, method: str, seed: int) -> bool:
        """Whether the file has a line of this measurement; a failure counts."""
        key = (source, target, method, seed)
        return any((x["source"], x["target"], x["method"], x["seed"]) == key for x in self.lines)

    def add(self, **line: Any) -> None:
        """Write a line immediately."""
        self.lines.append({**line, "settings": self.settings})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.lines[-1]) + "\n")
        words = line.get("error") or f"{line['all']:.4f} bits per byte, {line['seconds']:.1f} s"
        print(f"{line['source']} -> {line['target']}  {line['method']}  seed {line['seed']}: {words}", flush=True)


def passages(held_out: list[Document], size: int, seed: int) -> list[Document]:
    """Draw `size` bytes of each slice."""
    pools = {
        "prose": [d for d in held_out if d.slice == "prose"],
        "code": [d for d in held_out if d.slice == "code"],
        "digits": rich_in_digits(held_out),
        "non-Latin": [d for d in held_out if d.slice in NON_LATIN],
    }
    drawn = []
    for name, pool in pools.items():
        one_slice = [replace(document, slice=name) for document in pool]  # so that languages are drawn in proportion
        drawn += excerpts(one_slice, size, PASSAGE, seed)
    return drawn


def rich_in_digits(documents: list[Document]) -> list[Document]:
    """Split prose and code into passages, and return those with the most digits per character."""
    texts = [d for d in documents if d.slice in ("prose", "code")]
    cut = excerpts(texts, n_bytes(texts), PASSAGE)
    ranked = sorted(cut, key=lambda d: -sum(c.isdigit() for c in d.text) / len(d.text))
    sizes = np.cumsum([n_bytes([document]) for document in ranked])
    return ranked[: int(np.searchsorted(sizes, DIGIT_POOL))]


def todo(bench: Bench, results: Results, options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield the methods and seeds that have no result yet."""
    for method in options.methods:
        if method == "floor" or (method in PEERS and options.peers_python is None):
            continue
        if method.startswith("omp") and (bench.source_name, bench.target_name) not in DONORS:
            continue
        for seed in range(options.seeds):
            if not results.has(bench.source_name, bench.target_name, method, seed):
                yield method, seed


def run(
    options: argparse.Namespace, results: Results, train: list[Document], text: Path, drawn: list[list[Document]]
) -> None:
    def measure(model: Any, vocabulary: Vocabulary, seed: int, **line: Any) -> None:
        found = bits_per_byte(model, vocabulary, drawn[seed], batch_tokens=2048)
        scores = {"all": found.bits_per_byte, "tokens": found.tokens, **found.by_slice}
        results.add(**line, seed=seed, **scores)

    for source in options.sources:
        bench = Bench(source, train, text, options.peers_python)
        for seed in range(options.seeds):
            if "floor" in options.methods and not results.has(source, "-", "floor", seed):
                measure(bench.model, bench.source, seed, source=source, target="-", method="floor", seconds=0.0)
        for target in options.targets or TARGETS[source] + donor_targets(source):
            if target == source:
                continue
            bench.turn_to(target)
            made: Made | None = None
            made_by = ""
            for method, seed in todo(bench, results, options):
                line: dict[str, Any] = {"source": source, "target": target, "method": method}
                try:
                    if made is None or made_by != method or method not in SEEDLESS:
                        made = None  # frees memory, because two models do not fit
                        made, made_by = bench.make(method, seed), method
                    measure(made.model, bench.target, seed, **line, seconds=made.seconds)
                except (PeerFailed, InputError) as error:
                    results.add(**line, seed=seed, error=str(error))


def donor_targets(source: str) -> tuple[str, ...]:
    """Return the targets that are measured only because a donor model has their tokenizer."""
    return tuple(target for of, target in DONORS if of == source and target not in TARGETS[source])


def tables(results: Results) -> list[dict[str, Any]]:
    """Average over seeds: one entry per source, target and method, in the order of METHODS."""
    found = []
    pairs = dict.fromkeys((line["source"], line["target"]) for line in results.lines if line["target"] != "-")
    for source, target in pairs:
        for method in METHODS:
            at = "-" if method == "floor" else target
            lines = [x for x in results.lines if (x["source"], x["target"], x["method"]) == (source, at, method)]
            good = [x for x in lines if "error" not in x]
            entry: dict[str, Any] = {"source": source, "target": target, "method": method, "seeds": len(good)}
            if good:
                entry |= {name: float(np.mean([x[name] for x in good])) for name in ("all", *SLICES)}
                # The slowest seed, because later seeds may find vectors in the cache.
                entry["seconds"] = max(x["seconds"] for x in good)
            if len(good) < len(lines):
                entry["error"] = next(x["error"] for x in lines if "error" in x)
            if lines:
                found.append(entry)
    return found


def difference(results: Results, method: str, other: str) -> Interval | None:
    """Return the mean of `method` minus `other` on the pairs and passages that both have; None without any."""
    by: dict[str, dict[tuple[str, str, int], float]] = {method: {}, other: {}}
    for line in results.lines:
        if line["method"] in by and "error" not in line:
            by[line["method"]][line["source"], line["target"], line["seed"]] = line["all"]
    common = sorted(by[method].keys() & by[other].keys())
    return of_mean(np.array([by[method][key] - by[other][key] for key in common])) if common else None


def closed(results: Results, source: str, target: str, method: str) -> float | None:
    """Return how much of the way from `pieces` to the source a method goes, on the seeds that all three have."""
    found = {}
    for name in ("floor", "pieces", method):
        at = "-" if name == "floor" else target
        lines = [x for x in results.lines if (x["source"], x["target"], x["method"]) == (source, at, name)]
        found[name] = {x["seed"]: x["all"] for x in lines if "error" not in x}
    seeds = set.intersection(*(set(values) for values in found.values()))
    if not seeds:
        return None
    reference, pieces, ours = (np.mean([values[seed] for seed in seeds]) for values in found.values())
    return float((pieces - ours) / (pieces - reference))


def printed(entries: list[dict[str, Any]], results: Results) -> list[Table]:
    """Arrange the entries as tables: all pairs, the share of the way to the source, and one table per pair."""
    pairs = list(dict.fromkeys((entry["source"], entry["target"]) for entry in entries))
    by = {(entry["source"], entry["target"], entry["method"]): entry for entry in entries}
    whole = []
    for method, what in METHODS.items():
        values = {f"{s} → {t}": by.get((s, t, method), {}).get("all") for s, t in pairs}
        known = [value for value in values.values() if value is not None]
        if known:
            apart = None if method in ("floor", "anchored") else difference(results, method, "anchored")
            words = None
            if apart is not None:
                bounds = f" [{apart.low:+.3f}, {apart.high:+.3f}]" if apart.n > 2 else ""
                words = f"{apart.mean:+.3f}{bounds}, n = {apart.n}"
            whole.append({"method": f"{method}: {what}", **values, "pairs": len(known), "minus anchored": words})
    shares = []
    for method in ("anchored", "anchored-calibrated", "anchored-by-source"):
        found = {f"{s} → {t}": closed(results, s, t, method) for s, t in pairs}
        shares.append({"method": method, **{n: None if one is None else f"{one:.0%}" for n, one in found.items()}})
    tables: list[Table] = [("All pairs", whole), ("Share of the way from `pieces` to the source", shares)]
    for source, target in pairs:
        mine = [entry for entry in entries if (entry["source"], entry["target"]) == (source, target)]
        columns = ("method", "all", *SLICES, "seconds", "seeds", "error")
        rows = [{name: entry.get(name) for name in columns} for entry in mine]
        tables.append((f"{source} → {target}", rows))
    return tables


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality.jsonl"))
    parser.add_argument(
        "--peers-python", type=Path, help="Python interpreter of the peers' environment; without it they are skipped"
    )
    parser.add_argument("--sources", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--targets", nargs="+", help="tokenizers of the catalogue; each source's own list by default")
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, "none"], default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=2_000, help="held-out text per slice and seed")
    parser.add_argument("--train-bytes", type=int, default=6_000_000, help="text that methods learn from")
    options = parser.parse_args()
    if options.peers_python is not None and not options.peers_python.is_file():
        parser.error(f"there is no interpreter at '{options.peers_python}'; see benchmarks/peers/__init__.py")
    return options


def main() -> None:
    options = parse()
    set_up_logging()
    train = split_documents(read_documents(["default"], max_bytes=options.train_bytes))[0]
    held_out = split_documents(read_documents(["default"]))[1]
    drawn = [passages(held_out, options.bytes, seed) for seed in range(options.seeds)]
    settings = {
        "bytes": options.bytes,
        "train_bytes": options.train_bytes,
        "train": text_hash(train)[:12],
        "held_out": text_hash(held_out)[:12],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = Results(options.out, settings)
    if options.methods != ["none"]:
        with tempfile.TemporaryDirectory() as work:
            text = Path(work) / "train.jsonl"
            text.write_text("".join(json.dumps({"text": document.text}) + "\n" for document in train), encoding="utf-8")
            run(options, results, train, text, drawn)
    report("Bits per byte right after rearranging", printed(tables(results), results), NOTES, options.out)


if __name__ == "__main__":
    main()
