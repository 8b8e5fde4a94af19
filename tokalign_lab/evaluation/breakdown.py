"""Scores by group of tokens: for which tokens a lexicon is good, and for which it is not.

A mean over a text is mostly a mean over its frequent Latin words. Here tokens are grouped by script, by frequency in
the text, and by the origin of their row, in both directions.

- **coverage**: share of a vocabulary's tokens that have a partner (same bytes or role, or found by vectors), not a row
  of pieces, the mean row or a random one. It counts all tokens, so it has no interval.
- **coverage_of_text**: the same share of the tokens of a text.
- **unigram_match**: share of a text's tokens whose partner is in the other tokenization of the same document, clipped
  as in BLEU-1. If a document has a partner fewer times than tokens map to it, these tokens share the credit.
- **p_at_1**, **p_at_10**: share of held-out shared tokens that find their partner (`held_out`).

Intervals of coverage_of_text and unigram_match resample documents; a group in only one document has none. Those of P@k
resample tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import Corpus, TokenizedPair
from tokalign_lab.evaluation.interval import Interval, of_ratio, of_share
from tokalign_lab.spelling import script_of
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd

    from tokalign_lab.evaluation.held_out import HeldOutPrecision

WITH_PARTNER = ("identical", "role", "aligned", "edited")
"""Origins of rows that are copied from one partner token."""
BANDS = ("never", "1-9", "10-99", "100-999", "1000 and more")
"""Frequency bands: occurrences of a token in a text."""
COLUMNS = ("measure", "direction", "kind", "group", "n", "value", "low", "high")
_DIRECTIONS = ("target_to_source", "source_to_target")
_KINDS = ("script", "band", "origin")

Groups = Iterator[tuple[str, Interval]]


def breakdown(lexicon: Lexicon, held_out: TokenizedPair, seed: int = 0) -> pd.DataFrame:
    """Compute coverage and unigram match by group.

    Raises `InputError` if the tokenizers are not the lexicon's.

    Parameters
    ----------
    lexicon
        The lexicon.
    held_out
        A text in both tokenizations; frequency bands are of this text.
    seed
        Seed of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`: kind is "script", "band" or "origin", n counts tokens, low and high are 95 % bounds. Bands are in
        order, other groups by size. Groups without tokens are left out.
    """
    lexicon.check(held_out.source, held_out.target)
    source, target = held_out.source_corpus, held_out.target_corpus
    sides = (
        (held_out.target, target, source, lexicon.source_of(), lexicon.table["origin"]),
        (held_out.source, source, target, lexicon.target_of(), lexicon.reverse["origin"]),
    )
    rows: list[tuple[Any, ...]] = []
    for direction, (vocabulary, written, wanted, mapping, origins) in zip(_DIRECTIONS, sides, strict=True):
        origin = origins.to_numpy(dtype=str)
        covered = np.isin(origin, WITH_PARTNER)
        credited = credit(written, wanted, mapping)
        kinds = (scripts_of(vocabulary), bands_of(written.counts(vocabulary.size)), origin)
        for kind, group_of in zip(_KINDS, kinds, strict=True):
            found = {"unigram_match": _of_text(group_of, written, credited, seed)}
            if kind != "origin":  # the origin decides whether a row is covered: `LexiconScores.coverage_types`
                found["coverage"] = _of_types(group_of[~vocabulary.is_hole], covered[~vocabulary.is_hole])
                found["coverage_of_text"] = _of_text(group_of, written, covered[written.ids], seed)
            rows += [(name, direction, kind, *one) for name, groups in found.items() for one in groups]
    return _frame(rows)


def held_out_by_group(found: HeldOutPrecision, pair: TokenizedPair) -> pd.DataFrame:
    """Compute P@1 and P@10 by script and frequency band; `pair` is that of `held_out_precision`."""
    hidden = found.hidden
    sides = (
        (pair.target, pair.target_corpus, hidden.target_ids, hidden.target_ranks),
        (pair.source, pair.source_corpus, hidden.source_ids, hidden.source_ranks),
    )
    rows: list[tuple[Any, ...]] = []
    for direction, (vocabulary, corpus, ids, ranks) in zip(_DIRECTIONS, sides, strict=True):
        kinds = (scripts_of(vocabulary)[ids], bands_of(corpus.counts(vocabulary.size)[ids]))
        for measure, within in (("p_at_1", 1), ("p_at_10", 10)):
            hit = (ranks > 0) & (ranks <= within)
            for kind, group_of in zip(_KINDS, kinds, strict=False):
                for name in np.unique(group_of).tolist():
                    here = group_of == name
                    rows.append((measure, direction, kind, name, of_share(int(hit[here].sum()), int(here.sum()))))
    return _frame(rows)


def scripts_of(vocabulary: Vocabulary) -> NDArray[np.str_]:
    """Return the script of each token, (size,), by `spelling.script_of`; "special" for control tokens, "" for holes."""
    special = np.where(vocabulary.is_hole, "", "special").tolist()
    tokens = zip(vocabulary.token_bytes, special, strict=True)
    return np.array([other if token is None else script_of(token) for token, other in tokens])


def bands_of(counts: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the frequency band (`BANDS`) of each count, same shape."""
    return np.array(BANDS)[np.searchsorted([1, 10, 100, 1000], counts, side="right")]


def credit(written: Corpus, wanted: Corpus, mapping: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the clipped match of each token of a text, float64 (tokens,), 0 to 1.

    1 if its partner is in the same document of the other text, and often enough for all tokens that map to it.
    """
    partner = mapping[written.ids].astype(np.int64)
    size = max(int(mapping.max(initial=0)), int(wanted.ids.max(initial=0))) + 1
    mapped, place, times = np.unique(
        np.where(partner >= 0, written.document_of * size + partner, -1), return_inverse=True, return_counts=True
    )
    there, held = np.unique(wanted.document_of * size + wanted.ids, return_counts=True)
    if not len(there):
        return np.zeros(len(partner))
    found = np.searchsorted(there, mapped).clip(max=len(there) - 1)
    held_times = np.where(there[found] == mapped, held[found], 0)
    return (np.minimum(times, held_times) / times)[place]


def _of_types(group_of: NDArray[np.str_], hits: NDArray[np.bool_]) -> Groups:
    """Yield the share of hits by group."""
    for name in np.unique(group_of).tolist():
        here = group_of == name
        share = float(hits[here].mean())
        yield name, Interval(share, share, share, int(here.sum()))


def _of_text(group_of: NDArray[np.str_], corpus: Corpus, value: NDArray[Any], seed: int) -> Groups:
    """Yield the mean by group of a value of each token of a text; the bootstrap resamples documents."""
    names, place = np.unique(group_of, return_inverse=True)
    cell = corpus.document_of * len(names) + place[corpus.ids]
    shape = (len(corpus), len(names))
    of = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.bincount(cell, weights=value, minlength=shape[0] * shape[1]).reshape(shape)
    here = np.flatnonzero(of.sum(axis=0) > 0)
    for i, one in zip(here.tolist(), of_ratio(hits[:, here], of[:, here], seed), strict=True):
        yield str(names[i]), one


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Make a sorted table of rows (measure, direction, kind, group, interval)."""
    import pandas as pd

    def order(row: tuple[Any, ...]) -> tuple[Any, ...]:
        measure, direction, kind, group, interval = row
        within = BANDS.index(group) if kind == "band" else -interval.n
        return measure, _DIRECTIONS.index(direction), _KINDS.index(kind), within

    return pd.DataFrame(
        [(*row[:4], row[4].n, row[4].mean, row[4].low, row[4].high) for row in sorted(rows, key=order)],
        columns=list(COLUMNS),
    )
