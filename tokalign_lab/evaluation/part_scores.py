"""Scores of some target tokens: what a filter, or a selection, does to a text.

The scores of a lexicon are means over documents (`lexicon_scores`). Of a set of target tokens they are asked here in
two ways, both from target to source, since that is the direction that a model's rows come from:

- at the tokens themselves: **match**, the clipped precision of BLEU-1 at the positions of these tokens (`breakdown`);
  n counts uses of the tokens. **p_at_1**: those of them that were hidden from the recipe and found their twin; n counts
  hidden tokens. It judges the recipe's vectors, so that no edit changes it.
- in the documents that hold at least one of them: **bleu1**, **sentence_score**, **bert_score**, means over these
  documents; n counts documents.

Given the lexicon as it was before some edits, both are scored on the same documents and the change is a mean over the
documents' own changes, with an interval of its own. The documents with the lowest BLEU-1 are given with both token
sequences, so that one can see what was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.evaluation.breakdown import credit
from tokalign_lab.evaluation.encoder import Encoder
from tokalign_lab.evaluation.held_out import HiddenTokens
from tokalign_lab.evaluation.interval import Interval, of_mean, of_ratio, of_share
from tokalign_lab.evaluation.lexicon_scores import MOST_SENTENCES, bleu1, long_enough, read_both, spread
from tokalign_lab.progress import Progress, part

MEASURES = ("bleu1", "match", "sentence_score", "bert_score", "p_at_1")
MOST_DOCUMENTS = 1000
WORST = 8  # documents shown a part
SHOWN_TOKENS = 120  # of a document

Intervals = dict[str, Interval]  # by measure
Parts = Mapping[str, NDArray[np.int64] | None]


@dataclass(frozen=True)
class PartScores:
    """Scores by part.

    Parameters
    ----------
    parts
        By part and measure; a measure that has nothing to be taken on is left out.
    before, changes
        The same of the lexicon before the edits, and the changes; empty where there was none.
    documents
        By part, the documents of the lowest BLEU-1, worst first: `document` (number), `name`, `slice`, `bleu1`, and
        `original` and `mapped`, the first source tokens as labels ("" for a token that was lost).
    """

    parts: dict[str, Intervals]
    before: dict[str, Intervals] = field(default_factory=dict)
    changes: dict[str, Intervals] = field(default_factory=dict)
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass
class _Measured:
    """What one lexicon does to each document; arrays over `documents`, encoder's ones over `read`."""

    documents: NDArray[np.int64]
    read: NDArray[np.int64]
    credit: NDArray[np.float64]
    by_document: dict[str, NDArray[np.float64]]


