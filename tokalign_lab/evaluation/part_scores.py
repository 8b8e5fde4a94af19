"""Scores of a set of target tokens, such as a filter or a selection.

The scores of a lexicon are means over documents (`lexicon_scores`). Here a set of target tokens is scored in two ways,
both from target to source, the direction of a model's rows:

- at the tokens themselves: **match**, the clipped precision of BLEU-1 at the positions of these tokens (`breakdown`);
  n counts their occurrences. **p_at_1**: share of the held-out ones that found their partner; n counts held-out tokens.
  It measures the recipe's vectors, so edits do not change it.
- in the documents that contain at least one of them: **bleu1**, **sentence_score**, **bert_score**, means over these
  documents; n counts documents.

With the lexicon before some edits, both lexicons are scored on the same documents. The change is the mean difference
over documents, with an interval. The documents with the lowest BLEU-1 are returned with both token sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.evaluation.breakdown import credit
from tokalign_lab.evaluation.encoder import Encoder, load_encoder
from tokalign_lab.evaluation.held_out import HeldOutTokens
from tokalign_lab.evaluation.interval import Interval, of_mean, of_ratio, of_share
from tokalign_lab.evaluation.lexicon_scores import MOST_SENTENCES, bleu1, long_enough, score_texts, spread
from tokalign_lab.progress import Progress, part, silent

MEASURES = ("bleu1", "match", "sentence_score", "bert_score", "p_at_1")
MOST_DOCUMENTS = 1000
WORST = 8  # documents returned per part
SHOWN_TOKENS = 120  # of a document

Intervals = dict[str, Interval]  # by measure
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class PartScores:
    """Scores by part.

    Attributes
    ----------
    parts : scores by part and measure; a measure without tokens or documents is left out
    before, changes : the same for the lexicon before the edits, and the changes; empty without that lexicon
    documents : by part, the documents with the lowest BLEU-1, worst first: `document` (index), `name`, `slice`,
        `bleu1`, and `original` and `mapped`, the first source tokens as labels ("" for a lost token)
    """

    parts: dict[str, Intervals]
    before: dict[str, Intervals] = field(default_factory=dict)
    changes: dict[str, Intervals] = field(default_factory=dict)
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class _Measured:
    """Values of one lexicon, or differences of two: for each token of the text, and by measure for documents."""

    credit: NDArray[np.float64]
    by_document: dict[str, tuple[Ids, NDArray[np.float64]]]

    def __sub__(self, other: _Measured) -> _Measured:
        pairs = ((name, at, values, other.by_document[name][1]) for name, (at, values) in self.by_document.items())
        return _Measured(self.credit - other.credit, {name: (at, new - old) for name, at, new, old in pairs})


def score_parts(
    lexicon: Lexicon,
    held_out: TokenizedPair,
    parts: Mapping[str, Ids | None],
    before: Lexicon | None = None,
    encoder: str | None = "minilm",
    hidden: HeldOutTokens | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> PartScores:
    """Score sets of target tokens on held-out text.

    Raises `InputError` as `score_lexicon`.

    Parameters
    ----------
    lexicon, held_out, encoder, seed, progress : as for `score_lexicon`
    parts : name -> target ids, int64 (n,); None for all tokens
    before : the lexicon before the edits, for comparison
    hidden : from `held_out_precision`, for P@1; None leaves it out
    """
    lexicon.check(held_out.source, held_out.target)
    chosen = {name: _documents_with(held_out, ids) for name, ids in parts.items()}
    documents = _union(chosen.values())
    reader = load_encoder(encoder) if encoder is not None else None
    read = _union(spread(found, MOST_SENTENCES if reader else 0) for found in chosen.values())
    versions = [lexicon] if before is None else [lexicon, before]
    measured = [
        _measure(version, held_out, documents, read, reader, part(progress, n / len(versions), (n + 1) / len(versions)))
        for n, version in enumerate(versions)
    ]

    def intervals(values: _Measured, with_hidden: bool = True) -> dict[str, Intervals]:
        tested = hidden if with_hidden else None
        return {name: _intervals(values, held_out, chosen[name], parts[name], tested, seed) for name in parts}

    return PartScores(
        parts=intervals(measured[0]),
        before=intervals(measured[1]) if before is not None else {},
        changes=intervals(measured[0] - measured[1], with_hidden=False) if before is not None else {},
        documents={name: _worst(measured[0], lexicon, held_out, found) for name, found in chosen.items()},
    )


def _union(several: Iterable[Ids]) -> Ids:
    return np.unique(np.concatenate([*several, np.zeros(0, np.int64)])).astype(np.int64)


def _documents_with(held_out: TokenizedPair, ids: Ids | None) -> Ids:
    """Return the documents to score that contain one of the tokens, ascending, evenly spread if there are many.

    Raises `InputError` if the text has no document that is long enough.
    """
    kept = long_enough(held_out)
    if ids is not None:
        target = held_out.target_corpus
        kept &= np.bincount(target.document_of[np.isin(target.ids, ids)], minlength=len(kept)) > 0
    return spread(np.flatnonzero(kept), MOST_DOCUMENTS)


def _measure(
    lexicon: Lexicon, held_out: TokenizedPair, documents: Ids, read: Ids, reader: Encoder | None, progress: Progress
) -> _Measured:
    source, target, mapping = held_out.source_corpus, held_out.target_corpus, lexicon.source_of()
    progress(0.0, f"BLEU-1 of {len(documents)} documents")
    bleu = np.array([bleu1(mapping[target[i]].tolist(), source[i].tolist()) for i in documents])
    by_document = {"bleu1": (documents, bleu)}
    if reader is not None and len(read):
        found = score_texts(reader, mapping, target, source, held_out.source, read, part(progress, 0.1, 1.0))
        by_document |= {name: (read, found[name]) for name in ("sentence_score", "bert_score")}
    return _Measured(credit(target, source, mapping), by_document)


def _intervals(
    measured: _Measured,
    held_out: TokenizedPair,
    documents: Ids,
    ids: Ids | None,
    hidden: HeldOutTokens | None,
    seed: int,
) -> Intervals:
    found: Intervals = {}
    for name, (at, values) in measured.by_document.items():
        here = np.isin(at, documents)
        if here.any():
            found[name] = of_mean(values[here], seed)
    target = held_out.target_corpus
    used = np.ones(len(target.ids)) if ids is None else np.isin(target.ids, ids).astype(np.float64)
    hits, uses = (
        np.bincount(target.document_of, weights=weights, minlength=len(target))[documents][:, None]
        for weights in (measured.credit * used, used)
    )
    if uses.sum():
        found["match"] = of_ratio(hits, uses, seed)[0]
    if hidden is not None:
        ours = np.ones(len(hidden.target_ids), bool) if ids is None else np.isin(hidden.target_ids, ids)
        if ours.any():
            found["p_at_1"] = of_share(int((hidden.target_ranks[ours] == 1).sum()), int(ours.sum()), seed)
    return {name: found[name] for name in MEASURES if name in found}


def _worst(measured: _Measured, lexicon: Lexicon, held_out: TokenizedPair, documents: Ids) -> list[dict[str, Any]]:
    """Describe the documents with the lowest BLEU-1."""
    at, values = measured.by_document["bleu1"]
    scores = values[np.searchsorted(at, documents)]
    mapping, label = lexicon.source_of(), held_out.source.label
    rows = []
    for i in np.argsort(scores, kind="stable")[:WORST].tolist():
        number = int(documents[i])
        mapped = mapping[held_out.target_corpus[number][:SHOWN_TOKENS]].tolist()
        rows.append(
            {
                "document": number,
                "name": held_out.documents[number].name,
                "slice": held_out.documents[number].slice,
                "bleu1": float(scores[i]),
                "original": [label(int(j)) for j in held_out.source_corpus[number][:SHOWN_TOKENS]],
                "mapped": [label(j) if j >= 0 else "" for j in mapped],
            }
        )
    return rows
