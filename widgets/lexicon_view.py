"""Search, filter, sort and page through a lexicon of a quarter of a million rows, in the kernel.

Search runs over one long string of all labels: a substring search in C that takes milliseconds, where a search row
by row takes a tenth of a second. No widgets here, so that it can be tested and timed alone.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from typing import Any, cast

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import Vocabulary
from tokalign_lab.widgets.query import Query

SORTS = {
    "frequency": "Most frequent first",
    "worst": "Worst first",
    "best": "Best first",
    "margin": "Smallest margin first",
    "id": "By token id",
}
_NEVER_WORST = ("identical", "role", "hole", "edited")


class Labels:
    """What people read for a token id, on either side of a lexicon.

    With a vocabulary a label is the token's bytes made visible; without one it is the tokenizer's own string.
    """

    def __init__(self, lexicon: Lexicon, source: Vocabulary | None = None, target: Vocabulary | None = None) -> None:
        lexicon.check(source, target)
        self._vocabularies = {"source": source, "target": target}
        self._lexicon = lexicon

    @cached_property
    def _raw_source(self) -> dict[int, str]:
        table = self._lexicon.table
        return dict(zip(table["source_id"].tolist(), table["source_token"].tolist(), strict=True))

    def of(self, space: str, token_id: int) -> str:
        """Label of one token; "" for no token."""
        if token_id < 0:
            return ""
        vocabulary = self._vocabularies[space]
        if vocabulary is not None:
            return vocabulary.label(token_id)
        if space == "source":
            return self._raw_source.get(token_id, f"id {token_id}")
        return str(self._lexicon.table["target_token"].iat[token_id])


class LexiconView:
    """A lexicon as arrays that can be queried."""

    def __init__(self, lexicon: Lexicon, labels: Labels) -> None:
        self.lexicon = lexicon
        self.labels = labels
        table = lexicon.table
        self.source_of = table["source_id"].to_numpy(np.int64)
        self.score = table["score"].to_numpy(np.float32)
        self.margin = table["margin"].to_numpy(np.float32)
        self.count = table["target_count"].to_numpy(np.int64)
        self.origin = table["origin"].astype("category")
        self.origin_counts = lexicon.origin_counts()
        self._orders: dict[str, np.ndarray] = {}

    @cached_property
    def targets_of(self) -> tuple[np.ndarray, np.ndarray]:
        """Target ids ordered by their source, and those sources: the lexicon turned around, many to one."""
        order = np.argsort(self.source_of, kind="stable")
        return order, self.source_of[order]

    def partners(self, space: str, ids: np.ndarray) -> np.ndarray:
        """Return the other side's tokens: each target's best source, or every target that chose these sources."""
        if space == "target":
            known = np.asarray(ids)[np.asarray(ids) < len(self.source_of)]
            found = self.source_of[known]
            return np.unique(found[found >= 0])
        order, sources = self.targets_of
        wanted = np.unique(ids)
        starts, ends = np.searchsorted(sources, wanted), np.searchsorted(sources, wanted, side="right")
        return np.sort(np.concatenate([order[a:b] for a, b in zip(starts, ends, strict=True)] or [order[:0]]))

    def order(self, sort: str) -> np.ndarray:
        """Row numbers in this order, int64 (target size,); worked out once."""
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

    def rows(self, query: Query) -> np.ndarray:
        """Target ids that the query asks for, in its order.

        Raises
        ------
        InputError
            For a regular expression that cannot be read.
        """
        order = self.order(query.sort)
        if query.reverse:
            order = order[::-1]
        keep = np.ones(len(order), dtype=bool)
        if query.origin:
            keep &= (self.origin == query.origin).to_numpy()
        if query.text:
            keep &= self._matching(query.text, query.regex)
        return order[keep[order]]

    @cached_property
    def _haystack(self) -> tuple[str, np.ndarray]:
        """All labels and raw tokens, folded, four lines a row; and where each row begins."""
        table = self.lexicon.table
        labels, sources = self.labels, self.source_of.tolist()
        source_labels = {i: labels.of("source", i) for i in set(sources)}
        parts, starts, at = [], np.empty(len(sources), dtype=np.int64), 0
        raw = zip(table["target_token"].tolist(), table["source_token"].tolist(), strict=True)
        for row, (target_token, source_token) in enumerate(raw):
            words = (labels.of("target", row), target_token, source_labels[sources[row]], source_token)
            line = folded("\n".join(word.replace("\n", "↵") for word in words)) + "\n"
            starts[row] = at
            at += len(line)
            parts.append(line)
        return "".join(parts), starts

    def prepare(self) -> None:
        """Build what a search needs; about a second for a quarter of a million rows."""
        _ = self._haystack, self.targets_of

    def _matching(self, text: str, regex: bool) -> np.ndarray:
        haystack, starts = self._haystack
        found = np.zeros(len(starts), dtype=bool)
        if regex:
            try:
                pattern = re.compile(text.replace(" ", "␣"), re.IGNORECASE | re.MULTILINE)
            except re.error as error:
                raise InputError(f"'{text}' is not a regular expression: {error}.") from error
            ends = np.append(starts[1:], len(haystack))
            search = pattern.search
            for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
                if search(haystack, start, end - 1):
                    found[row] = True
            return found
        needle = folded(text.replace(" ", "␣"))
        places, at = [], haystack.find(needle)
        while at >= 0:
            places.append(at)
            at = haystack.find(needle, at + 1)
        found[np.searchsorted(starts, places, side="right") - 1] = True
        return found

    def details(self, target_id: int) -> dict[str, Any]:
        """Everything the lexicon knows of one target token, as plain values."""
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
        return (
            {"output_sources": []}
            | listed
            | {
                "target_id": target_id,
                "target": self.labels.of("target", target_id),
                "source_id": int(row["source_id"]),
                "source": self.labels.of("source", int(row["source_id"])),
                **{
                    name: cast(Any, row[name]) for name in ("score", "margin", "origin", "source_count", "target_count")
                },
            }
        )


def folded(text: str) -> str:
    """Text for comparing: composed (NFC) and without case."""
    return unicodedata.normalize("NFC", text).casefold()