def score_parts(
    lexicon: Lexicon,
    held_out: TokenizedPair,
    parts: Parts,
    before: Lexicon | None = None,
    encoder: str | None = "minilm",
    hidden: HiddenTokens | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PartScores:
    """Score parts of a lexicon on held-out text.

    Parameters
    ----------
    lexicon
        The lexicon.
    held_out
        The text in both tokenisations.
    parts
        By name, target ids, int64 (n,); None for all tokens.
    before
        The lexicon before the edits, to compare with.
    encoder
        As for `score_lexicon`; None leaves the sentence score and BERTScore out.
    hidden
        From `held_out_precision`, for P@1; None leaves it out.
    seed
        Of the bootstrap.
    progress
        Told about each step.

    Raises
    ------
    InputError
        If the tokenizers are not the lexicon's, or no document has 10 tokens in both tokenisations.
    """
    lexicon.check(held_out.source, held_out.target)
    chosen = {name: _documents_with(held_out, ids) for name, ids in parts.items()}
    documents = np.unique(np.concatenate([*chosen.values(), np.zeros(0, np.int64)])).astype(np.int64)
    reader = Encoder(encoder) if encoder is not None else None
    sentences = [spread(found, MOST_SENTENCES if reader else 0) for found in chosen.values()]
    read = np.unique(np.concatenate([*sentences, np.zeros(0, np.int64)])).astype(np.int64)
    versions = [lexicon] if before is None else [lexicon, before]
    measured = []
    for number, version in enumerate(versions):
        telling = part(progress, number / len(versions), (number + 1) / len(versions))
        measured.append(_measure(version, held_out, documents, read, reader, telling))
    groups = {name: (chosen[name], parts[name]) for name in parts}
    result = [
        {name: _intervals(one, held_out, *group, hidden, seed) for name, group in groups.items()} for one in measured
    ]
    changes = {}
    if before is not None:
        new, old = measured
        changes = {name: _changes(new, old, held_out, *group, seed) for name, group in groups.items()}
    return PartScores(
        parts=result[0],
        before=result[1] if before is not None else {},
        changes=changes,
        documents={name: _worst(measured[0], lexicon, held_out, found) for name, found in chosen.items()},
    )


def _documents_with(held_out: TokenizedPair, ids: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the documents to score that hold one of the tokens, int64 ascending, evenly spread where there are many.

    Raises
    ------
    InputError
        If the text has no document that is long enough.
    """
    kept = long_enough(held_out)
    if ids is not None:
        holds = np.zeros(held_out.target.size, bool)
        holds[ids] = True
        target = held_out.target_corpus
        uses = np.concatenate([[0], np.cumsum(holds[target.ids])])
        kept &= np.diff(uses[target.offsets]) > 0
    return spread(np.flatnonzero(kept), MOST_DOCUMENTS)


def _measure(
    lexicon: Lexicon,
    held_out: TokenizedPair,
    documents: NDArray[np.int64],
    read: NDArray[np.int64],
    reader: Encoder | None,
    progress: Progress | None,
) -> _Measured:
    source, target, mapping = held_out.source_corpus, held_out.target_corpus, lexicon.source_of()
    if progress is not None:
        progress(0.0, f"BLEU-1 of {len(documents)} documents")
    by_document = {"bleu1": np.array([bleu1(mapping[target[i]].tolist(), source[i].tolist()) for i in documents])}
    if reader is not None and len(read):
        found = read_both(reader, mapping, target, source, held_out.source, read, part(progress, 0.1, 1.0))
        by_document |= {name: found[name] for name in ("sentence_score", "bert_score")}
    return _Measured(documents, read, credit(target, source, mapping), by_document)


def _values(measured: _Measured, documents: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Each document-wise measure at these documents (of the encoder's: at those that it read)."""
    values = {}
    for name, all_values in measured.by_document.items():
        at = measured.documents if name == "bleu1" else measured.read
        values[name] = all_values[np.isin(at, documents)]
    return values


def _uses(
    value: NDArray[np.float64], held_out: TokenizedPair, documents: NDArray[np.int64], ids: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum a value of each use of the tokens, and the uses, by document: two arrays (documents, 1)."""
    target = held_out.target_corpus
    wanted = np.ones(held_out.target.size) if ids is None else np.zeros(held_out.target.size)
    if ids is not None:
        wanted[ids] = 1.0
    used = wanted[target.ids]
    sums = []
    for column in (value * used, used):
        running = np.concatenate([[0.0], np.cumsum(column)])
        sums.append(np.diff(running[target.offsets])[documents][:, None])
    return sums[0], sums[1]


def _intervals(
    measured: _Measured,
    held_out: TokenizedPair,
    documents: NDArray[np.int64],
    ids: NDArray[np.int64] | None,
    hidden: HiddenTokens | None,
    seed: int,
) -> Intervals:
    found: Intervals = {}
    for name, values in _values(measured, documents).items():
        if len(values):
            found[name] = of_mean(values, seed)
    hits, uses = _uses(measured.credit, held_out, documents, ids)
    if uses.sum():
        found["match"] = of_ratio(hits, uses, seed)[0]
    if hidden is not None:
        ours = np.ones(len(hidden.target_ids), bool) if ids is None else np.isin(hidden.target_ids, ids)
        if ours.any():
            found["p_at_1"] = of_share(int((hidden.target_ranks[ours] == 1).sum()), int(ours.sum()), seed)
    return {name: found[name] for name in MEASURES if name in found}


def _changes(
    after: _Measured,
    before: _Measured,
    held_out: TokenizedPair,
    documents: NDArray[np.int64],
    ids: NDArray[np.int64] | None,
    seed: int,
) -> Intervals:
    """Change of each measure, document against document."""
    found: Intervals = {}
    old = _values(before, documents)
    for name, values in _values(after, documents).items():
        if len(values):
            found[name] = of_mean(values - old[name], seed)
    gained, uses = _uses(after.credit - before.credit, held_out, documents, ids)
    if uses.sum():
        found["match"] = of_ratio(gained, uses, seed)[0]
    return {name: found[name] for name in MEASURES if name in found}


def _worst(
    measured: _Measured, lexicon: Lexicon, held_out: TokenizedPair, documents: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Describe the documents of the lowest BLEU-1."""
    place = np.searchsorted(measured.documents, documents)
    scores = measured.by_document["bleu1"][place]
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
