"""Compare two lexicons of one pair: which tokens changed their partner, and which lexicon scores higher.

A partner is the source token of a row (`breakdown.WITH_PARTNER`); rows of pieces, mean rows and random rows have none.
A token has the same partner in both lexicons, different ones, a partner in the second only (gained) or the first only
(lost), or in neither.

Scores are compared on the same documents: the differences of the documents are resampled (paired bootstrap, Koehn
2004). Two intervals may overlap although one lexicon is better on nearly every document; the interval of the difference
shows this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.breakdown import WITH_PARTNER
from tokalign_lab.evaluation.encoder import load_encoder
from tokalign_lab.evaluation.interval import Interval, of_mean
from tokalign_lab.evaluation.lexicon_scores import document_scores
from tokalign_lab.files import plain
from tokalign_lab.progress import Progress, part, silent

if TYPE_CHECKING:
    import pandas as pd

CHANGES = {
    "same": "the same partner in both",
    "changed": "another partner",
    "gained": "a partner in B only",
    "lost": "a partner in A only",
    "neither": "a partner in neither",
}
FEWEST_DOCUMENTS = 6
"""With fewer, equal signs of all differences are no rarity (1 in 16 for 5); the interval of one has no width."""
MEASURES = ("bleu1", "sentence_score", "bert_score")


@dataclass(frozen=True)
class LexiconComparison:
    """Differences between lexicons A and B.

    Attributes
    ----------
    table : one row per target token, most frequent first: `target_id`, `token` (the raw string), `change` (see
        `CHANGES`), `partner_a`, `partner_b` (source ids, -1: none), `score_a`, `score_b`, `origin_a`, `origin_b`,
        `frequency` (occurrences in the text of A, or of B if A has no counts). Holes are left out.
    counts : tokens by change, in the order of `CHANGES`
    text_shares : the same as shares of the text; None if neither lexicon has counts
    """

    table: pd.DataFrame
    counts: dict[str, int]
    text_shares: dict[str, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the table."""
        return {"counts": self.counts, "text_shares": self.text_shares}


@dataclass(frozen=True)
class PairedScore:
    """Scores of A and B on the same documents, and the mean of B minus A."""

    a: Interval
    b: Interval
    difference: Interval

    @property
    def verdict(self) -> str:
        """Return the significantly higher one as a phrase, "no significant difference" or "too few documents"."""
        if self.difference.n < FEWEST_DOCUMENTS:
            return f"too few documents for a verdict (fewer than {FEWEST_DOCUMENTS})"
        if self.difference.low > 0:
            return "B is higher"
        return "A is higher" if self.difference.high < 0 else "no significant difference"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = plain({**asdict(self), "verdict": self.verdict})
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PairedScore:
        """Make a score from the result of `to_dict`."""
        return cls(*(Interval.from_dict(values[name]) for name in ("a", "b", "difference")))


def compare_lexicons(a: Lexicon, b: Lexicon) -> LexiconComparison:
    """Compare two lexicons token by token. Raises `InputError` if they were made for different tokenizers."""
    import pandas as pd

    check_same_pair(a, b)
    origins = [one.table["origin"].to_numpy(dtype=str) for one in (a, b)]
    partners = [np.where(np.isin(o, WITH_PARTNER), one.source_of(), -1) for o, one in zip(origins, (a, b), strict=True)]
    without = [ids < 0 for ids in partners]
    cases = [without[0] & without[1], partners[0] == partners[1], *without]
    counts = a.table["target_count"].to_numpy(np.int64)
    if not counts.any():
        counts = b.table["target_count"].to_numpy(np.int64)
    table = pd.DataFrame(
        {
            "target_id": a.table["target_id"],
            "token": a.table["target_token"],
            "change": np.select(cases, ["neither", "same", "gained", "lost"], "changed"),
            "partner_a": partners[0],
            "partner_b": partners[1],
            "score_a": a.table["score"],
            "score_b": b.table["score"],
            "origin_a": origins[0],
            "origin_b": origins[1],
            "frequency": counts,
        }
    )
    table = table[(origins[0] != "hole") | (origins[1] != "hole")]
    table = table.sort_values("frequency", ascending=False, kind="stable").reset_index(drop=True)
    times = table["change"].value_counts()
    used = table.groupby("change")["frequency"].sum()
    total = int(used.sum())
    shares = {name: float(used.get(name, 0) / total) for name in CHANGES} if total else None
    return LexiconComparison(table, {name: int(times.get(name, 0)) for name in CHANGES}, shares)


def paired_scores(
    a: Lexicon,
    b: Lexicon,
    held_out: TokenizedPair,
    encoder: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, dict[str, PairedScore]]:
    """Score two lexicons on the same held-out documents.

    Returns the scores by measure (`MEASURES`), then by direction. Raises `InputError` if lexicons and text are of
    different pairs, or no document has 10 tokens in both tokenizations.

    Parameters
    ----------
    a, b : lexicons of one pair
    held_out, encoder, seed, progress : as for `score_lexicon`; without an encoder sentence score and BERTScore are left
        out
    """
    check_same_pair(a, b)
    a.check(held_out.source, held_out.target)
    reader = load_encoder(encoder) if encoder is not None else None
    one, other = (
        document_scores(lexicon, held_out, reader, progress=part(progress, 0.5 * half, 0.5 + 0.5 * half))
        for half, lexicon in enumerate((a, b))
    )
    found: dict[str, dict[str, PairedScore]] = {}
    for measure in (name for name in MEASURES if name in one):
        for direction, x in one[measure].items():
            y = other[measure][direction]
            pair = PairedScore(of_mean(x, seed), of_mean(y, seed), of_mean(y - x, seed))
            found.setdefault(measure, {})[direction] = pair
    return found


def compare_slices(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare two evaluations in bits per byte, overall ("all") and on the slices that both have.

    `a` and `b` are "evaluation" events of runs, or `BitsPerByte.to_dict()`. Returns rows of "slice", "a", "b" and
    "difference" (b - a).
    """
    both = [name for name in a.get("by_slice", {}) if name in b.get("by_slice", {})]
    values = [("all", a["bits_per_byte"], b["bits_per_byte"])]
    values += [(name, a["by_slice"][name], b["by_slice"][name]) for name in sorted(both)]
    return [{"slice": name, "a": one, "b": two, "difference": two - one} for name, one, two in values]


def check_same_pair(a: Lexicon, b: Lexicon) -> None:
    """Raise InputError if two lexicons have different tokenizers."""
    for side in ("source", "target"):
        one, two = a.provenance[side], b.provenance[side]
        if one["fingerprint"] != two["fingerprint"] or one["size"] != two["size"]:
            raise InputError(
                f"These lexicons are of different pairs: the {side} tokenizer is '{one['name']}' ({one['size']:,} "
                f"tokens) in the one and '{two['name']}' ({two['size']:,} tokens) in the other; choose two of one pair."
            )
