"""Where do the excess bits of a rearranged model come from? By kind of target token, against the source model's bits.

    python benchmarks/excess.py [--source smollm2-135m] [--target sp32k] [--bytes 12000] [--out FILE]

Both models read the same held-out passages, the source with its own tokenizer. The bits of each source token are
spread evenly over its bytes, so the bits of a target token can be compared with the source model's bits for the same
bytes. Each target token is of one kind:

- new: the source has no such token
- same place: shared, and the source's own tokenisation has the same token at this position
- other place: shared, but the source splits the text differently here
- whitespace: shared, only spaces or line ends, and split differently
- fragment: shared, part of a character, and split differently

A second table separates the input side from the output side, over the target tokens that begin where a source token
begins. It has the source model's bits for their bytes; the bits of the new head with the *source's* states at these
positions, where only the rows of the head can cause a loss; and the bits of the converted model, which has also read
new rows and unfamiliar sequences.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from harness import Table, report

from tokalign_lab import catalog
from tokalign_lab.alignment.recipes import align
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
    converted = rearrange(model, align(tokenize_pair(source, target, train)).lexicon, source, target)
    old = [read(model, source, passage) for passage in passages]
    tables: list[Table] = []
    for name in ("anchored", "anchored, calibrated"):
        if name.endswith("calibrated"):
            calibrate(
                converted, target, excerpts(train, 8 * options.calibrate_tokens, seed=1), options.calibrate_tokens
            )
        new = [read(converted, target, passage) for passage in passages]
        title = f"{options.source} -> {options.target}, {name}: "
        rows = by_kind(source, target, passages, old, new)
        tables.append((f"{title}excess bits per byte of all {options.bytes:,} bytes", rows))
        rows = reading_and_writing(source, target, converted, old, new)
        tables.append((title + "bits per token, reading and writing separately", rows))
    report("Excess bits by kind of token", tables, [], options.out)


@dataclass(frozen=True)
class Reading:
    """A passage as read by a model: end of each token in bytes, hidden state before each token, ids, and bits."""

    ends: np.ndarray[Any, Any]
    states: torch.Tensor
    ids: torch.Tensor
    bits: np.ndarray[Any, Any]


@torch.inference_mode()
def read(model: Any, vocabulary: Vocabulary, document: Document) -> Reading:
    size = len(document.text.encode())
    states, ids, _ = head_inputs(model, vocabulary, [document], max_tokens=1 << 30, window=2048)
    ends = np.cumsum([len(vocabulary.token_bytes[i] or b"") for i in ids.tolist()])
    ends -= ends[-1] - size  # a dummy space at the beginning has no bytes
    return Reading(ends, states, ids, bits_of(model, states, ids))


@torch.inference_mode()
def bits_of(model: Any, states: torch.Tensor, ids: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return the bits of each token given the hidden state before it."""
    head, cap = model.get_output_embeddings(), getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    blocks = []
    for part, wanted in zip(states.split(64), ids.split(64), strict=True):
        logits = head(part).float()
        logits = logits if cap is None else torch.tanh(logits / cap) * cap
        blocks.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
    return torch.cat(blocks).numpy() / math.log(2)


def cost_of_bytes(reading: Reading) -> np.ndarray[Any, Any]:
    """Return the cumulative bits up to each byte; the bits of a token are spread evenly over its bytes."""
    lengths = np.diff(reading.ends, prepend=0)
    per_byte = np.repeat(reading.bits / np.maximum(lengths, 1), np.maximum(lengths, 0))
    return np.concatenate([[0.0], np.cumsum(per_byte)])


def reading_and_writing(
    source: Vocabulary, target: Vocabulary, converted: Any, old: list[Reading], new: list[Reading]
) -> list[dict[str, Any]]:
    shared = np.zeros(target.size, bool)
    shared[shared_tokens(source, target).target_ids] = True
    found = []
    for before, after in zip(old, new, strict=True):
        place_of = {int(end): place + 1 for place, end in enumerate(before.ends.tolist()[:-1])} | {0: 0}
        starts = np.concatenate([[0], after.ends[:-1]]).clip(0)
        here = np.array([i for i, start in enumerate(starts.tolist()) if start in place_of])
        states = before.states[[place_of[int(starts[i])] for i in here]]
        cost, ids = cost_of_bytes(before), after.ids[torch.from_numpy(here)]
        for token, paid, written, both in zip(
            ids.tolist(),
            cost[after.ends[here]] - cost[starts[here]],
            bits_of(converted, states, ids),
            after.bits[here],
            strict=True,
        ):
            found.append(("shared" if shared[token] else "new", paid, written, both))
    names = ["token", "source paid", "new head, source's states", "converted model"]
    table = pd.DataFrame(found, columns=names)
    table = pd.concat([table, table.assign(token="all")])
    means = table.groupby("token", sort=False)[names[1:]].mean()
    means.insert(0, "tokens", table.groupby("token", sort=False).size())
    return [{"token": name, **{k: int(v) if k == "tokens" else float(v) for k, v in row.items()}}
            for name, row in means.iterrows()]  # fmt: skip


def by_kind(
    source: Vocabulary, target: Vocabulary, passages: list[Document], old: list[Reading], new: list[Reading]
) -> list[dict[str, Any]]:
    """Sum up bits and bytes by kind of token, separately for prose, code and interface texts."""
    shared = np.zeros(target.size, bool)
    shared[shared_tokens(source, target).target_ids] = True
    found = []
    for passage, before, after in zip(passages, old, new, strict=True):
        size, ends, cost = len(passage.text.encode()), after.ends, cost_of_bytes(before)
        lengths = np.diff(before.ends, prepend=0)
        places = set(zip(np.maximum(before.ends - lengths, 0).tolist(), before.ends.tolist(), strict=True))
        starts = np.concatenate([[0], ends[:-1]]).clip(0, size)
        for token, start, end, value in zip(
            after.ids.tolist(), starts.tolist(), ends.tolist(), after.bits, strict=True
        ):
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
         "source's bits": float(r.source_bits), "excess per byte": float(r.excess)}
        for r in grouped.itertuples()
    ]  # fmt: skip
    whole = {"text": "all", "kind": "", "tokens": len(table), "bytes": int(total), "bits": float(table["bits"].sum())}
    whole |= {"source's bits": float(table["source_bits"].sum()), "excess per byte": float(grouped["excess"].sum())}
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
