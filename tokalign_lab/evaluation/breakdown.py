"""Scores taken apart: for which tokens a lexicon is good, and for which it is not.

A mean over a text is mostly a mean over its frequent Latin words. Here the same questions are asked of groups of
tokens, in both directions: by the script that a token is in, by how often the text uses it, and by the origin of its
row.

- **coverage**: share of a vocabulary's tokens that have a partner (spelled alike, of the same role, or found by
  vectors), rather than a row of pieces, of the mean or of nothing. A count of all tokens: no interval.
- **coverage_of_text**: the same share of the tokens of a text.
- **unigram_match**: share of a text's tokens whose partner the other tokenisation of the same document has too, each as
  often as it is there: the clipped precision of BLEU-1, credited to the tokens that earned it. Where several tokens
  have the same partner and the document holds it fewer times, they share the credit.
- **p_at_1**, **p_at_10**: share of hidden shared tokens that found their twin (`held_out`).

Coverage and match are of a text, so their intervals draw whole documents, and a group that one document holds alone
has none; P@k draws tokens.
"""

from __future__ import annotations

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
"""Origins of rows that stand on a partner token."""
BANDS = ("never", "1-9", "10-99", "100-999", "1000 and more")
"""How often a text uses a token."""
COLUMNS = ("measure", "direction", "kind", "group", "n", "value", "low", "high")
_DIRECTIONS = ("target_to_source", "source_to_target")


def breakdown(lexicon: Lexicon, held_out: TokenizedPair, seed: int = 0) -> pd.DataFrame:
    """Coverage and unigram match by group.

    Parameters
    ----------
    lexicon
        The lexicon.
    held_out
        A text in both tokenisations; frequency bands are of this text.
    seed
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        The columns `measure`, `direction`, `kind` ("script", "band", "origin"), `group`, `n` (tokens), `value`, `low`
        and `high` (95 % bounds), bands in order, otherwise the largest group first; groups without tokens are left
        out.

    Raises
    ------
    InputError
        If the tokenizers are not the lexicon's.
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
        kinds = {
            "script": scripts_of(vocabulary),
            "band": bands_of(written.counts(vocabulary.size)),
            "origin": origin,
        }
        for kind, group_of in kinds.items():
            names, place = np.unique(group_of, return_inverse=True)
            if kind != "origin":  # a row's origin decides whether it is covered: `LexiconScores.coverage_types`
                rows += _of_types("coverage", direction, kind, names, place, covered, ~vocabulary.is_hole)
                rows += _of_text("coverage_of_text", direction, kind, names, place, written, covered[written.ids], seed)
            rows += _of_text("unigram_match", direction, kind, names, place, written, credited, seed)
    return _frame(rows)


def twins_by_group(found: HeldOutPrecision, pair: TokenizedPair) -> pd.DataFrame:
    """P@1 and P@10 by script and frequency band; `pair` is what `held_out_precision` was given."""
    hidden = found.hidden
    sides = (
        (pair.target, pair.target_corpus, hidden.target_ids, hidden.target_ranks),
        (pair.source, pair.source_corpus, hidden.source_ids, hidden.source_ranks),
    )
    rows: list[tuple[Any, ...]] = []
    for direction, (vocabulary, corpus, ids, ranks) in zip(_DIRECTIONS, sides, strict=True):
        kinds = {"script": scripts_of(vocabulary)[ids], "band": bands_of(corpus.counts(vocabulary.size)[ids])}
        for measure, within in (("p_at_1", 1), ("p_at_10", 10)):
            hit = (ranks > 0) & (ranks <= within)
            for kind, group_of in kinds.items():
                for name in np.unique(group_of):
                    here = group_of == name
                    interval = of_share(int(hit[here].sum()), int(here.sum()))
                    rows.append(_row(measure, direction, kind, str(name), interval))
    return _frame(rows)


def scripts_of(vocabulary: Vocabulary) -> NDArray[np.str_]:
    """Script of each token, shape (size,): as `spelling.script_of`; "special" for control tokens, "" for holes."""
    special = np.where(vocabulary.is_hole, "", "special").tolist()
    return np.array(
        [
            other if token is None else script_of(token)
            for token, other in zip(vocabulary.token_bytes, special, strict=True)
        ]
    )


def bands_of(counts: NDArray[np.int64]) -> NDArray[np.str_]:
    """Frequency band (`BANDS`) of each count, same shape."""
    return np.array(BANDS)[np.searchsorted([1, 10, 100, 1000], counts, side="right")]


def credit(written: Corpus, wanted: Corpus, mapping: NDArray[np.int32]) -> NDArray[np.float64]:
    """Clipped match of each token of a text, 0 to 1, float64 (tokens,): 1 where its partner is in the other one."""
    partner = mapping[written.ids].astype(np.int64)
    size = max(int(mapping.max(initial=0)), int(wanted.ids.max(initial=0))) + 1
    mapped, place, times = np.unique(
        np.where(partner >= 0, _document_of(written) * size + partner, -1), return_inverse=True, return_counts=True
    )
    there, held = np.unique(_document_of(wanted) * size + wanted.ids, return_counts=True)
    if not len(there):
        return np.zeros(len(partner))
    found = np.searchsorted(there, mapped).clip(max=len(there) - 1)
    held_times = np.where(there[found] == mapped, held[found], 0)
    return (np.minimum(times, held_times) / times)[place]


def _document_of(corpus: Corpus) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(corpus)), np.diff(corpus.offsets))


def _of_types(
    measure: str,
    direction: str,
    kind: str,
    names: NDArray[np.str_],
    place: NDArray[np.int64],
    hits: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> list[tuple[Any, ...]]:
    totals = np.bincount(place[counted], minlength=len(names))
    found = np.bincount(place[counted & hits], minlength=len(names))
    rows = []
    for name, n, hit in zip(names, totals.tolist(), found.tolist(), strict=True):
        if n:
            rows.append(_row(measure, direction, kind, str(name), Interval(hit / n, hit / n, hit / n, n)))
    return rows


def _of_text(
    measure: str,
    direction: str,
    kind: str,
    names: NDArray[np.str_],
    place: NDArray[np.int64],
    corpus: Corpus,
    value: NDArray[Any],
    seed: int,
) -> list[tuple[Any, ...]]:
    """Mean of a value of each token of a text, by group; documents are drawn."""
    cell = _document_of(corpus) * len(names) + place[corpus.ids]
    shape = (len(corpus), len(names))
    of = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.bincount(cell, weights=value, minlength=shape[0] * shape[1]).reshape(shape)
    here = np.flatnonzero(of.sum(axis=0) > 0)
    rows = []
    for i, one in zip(here.tolist(), of_ratio(hits[:, here], of[:, here], seed), strict=True):
        if (of[:, i] > 0).sum() == 1:  # drawn again and again, one document says nothing about others
            one = Interval(one.mean, np.nan, np.nan, one.n)
        rows.append(_row(measure, direction, kind, str(names[i]), one))
    return rows


def _row(measure: str, direction: str, kind: str, group: str, interval: Interval) -> tuple[Any, ...]:
    return measure, direction, kind, group, interval.n, interval.mean, interval.low, interval.high


def _frame(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    kinds = ("script", "band", "origin")
    rows = sorted(
        rows,
        key=lambda row: (
            row[0],
            _DIRECTIONS.index(row[1]),
            kinds.index(row[2]),
            BANDS.index(row[3]) if row[2] == "band" else -row[4],
        ),
    )
    return pd.DataFrame(rows, columns=list(COLUMNS))
