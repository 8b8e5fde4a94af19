"""The methods that `quality.py` compares, and how each makes a model with the target vocabulary."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import PeerRows, run_focus, run_tokensurgeon, run_wechsel
from peers.transplant import transplant_rows
from torch import nn

from tokalign_lab import catalog
from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.recipes import align
from tokalign_lab.corpus import TokenizedPair, tokenize_pair
from tokalign_lab.documents import Document, excerpts
from tokalign_lab.model.calibrate import calibrate
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.vocabulary import shared_roles

TARGETS = {
    "smollm2-135m": ("sp32k", "qwen2", "gemma3", "pythia"),
    "gemma-3-270m": ("sp32k", "qwen2", "pythia", "llama3"),
}
DONORS = {("smollm2-135m", "gemma3"): "gemma-3-270m", ("gemma-3-270m", "smollm2-135m"): "smollm2-135m"}
METHODS = {
    "floor": "the source model with its own tokenizer",
    "ceiling": "every row random, special tokens too",
    "random": "copies by bytes and roles, other rows random",
    "raw-random": "copies by string, other rows random",
    "mean": "copies by bytes, other rows the mean row",
    "pieces": "copies by bytes, other rows the mean of their source pieces (FVT)",
    "last-in-mean-out": "copies by bytes; other input rows the last source piece, output rows the mean row",
    "transplant": "transplant-vocab's rule, reimplemented",
    "tokalign": "TokAlign with relative representations, as its script",
    "tokalign++": "TokAlign++: GloVe, VecMap, CSLS",
    "focus": "FOCUS, ours, shared tokens by bytes",
    "focus-shipped": "FOCUS as deepfocus ships it",
    "focus-repaired": "the same, with shared tokens by bytes and special tokens by role copied over it",
    "wechsel": "WECHSEL, ours, special tokens by role",
    "wechsel-shipped": "WECHSEL as its package ships it",
    "omp": "OMP, ours; gets a donor model and no text",
    "omp-shipped": "OMP as mergekit-tokensurgeon ships it; gets a donor model and no text",
    "anchored-tied": "ours, but the input rows in both matrices",
    "pieces-calibrated": "pieces, then calibrated on train text (no gradient, see model/calibrate.py)",
    "anchored": "ours",
    "anchored-calibrated": "ours, then calibrated on train text",
    "anchored-by-source": "ours, then calibrated on train text and by what the source expects of it (the default)",
}
PEERS = ("focus-shipped", "focus-repaired", "wechsel-shipped", "omp-shipped")
# Methods without randomness: their model is made once and measured on the passages of each seed.
SEEDLESS = ("mean", "pieces", "last-in-mean-out", "transplant", "wechsel-shipped", "omp", "omp-shipped")


CALIBRATE_BYTES, CALIBRATE_TOKENS = 60_000, 8_000


@dataclass(frozen=True)
class Made:
    """A model with the rows of a method, and the seconds that it took to make them."""

    model: Any
    seconds: float


class Bench:
    """One source model with one target at a time, and the data that all methods share.

    `text` is the file of train documents (JSON lines). `python` is the interpreter of the peers' environment, or None.
    """

    def __init__(self, source: str, train: list[Document], text: Path, python: Path | None) -> None:
        self.train, self.text, self.python = train, text, python
        self.source_name = source
        self.source = catalog.load_vocabulary(source)
        self.model = load_model(source)

    def turn_to(self, target: str) -> None:
        """Switch to another target tokenizer."""
        self.target_name, self.target = target, catalog.load_vocabulary(target)
        self.pair: TokenizedPair = tokenize_pair(self.source, self.target, self.train)
        self.shipped: dict[int, PeerRows] = {}  # rows of FOCUS by seed, which two methods use

    def make(self, method: str, seed: int) -> Made:
        """Make the model of a method. Raises `PeerFailed` or `InputError` if the method fails."""
        started = time.perf_counter()
        if method == "ceiling":
            rows = LexiconRows(self.target.size)
            rows.fill(np.flatnonzero(~self.target.is_hole), "random")
            return self._rearranged(self._lexicon(rows), seed, started)
        if method == "transplant":
            return self._rearranged(self._lexicon(transplant_rows(self.source, self.target)), seed, started)
        if method == "raw-random":
            return self._rearranged(align(self.pair, "random", seed, overlap="raw").lexicon, seed, started)
        if method == "anchored-tied":
            return self._rearranged(align(self.pair, "anchored", seed).lexicon, seed, started, keep_tied=True)
        if method.endswith(("-calibrated", "-by-source")):
            made = self.make(method.removesuffix("-calibrated").removesuffix("-by-source"), seed)
            text = excerpts(self.train, CALIBRATE_BYTES, seed=seed)
            source = (self.model, self.source) if method.endswith("-by-source") else None
            calibrate(made.model, self.target, text, CALIBRATE_TOKENS, source=source)
            return replace(made, seconds=time.perf_counter() - started)
        if method == "omp":
            name = DONORS[self.source_name, self.target_name]
            donor = (load_model(name), catalog.load_vocabulary(name))
            lexicon = align(self.pair, method, seed, model=self.model, donor=donor).lexicon
            return self._rearranged(lexicon, seed, started)
        if method not in PEERS:
            return self._rearranged(align(self.pair, method, seed, model=self.model).lexicon, seed, started)
        rows = self._peer(method, seed)
        return Made(self._with(rows), rows.seconds)

    def _peer(self, method: str, seed: int) -> PeerRows:
        assert self.python is not None  # without it the peers are skipped
        source, target = catalog.get(self.source_name), catalog.get(self.target_name)
        if method == "omp-shipped":
            donor = DONORS[self.source_name, self.target_name]
            return run_tokensurgeon(self.python, self.model, source, load_model(donor), catalog.get(donor))
        if method == "wechsel-shipped":
            return run_wechsel(self.python, source, target, self.text)
        if seed not in self.shipped:
            self.shipped[seed] = run_focus(self.python, source, target, self.text, seed)
        return self._repaired(self.shipped[seed]) if method == "focus-repaired" else self.shipped[seed]

    def _repaired(self, rows: PeerRows) -> PeerRows:
        """Copy the rows of shared tokens by bytes, and of special tokens by role."""
        shared, roles = text_tokens_shared(self.source, self.target, "bytes"), shared_roles(self.source, self.target)
        to = np.array([*shared.target_ids, *roles], np.int64)
        whence = np.array([*shared.source_ids, *roles.values()], np.int64)
        head = self.model.get_output_embeddings().weight
        repaired = []
        for made, matrix in ((rows.input, self.model.get_input_embeddings().weight), (rows.output, head)):
            copy = None if made is None else made.copy()
            if copy is not None:
                kept = (to < len(copy)) & (whence < len(matrix))
                copy[to[kept]] = matrix.detach().cpu().numpy()[whence[kept]]
            repaired.append(copy)
        return replace(rows, input=repaired[0], output=repaired[1])

    def _lexicon(self, rows: LexiconRows) -> Lexicon:
        counts = np.zeros(self.source.size), np.zeros(self.target.size)
        provenance = make_provenance(self.source, self.target, recipe="benchmark", parameters={}, seed=0)
        table = rows.to_table(self.source, self.target, *counts)
        return Lexicon(table, reverse_of(rows, self.source.size), provenance)

    def _rearranged(self, lexicon: Lexicon, seed: int, started: float, keep_tied: bool = False) -> Made:
        seconds = time.perf_counter() - started
        return Made(rearrange(self.model, lexicon, self.source, self.target, seed, keep_tied), seconds)

    def _with(self, made: PeerRows) -> Any:
        """Put a peer's rows into the source model; ids beyond them (some peers count tokens) get the mean row."""
        rows = LexiconRows(self.target.size)
        rows.fill(np.arange(self.target.size), "mean")
        converted = rearrange(self.model, self._lexicon(rows), self.source, self.target)
        embedding, head = converted.get_input_embeddings(), converted.get_output_embeddings()
        if made.output is not None:
            head.weight = nn.Parameter(head.weight.detach().clone())
        for matrix, new in ((embedding.weight, made.input), (head.weight, made.output)):
            if new is not None:
                matrix.data[: len(new)] = torch.from_numpy(new[: len(matrix)]).to(matrix)
        return converted
