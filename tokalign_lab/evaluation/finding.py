"""What a diagnosis is made of: findings (a model's check has them too), and the lexicon as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.evaluation.breakdown import WITH_PARTNER
from tokalign_lab.vocabulary import Vocabulary

SEVERITIES = ("ok", "warn", "poor", "fail")
RESTING_ON_NOTHING = ("mean", "random", "multivariate", "permuted")
"""Origins of rows that say nothing about their own token."""
_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What was looked at.
    severity : str
        "ok", "warn" (costs something), "poor" (ruins the lexicon; only said of one) or "fail" (broken; said of a
        model's folder).
    evidence : str
        One sentence with the numbers.
    advice : str
        What to do about it; empty where it is ok.
    values : dict
        The numbers by name.
    examples : list of str
        Tokens that show it, written for people.
    """

    name: str
    severity: str
    evidence: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class Case:
    """A lexicon with its vocabularies, as arrays over the target's ids.

    Attributes
    ----------
    source_of : np.ndarray
        int64, best source id, -1 for none.
    origin : np.ndarray
        str, origin of each row.
    counts : np.ndarray
        int64, how often the aligned text uses each target token; all zero where no text is known.
    is_token : np.ndarray
        bool, ids that are no hole.
    """

    def __init__(self, lexicon: Lexicon, source: Vocabulary, target: Vocabulary) -> None:
        self.lexicon, self.source, self.target = lexicon, source, target
        table = lexicon.table
        self.source_of = table["source_id"].to_numpy(np.int64)
        self.origin = table["origin"].to_numpy(dtype=str)
        self.counts = table["target_count"].to_numpy(np.int64)
        self.is_token = self.origin != "hole"

    @property
    def has_text(self) -> bool:
        """Whether the lexicon knows how often tokens are used; one from upstream's JSON does not."""
        return bool(self.counts.any())

    @cached_property
    def aligned(self) -> NDArray[np.int64]:
        """Target ids whose partner was found by vectors."""
        return np.flatnonzero((self.origin == "aligned") & (self.source_of >= 0))

    @cached_property
    def with_partner(self) -> NDArray[np.bool_]:
        """Target ids that stand on a partner token."""
        return np.isin(self.origin, WITH_PARTNER)

    @cached_property
    def on_nothing(self) -> NDArray[np.bool_]:
        """Target ids whose row says nothing about them."""
        return np.isin(self.origin, RESTING_ON_NOTHING)

    def share(self, chosen: NDArray[Any]) -> float:
        """Share of the vocabulary that a mask (or ids) chooses."""
        mask = self._mask(chosen)
        return float(mask.sum() / max(1, self.is_token.sum()))

    def text_share(self, chosen: NDArray[Any]) -> float:
        """Share of the text that a mask (or ids) chooses; of the vocabulary where no text is known."""
        if not self.has_text:
            return self.share(chosen)
        return float(self.counts[self._mask(chosen)].sum() / self.counts.sum())

    def amount(self, chosen: NDArray[Any]) -> str:
        """Write how much a mask (or ids) chooses: "12 tokens (0.1 % of the vocabulary, 2.0 % of the text)"."""
        n = int(self._mask(chosen).sum())
        text = f", {percent(self.text_share(chosen))} of the text" if self.has_text else ""
        return f"{several(n, 'token')} ({percent(self.share(chosen))} of the vocabulary{text})"

    def most_used(self, chosen: NDArray[Any]) -> list[str]:
        """Examples from a mask (or ids): those that the text uses most."""
        ids = np.flatnonzero(self._mask(chosen))
        return self.tokens(ids[np.lexsort((ids, -self.counts[ids]))])

    def tokens(self, target_ids: Iterable[int]) -> list[str]:
        """Write the first few of some target tokens."""
        return [self.target.label(int(i)) for i in list(target_ids)[:_EXAMPLES]]

    def pairs(self, target_ids: Iterable[int]) -> list[str]:
        """Write the first few of some target tokens with their best source."""
        return [
            f"{self.target.label(int(i))} ← {self.source.label(int(self.source_of[i]))}"
            for i in list(target_ids)[:_EXAMPLES]
        ]

    def _mask(self, chosen: NDArray[Any]) -> NDArray[np.bool_]:
        if chosen.dtype == bool:
            return chosen & self.is_token
        mask = np.zeros(len(self.origin), bool)
        mask[chosen] = True
        return mask & self.is_token


def several(n: int, what: str) -> str:
    """Write a number of things: "1 token", "2,000 tokens"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def percent(share: float) -> str:
    """Write a share as people read it: "12.3 %", "0.02 %"."""
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else f"{100 * share:.2g} %"


def worst(severities: Iterable[str]) -> str:
    """Return the worst of some severities; "ok" if there are none."""
    return max(severities, key=SEVERITIES.index, default="ok")


def grade(value: float, warn: float, poor: float) -> str:
    """Judge a value that is the worse the larger it is."""
    return "poor" if value >= poor else "warn" if value >= warn else "ok"
