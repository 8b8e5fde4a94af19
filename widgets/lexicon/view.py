"""Filter and sort a lexicon of a quarter of a million rows in the kernel.

All attributes of the rows are arrays; a query is a few array comparisons and one text search. This module contains no
widgets, so that tests and benchmarks need none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from tokalign_lab import catalog
from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.alignment.recipes import Alignment
from tokalign_lab.evaluation.breakdown import scripts_of
from tokalign_lab.runs.control import find_run
from tokalign_lab.runs.folder import RunFolder
from tokalign_lab.spelling import script_of
from tokalign_lab.vocabulary import Vocabulary

from ..common.state import EVERYTHING, Query, Selection
from .search import TokenSearch

SORTS = {
    "frequency": "Most frequent first",
    "worst": "Worst first",
    "best": "Best first",
    "margin": "Smallest margin first",
    "id": "By token id",
}
WORST_MEANS = "tokens of the text without a score, then the lowest scores; copied and edited rows last"
MOST_FOUND = 20  # source tokens that `find_sources` returns
RANGES = ("length", "frequency", "score", "margin")
_NEVER_WORST = ("identical", "role", "hole", "edited")


class Labels:
    """Readable labels of the source and target tokens of a lexicon.

    With a vocabulary, a label shows the token's bytes; without one, it is the tokenizer's own string.
    """

    def __init__(self, lexicon: Lexicon, source: Vocabulary | None = None, target: Vocabulary | None = None) -> None:
        lexicon.check(source, target)
        self.vocabularies = {"source": source, "target": target}
        self._lexicon = lexicon

    @cached_property
    def _raw_source(self) -> dict[int, str]:
        table = self._lexicon.table
        return dict(zip(table["source_id"].tolist(), table["source_token"].tolist(), strict=True))

    def size(self, space: str) -> int:
        """Return the number of ids on one side."""
        return int(self._lexicon.provenance[space]["size"])

    def of(self, space: str, token_id: int) -> str:
        """Return the label of a token; "" for -1, no token."""
        if token_id < 0:
            return ""
        vocabulary = self.vocabularies[space]
        if vocabulary is not None:
            return vocabulary.label(token_id)
        if space == "source":
            return self._raw_source.get(token_id, f"id {token_id}")
        return str(self._lexicon.table["target_token"].iat[token_id])


# A lock, so that a cell and background threads do not load the same vocabulary twice.
_lock = threading.Lock()
_loaded: dict[str, Vocabulary] = {}  # catalogue names only: files at a path may change


def opened(run: RunFolder | Path | str, alignment: Alignment | None) -> tuple[RunFolder, Alignment]:
    """Return an align run, found by its folder or name, and its alignment, which is loaded unless it is given.

    Raises `InputError` if there is no such run, or it has no lexicon.
    """
    run = run if isinstance(run, RunFolder) else find_run(run)
    return run, alignment or Alignment.load(run.path / "alignment")


def vocabularies_of(lexicon: Lexicon) -> tuple[Vocabulary, Vocabulary]:
    """Return the source and target vocabulary of a lexicon: those stored with its file, or else loaded by name."""
    if lexicon.vocabularies is not None:
        return lexicon.vocabularies
    source, target = (vocabulary_of(lexicon.provenance[side]["name"]) for side in ("source", "target"))
    return source, target


def vocabulary_of(name: str) -> Vocabulary:
    """Load the vocabulary called `name` (see `catalog.load_vocabulary`); thread-safe.

    Raises `InputError` if there is none of this name, or it cannot be read.
    """
    with _lock:
        if name in _loaded:
            return _loaded[name]
        vocabulary = catalog.load_vocabulary(name)
        if catalog.is_known(name):
            _loaded[name] = vocabulary
        return vocabulary


class LexiconView:
    """A lexicon as arrays for queries.

    Attributes
    ----------
    lexicon : the lexicon, with edits applied
    source_of, score, margin, count, origin : columns of the lexicon, of shape (target size,)
    length : bytes of each target token, of shape (target size,)
    """

    def __init__(self, lexicon: Lexicon, labels: Labels) -> None:
        self.labels = labels
        self._take(lexicon)

    def _take(self, lexicon: Lexicon) -> None:
        table = lexicon.table
        self.lexicon = lexicon
        self.source_of = table["source_id"].to_numpy(np.int64)
        self.score = table["score"].to_numpy(np.float32)
        self.margin = table["margin"].to_numpy(np.float32)
        self.count = table["target_count"].to_numpy(np.int64)
        self.origin = table["origin"].astype("category")
        self.origin_counts = lexicon.origin_counts()
        self._orders: dict[str, np.ndarray] = {}
        self.__dict__.pop("targets_of", None)

    def change(self, lexicon: Lexicon, target_ids: Iterable[int]) -> None:
        """Replace the lexicon by one that differs only in these rows."""
        self._take(lexicon)
        self.search_again(target_ids)

    def search_again(self, target_ids: Iterable[int]) -> None:
        """Update the search index for these rows, whose partners have changed."""
        if "_search" in self.__dict__:
            for target_id in target_ids:
                self._search.change(target_id, self._words(target_id))

    @cached_property
    def targets_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Target ids sorted by their source, and those sources: the inverse of the lexicon."""
        order = np.argsort(self.source_of, kind="stable")
        return order, self.source_of[order]

    @cached_property
    def script(self) -> np.ndarray:
        """Script of each target token (`spelling.script_of`) as an index into `scripts`, int16 (target size,)."""
        vocabulary = self.labels.vocabularies["target"]
        if vocabulary is None:
            names = [script_of(token.encode()) for token in self.lexicon.table["target_token"].tolist()]
        else:
            names = scripts_of(vocabulary).tolist()
        code_of = {name: code for code, name in enumerate(dict.fromkeys(names))}
        self.scripts = list(code_of)
        return np.array([code_of[name] for name in names], dtype=np.int16)

    @cached_property
    def script_counts(self) -> dict[str, int]:
        """Number of target tokens for each script, the most frequent script first."""
        counts = np.bincount(self.script, minlength=1)
        order = np.argsort(-counts, kind="stable")
        return {self.scripts[i]: int(counts[i]) for i in order if self.scripts[i]}

    @cached_property
    def length(self) -> np.ndarray:
        """Bytes of each target token, int64; -1 for tokens that are not text."""
        vocabulary = self.labels.vocabularies["target"]
        if vocabulary is None:
            return np.array([len(token.encode()) for token in self.lexicon.table["target_token"].tolist()])
        return np.array([-1 if token is None else len(token) for token in vocabulary.token_bytes])

    def partners(self, space: str, ids: np.ndarray) -> np.ndarray:
        """Return the ids of the partners: the best source of each target token, or all targets of each source token."""
        if space == "target":
            known = np.asarray(ids)[np.asarray(ids) < len(self.source_of)]
            found = self.source_of[known]
            return np.unique(found[found >= 0])
        order, sources = self.targets_of
        wanted = np.unique(ids)
        starts, ends = np.searchsorted(sources, wanted), np.searchsorted(sources, wanted, side="right")
        return np.sort(np.concatenate([order[a:b] for a, b in zip(starts, ends, strict=True)] or [order[:0]]))

    def targets(self, chosen: Selection) -> np.ndarray:
        """Return the selected target ids in their order, or the partners of the selected source ids."""
        ids = np.asarray(chosen.ids, dtype=np.int64)
        rows = ids if chosen.space == "target" else self.partners("source", ids)
        return rows[(rows >= 0) & (rows < len(self.source_of))]

    def order(self, sort: str) -> np.ndarray:
        """Return all target ids in this order, int64 (target size,); computed once."""
        if sort not in self._orders:
            ids = np.arange(len(self.score))
            filled = np.nan_to_num(self.score, nan=-1.0)
            judged = ~self.origin.isin(_NEVER_WORST).to_numpy()
            keys = {
                "frequency": (ids, -self.count),
                "worst": (-self.count, filled, ~((self.count > 0) & judged), ~judged),
                "best": (-self.count, -filled),
                "margin": (-self.count, np.nan_to_num(self.margin, nan=np.inf), ~judged),
                "id": (ids,),
            }
            self._orders[sort] = np.lexsort(keys[sort])
        return self._orders[sort]

    def rows(self, query: Query, chosen: Selection | None = None) -> np.ndarray:
        """Return the target ids that a query finds, in its order; `chosen` is the selection for `query.selected`.

        Raises `InputError` for an invalid regular expression.
        """
        return self.ordered(query, self.matching(query, chosen))

    def ordered(self, query: Query, keep: np.ndarray) -> np.ndarray:
        """Return the target ids of the rows to keep, in the query's order; `keep` is bool (target size,)."""
        order = self.order(query.sort)
        if query.reverse:
            order = order[::-1]
        return order[keep[order]]

    def matching(self, query: Query, chosen: Selection | None = None) -> np.ndarray:
        """Return which rows pass the query's filters, bool (target size,)."""
        keep = np.ones(len(self.source_of), dtype=bool)
        if query.selected:
            keep[:] = False
            keep[self.targets(chosen or Selection())] = True
        if query.origin:
            keep &= (self.origin == query.origin).to_numpy()
        if query.script:
            codes = self.script
            keep &= codes == (self.scripts.index(query.script) if query.script in self.scripts else -1)
        for name in RANGES:
            if getattr(query, name) != EVERYTHING:
                keep &= within(self.values(name), *getattr(query, name))
        if query.text:
            keep &= self._search.matching(query.text, query.regex)
        return keep

    def values(self, name: str) -> np.ndarray:
        """Return the array for a range of the query: a name of `RANGES`."""
        return self.count if name == "frequency" else getattr(self, name)

    @cached_property
    def _search(self) -> TokenSearch:
        table, labels = self.lexicon.table, self.labels
        sources = self.source_of.tolist()
        source_labels = {i: labels.of("source", i) for i in set(sources)}
        return TokenSearch(
            (labels.of("target", row) for row in range(len(table))),
            table["target_token"].tolist(),
            (source_labels[i] for i in sources),
            table["source_token"].tolist(),
        )

    @cached_property
    def _source_search(self) -> TokenSearch:
        return TokenSearch(self.labels.of("source", i) for i in range(self.labels.size("source")))

    def find_sources(self, text: str) -> list[int]:
        """Return the ids of at most `MOST_FOUND` source tokens with this id or label part, shortest labels first."""
        size = self.labels.size("source")
        wanted = text.strip()
        by_id = [int(wanted)] if wanted.isdecimal() and int(wanted) < size else []
        found = np.flatnonzero(self._source_search.matching(text, regex=False)).tolist() if text else []
        ranked: list[int] = sorted(found, key=lambda i: (len(self.labels.of("source", i)), i))
        return list(dict.fromkeys([*by_id, *ranked]))[:MOST_FOUND]

    def _words(self, row: int) -> tuple[str, ...]:
        line = self.lexicon.table.iloc[row]
        words = (self.labels.of("target", row), line["target_token"], self.labels.of("source", int(line["source_id"])))
        return (*words, line["source_token"])

    def prepare(self) -> None:
        """Build the search index and other cached arrays; takes a few seconds for a quarter of a million rows."""
        _ = self._search, self.targets_of, self.script_counts, self.length

    def details(self, target_id: int) -> dict[str, Any]:
        """Return the lexicon's data on one token as plain values; see `pieces_of` for its pieces."""
        row = self.lexicon.table.iloc[target_id]
        pairs = {
            "candidates": (row["candidate_ids"], row["candidate_scores"]),
            "sources": (row["sources"], row["weights"]),
        }
        if self.lexicon.has_output:
            pairs["output_sources"] = (row["output_sources"], row["output_weights"])
        listed = {
            name: [(int(i), self.labels.of("source", int(i)), float(value)) for i, value in zip(*pair, strict=True)]
            for name, pair in pairs.items()
        }
        for name, mean in (("sources", "mean_weight"), ("output_sources", "output_mean_weight")):
            if name in listed:
                listed[name].sort(key=lambda item: -item[2])
                if row[mean]:
                    listed[name].append((-1, "mean of all rows", float(row[mean])))
        plain = {name: cast(Any, row[name]) for name in ("score", "margin", "origin", "source_count", "target_count")}
        return {
            "output_sources": [],
            **listed,
            **plain,
            **self._bytes(target_id, int(row["source_id"])),
            "target_id": target_id,
            "target": self.labels.of("target", target_id),
            "source_id": int(row["source_id"]),
            "source": self.labels.of("source", int(row["source_id"])),
        }

    def _bytes(self, target_id: int, source_id: int) -> dict[str, Any]:
        """Return the bytes of both tokens as hex; empty without vocabularies."""
        source, target = self.labels.vocabularies["source"], self.labels.vocabularies["target"]
        if source is None or target is None:
            return {}
        ours = target.token_bytes[target_id] or b""
        theirs = (source.token_bytes[source_id] if source_id >= 0 else None) or b""
        return {"bytes": (ours.hex(" ").upper(), theirs.hex(" ").upper())}

    def pieces_of(self, target_id: int) -> dict[str, Any]:
        """Return "pieces": labels of the source tokens that spell a target token; {} if the source has no tokenizer.

        The first call loads the source's tokenizer, which takes seconds.
        """
        source, target = self.labels.vocabularies["source"], self.labels.vocabularies["target"]
        if source is None or target is None or not source.has_tokenizer:
            return {}
        ours = target.token_bytes[target_id] or b""
        return {"pieces": [source.label(i) for i in spell(source, [ours])[0]]}


def within(values: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Return which values are between the bounds, both included, as bool; False for NaN (unknown)."""
    keep = np.isfinite(values)
    if low is not None:
        keep &= values >= low
    if high is not None:
        keep &= values <= high
    return keep
