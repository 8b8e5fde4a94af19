"""What a diagnosis is made of: findings (a model's check has them too), and the lexicon as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.evaluation.breakdown import WITH_PARTNER, scripts_of
from tokalign_lab.spelling import WITHOUT_LETTERS
from tokalign_lab.vocabulary import Vocabulary

SEVERITIES = ("not verified", "ok", "warn", "poor", "fail")
RESTING_ON_NOTHING = ("mean", "random", "multivariate", "permuted")
"""Origins of rows that say nothing about their own token."""
NO_SCRIPT = (*WITHOUT_LETTERS, "special", "")
"""What `scripts_of` says of tokens that are in no script."""
FEWEST_OF_SCRIPT = 20
"""Source tokens in a script, below which its tokens have to look elsewhere (频率 -> Hz, TokAlign++ table 7)."""
_EXAMPLES = 5
MOST_IDS = 2000
"""Ids that a finding keeps: as many as a table is paged through and a map lights up."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    name : str
        What was looked at.
    severity : str
        "ok", "warn" (costs something), "poor" (ruins the lexicon; only said of one), "fail" (broken; said of a
        model's folder) or "not verified" (nothing wrong was seen, and it was not tried; said of a model's folder).
    evidence : str
        One sentence with the numbers.
    advice : str
        What to do about it; emptied where it is ok.
    values : dict
        The numbers by name.
    examples : list of str
        Tokens that show it, written for people.
    target_ids : list of int
        Target tokens that show it, the most telling first, at most `MOST_IDS`: its slice of the lexicon.
    """

    name: str
    severity: str
    evidence: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    target_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.severity == "ok":
            object.__setattr__(self, "advice", "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Findings:
    """What was found, the worst first."""

    findings: list[Finding]

    def finding(self, name: str) -> Finding:
        """Return the finding of this name.

        Raises
        ------
        KeyError
            If it was not looked at.
        """
        return {finding.name: finding for finding in self.findings}[name]


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
    def scripts(self) -> NDArray[np.str_]:
        """Script of each target token (`scripts_of`)."""
        return scripts_of(self.target)

    @cached_property
    def source_scripts(self) -> NDArray[np.str_]:
        """Script of each source token."""
        return scripts_of(self.source)

    @cached_property
    def scripts_of_source(self) -> NDArray[np.str_]:
        """Scripts that the source has at least `FEWEST_OF_SCRIPT` tokens of."""
        names, times = np.unique(self.source_scripts, return_counts=True)
        return names[times >= FEWEST_OF_SCRIPT]

    @cached_property
    def needing(self) -> NDArray[np.bool_]:
        """Target ids without a twin, which a text has to say something about."""
        return self.is_token & ~np.isin(self.origin, ("identical", "role", "edited"))

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

    def by_script(self, chosen: NDArray[np.bool_]) -> list[tuple[str, int]]:
        """Count the tokens of a mask by script, the largest first."""
        names, times = np.unique(self.scripts[chosen], return_counts=True)
        order = np.argsort(-times, kind="stable")
        return [(str(names[i]), int(times[i])) for i in order]

    def most_used(self, chosen: NDArray[Any]) -> list[str]:
        """Examples from a mask (or ids): those that the text uses most."""
        return self.tokens(self.ids(chosen))

    def ids(self, chosen: NDArray[Any]) -> list[int]:
        """Return the ids of a mask (or ids) that a finding keeps: those that the text uses most."""
        ids = np.flatnonzero(self._mask(chosen))
        return first_ids(ids[np.lexsort((ids, -self.counts[ids]))])

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


def first_ids(ids: NDArray[np.integer[Any]]) -> list[int]:
    """Return what a finding keeps of ids that are in order."""
    return [int(i) for i in ids[:MOST_IDS]]


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
