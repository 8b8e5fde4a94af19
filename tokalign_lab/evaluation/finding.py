"""Findings, of a diagnosis and of a model check, and a lexicon as arrays."""

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
WITHOUT_EVIDENCE = ("mean", "random", "multivariate", "permuted")
"""Origins of rows that have no information about their token."""
NO_SCRIPT = (*WITHOUT_LETTERS, "special", "")
"""Results of `scripts_of` for tokens without a script."""
FEWEST_OF_SCRIPT = 20
"""With fewer source tokens in a script, its tokens find partners in others (频率 -> Hz, TokAlign++ table 7)."""
NEW_ROWS = ("lengths of new rows", "wrong predictions", "breaker tokens")
"""Names of the findings about the new rows of a converted model (`evaluation.row_gate`)."""
_EXAMPLES = 5
MOST_IDS = 2000
"""Maximum number of ids that a finding stores, which a table shows and a map highlights."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    name : name of the check
    severity : "ok" or "warn"; "poor" (critical) only for lexicons; "fail" (broken) or "not verified" (not tried) only
        for model folders
    evidence : one sentence with the numbers
    advice : what to do; "" if the severity is "ok"
    values : the numbers by name
    examples : labels of affected tokens
    target_ids : affected target tokens, most important first, at most `MOST_IDS`
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
    """All findings, worst first."""

    findings: list[Finding]

    def __post_init__(self) -> None:
        self.findings.sort(key=lambda finding: -SEVERITIES.index(finding.severity))

    @property
    def verdict(self) -> str:
        """The worst severity."""
        return worst(finding.severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"verdict": self.verdict, "findings": [finding.to_dict() for finding in self.findings]}

    def finding(self, name: str) -> Finding:
        """Return the finding of this name; KeyError if that check was not made."""
        return {finding.name: finding for finding in self.findings}[name]


class Case:
    """A lexicon with its vocabularies, as arrays over target ids.

    Attributes
    ----------
    source_of : int64, best source id, -1 for none
    origin : str, origin of each row
    counts : int64, occurrences of each target token in the aligned text; all zero if no text is known
    is_token : bool, ids that are not holes
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
        """Whether the lexicon has token counts; one imported from upstream's JSON has none."""
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
        """Scripts with at least `FEWEST_OF_SCRIPT` source tokens."""
        names, times = np.unique(self.source_scripts, return_counts=True)
        return names[times >= FEWEST_OF_SCRIPT]

    @cached_property
    def needs_text(self) -> NDArray[np.bool_]:
        """Target tokens that are neither shared nor edited, so that their rows depend on the text."""
        return self.is_token & ~np.isin(self.origin, ("identical", "role", "edited"))

    @cached_property
    def aligned(self) -> NDArray[np.int64]:
        """Target ids whose partner was found by vectors."""
        return np.flatnonzero((self.origin == "aligned") & (self.source_of >= 0))

    @cached_property
    def with_partner(self) -> NDArray[np.bool_]:
        """Mask of the target tokens with a partner token."""
        return np.isin(self.origin, WITH_PARTNER)

    @cached_property
    def without_evidence(self) -> NDArray[np.bool_]:
        """Mask of the target tokens whose row has no information about them."""
        return np.isin(self.origin, WITHOUT_EVIDENCE)

    def share(self, chosen: NDArray[Any]) -> float:
        """Return the share of the vocabulary that a mask (or ids) selects."""
        return float(self._mask(chosen).sum() / max(1, self.is_token.sum()))

    def text_share(self, chosen: NDArray[Any]) -> float:
        """Return the share of the text that a mask (or ids) selects; of the vocabulary if no text is known."""
        if not self.has_text:
            return self.share(chosen)
        return float(self.counts[self._mask(chosen)].sum() / self.counts.sum())

    def amount(self, chosen: NDArray[Any]) -> str:
        """Describe the selection of a mask (or ids): "12 tokens (0.1 % of the vocabulary, 2.0 % of the text)"."""
        n = int(self._mask(chosen).sum())
        text = f", {percent(self.text_share(chosen))} of the text" if self.has_text else ""
        return f"{several(n, 'token')} ({percent(self.share(chosen))} of the vocabulary{text})"

    def by_script(self, chosen: NDArray[np.bool_]) -> tuple[dict[str, int], str]:
        """Count the tokens of a mask by script, largest first; also return ": Latin (12), Han (3)", "" for none."""
        names, times = np.unique(self.scripts[chosen], return_counts=True)
        order = np.argsort(-times, kind="stable")
        counts = {str(names[i]): int(times[i]) for i in order}
        listed = ", ".join(f"{name} ({n:,})" for name, n in list(counts.items())[:_EXAMPLES])
        return counts, f": {listed}" if listed else ""

    def about(
        self,
        chosen: NDArray[Any],
        name: str,
        severity: str,
        evidence: str,
        advice: str,
        values: dict[str, Any],
        examples: list[str] | None = None,
    ) -> Finding:
        """Make a finding about the tokens of a mask (or ids); its examples are the most frequent ones by default."""
        ids = self.ids(chosen)
        examples = [self.target.label(i) for i in ids[:_EXAMPLES]] if examples is None else examples
        return Finding(name, severity, evidence, advice, values, examples, ids)

    def ids(self, chosen: NDArray[Any]) -> list[int]:
        """Return the ids of a mask (or ids) that a finding stores: the most frequent ones."""
        ids = np.flatnonzero(self._mask(chosen))
        return first_ids(ids[np.lexsort((ids, -self.counts[ids]))])

    def pairs(self, target_ids: Iterable[int]) -> list[str]:
        """Return the labels of the first few target tokens and their best source tokens."""
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
    """Return the first `MOST_IDS` of some ids."""
    return [int(i) for i in ids[:MOST_IDS]]


def several(n: int, what: str) -> str:
    """Format a count with its noun: "1 token", "2,000 tokens"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def sentence(problems: Iterable[str]) -> str:
    """Join problems to one sentence."""
    joined = "; ".join(problems)
    return f"{joined[0].upper()}{joined[1:]}."


def percent(share: float) -> str:
    """Write a share: "12.3 %", "0.02 %"."""
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else f"{100 * share:.2g} %"


def worst(severities: Iterable[str]) -> str:
    """Return the worst of some severities; "ok" if there are none."""
    return max(severities, key=SEVERITIES.index, default="ok")


def grade(value: float, warn: float, poor: float = float("inf")) -> str:
    """Return the severity of a value: "poor" from `poor` on, "warn" from `warn` on, else "ok"."""
    return "poor" if value >= poor else "warn" if value >= warn else "ok"
