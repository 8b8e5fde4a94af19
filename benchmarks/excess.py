"""What are the excess bits of a rearranged model made of? By kind of target token, against the source model's bits.

    python benchmarks/excess.py [--source smollm2-135m] [--target sp32k] [--bytes 12000] [--out docs/results/excess.md]

Both models read the same held-out passages, the source with its own tokenizer. The bits of each source token are
spread evenly over its bytes; the bits of a target token are compared with what the source model paid for the same
bytes. A target token is of one kind:

- new: the source has no such token
- same place: shared, and the source's own tokenisation has it at this very place
- other place: shared, but the source cuts the text otherwise here
- whitespace: shared, only spaces or line ends, and cut otherwise
- fragment: shared, part of a character, and cut otherwise
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tokalign_lab import catalog
from tokalign_lab.alignment.recipes import align
from tokalign_lab.console import print_table
from tokalign_lab.corpus import tokenize_pair
from tokalign_lab.documents import Document, excerpts, read_documents, split_documents
from tokalign_lab.evaluation.bits_per_byte import head_inputs
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.vocabulary import Vocabulary, shared_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="smollm2-135m")
    parser.add_argument("--target", default="sp32k")
    parser.add_argument("--bytes", type=int, default=12_000)
    parser.add_argument("--calibrate-tokens", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source, target = catalog.load_vocabulary(options.source), catalog.load_vocabulary(options.target)
    train, held_out = split_documents(read_documents(["default"], max_bytes=6_000_000))
    passages, model = excerpts(held_out, options.bytes, longest=600), load_model(options.source)
    moved = rearrange(model, align(tokenize_pair(source, target, train)).lexicon, source, target)
    paid = [token_bits(model, source, passage) for passage in passages]
    tables = []
    for name in ("anchored", "anchored, calibrated"):
        if name.endswith("calibrated"):
            calibrate(moved, target, excerpts(train, 8 * options.calibrate_tokens, seed=1), options.calibrate_tokens)
        bits = [token_bits(moved, target, passage) for passage in passages]
        rows = by_kind(source, target, passages, paid, bits)
        title = f"{options.source} -> {options.target}, {name}: excess bits per byte of all {options.bytes:,} bytes"
        print_table(rows, title=title)
        lines = ["| " + " | ".join(rows[0]) + " |", "|---|" + "---:|" * (len(rows[0]) - 1)]
        lines += ["| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in r.values()) + " |"
                  for r in rows]  # fmt: skip
        tables.append("\n".join([title, "", *lines, ""]))
    if options.out is not None:
        options.out.write_text("\n".join(tables))


@torch.inference_mode()
def token_bits(model: Any, vocabulary: Vocabulary, document: Document) -> tuple[np.ndarray, np.ndarray]:
    """Where each token ends in the document's bytes, and its bits."""
    size = len(document.text.encode())
    states, ids = head_inputs(model, vocabulary, [document], max_tokens=1 << 30, window=2048)
    head = model.get_output_embeddings()
    blocks = [torch.nn.functional.cross_entropy(head(part).float(), wanted, reduction="none")
              for part, wanted in zip(states.split(64), ids.split(64), strict=True)]  # fmt: skip
    ends = np.cumsum([len(vocabulary.token_bytes[i] or b"") for i in ids.tolist()])
    return ends - (ends[-1] - size), torch.cat(blocks).numpy() / math.log(2)  # a dummy space in front has no bytes


def by_kind(
    source: Vocabulary, target: Vocabulary, passages: list[Document], paid: list[Any], bits: list[Any]
) -> list[dict[str, Any]]:
    """Sum up bits and bytes of each kind of token, and of prose, code and interface texts apart."""
    shared = np.zeros(target.size, bool)
    shared[shared_tokens(source, target).target_ids] = True
    found = []
    for passage, (source_ends, source_bits), (ends, new_bits) in zip(passages, paid, bits, strict=True):
        size = len(passage.text.encode())
        lengths = np.diff(source_ends, prepend=0)
        per_byte = np.repeat(source_bits / np.maximum(lengths, 1), lengths)
        cost = np.concatenate([[0.0], np.cumsum(per_byte)])
        places = set(zip(np.maximum(source_ends - lengths, 0).tolist(), source_ends.tolist(), strict=True))
        starts = np.concatenate([[0], ends[:-1]]).clip(0, size)
        ids = target.encode([passage.text])[0]
        for token, start, end, value in zip(ids.tolist(), starts.tolist(), ends.tolist(), new_bits, strict=True):
            kind = kind_of(target.token_bytes[token] or b"", bool(shared[token]), (start, end) in places)
            part = passage.slice if passage.slice in ("prose", "code") else "interface"
            found.append((part, kind, end - start, float(value), cost[end] - cost[start]))
    table = pd.DataFrame(found, columns=["text", "kind", "bytes", "bits", "source_bits"])
    total = table["bytes"].sum()
    grouped = table.groupby(["text", "kind"], sort=False).agg(
        tokens=("bytes", "size"), bytes=("bytes", "sum"), bits=("bits", "sum"), source_bits=("source_bits", "sum")
    )
    grouped["excess"] = (grouped["bits"] - grouped["source_bits"]) / total
    grouped = grouped.sort_values("excess", ascending=False).reset_index()
    rows = [
        {"text": r.text, "kind": r.kind, "tokens": int(r.tokens), "bytes": int(r.bytes), "bits": float(r.bits),
         "source's bits": float(r.source_bits), "excess a byte": float(r.excess)}
        for r in grouped.itertuples()
    ]  # fmt: skip
    whole = {"text": "all", "kind": "", "tokens": len(table), "bytes": int(total), "bits": float(table["bits"].sum())}
    whole |= {"source's bits": float(table["source_bits"].sum()), "excess a byte": float(grouped["excess"].sum())}
    return [*rows, whole]


def kind_of(token: bytes, shared: bool, same_place: bool) -> str:
    if not shared:
        return "new"
    if same_place:
        return "same place"
    if not token.strip():
        return "whitespace"
    try:
        token.decode()
    except UnicodeDecodeError:
        return "fragment"
    return "other place"


if __name__ == "__main__":
    main()
