"""Is a lexicon good, and if not, why: a verdict with its evidence, before any model is made from it.

Scores say how much is lost; a diagnosis says where. It needs the lexicon and its tokenizers only, looks a little
further with the vectors that it was found with, and at untrained rows with the source model. Each finding is a sentence
with numbers and tokens; the bounds between ok, warn and poor are named constants of the modules that judge
(`mapping_findings`, `row_findings`, `text_findings`), with where they come from.

The verdict is "poor" if any finding is, "usable" if any is a warning, and "good" otherwise. A pair of real tokenizers
that cut text differently is at best usable: it loses something that only tuning brings back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.evaluation.finding import SEVERITIES, Case, Finding, Findings, worst
from tokalign_lab.evaluation.mapping_findings import mapping_findings
from tokalign_lab.evaluation.row_findings import row_findings
from tokalign_lab.evaluation.text_findings import pair_findings, text_findings
from tokalign_lab.progress import Progress
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERDICTS = {"ok": "good", "warn": "usable", "poor": "poor"}


@dataclass(frozen=True)
class Diagnosis(Findings):
    """What was found about a lexicon, the worst first."""

    @property
    def verdict(self) -> str:
        """Return "good", "usable" or "poor"."""
        return VERDICTS[worst(finding.severity for finding in self.findings)]

    @property
    def reasons(self) -> list[str]:
        """Evidence for the verdict: of the findings that decide it; none for "good"."""
        deciding = worst(finding.severity for finding in self.findings)
        return [f.evidence for f in self.findings if f.severity == deciding and deciding != "ok"]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "verdict": self.verdict,
            "reasons": self.reasons,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def diagnose(
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    vectors: tuple[TokenVectors, TokenVectors] | None = None,
    model: PreTrainedModel | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Look a lexicon over.

    Parameters
    ----------
    lexicon
        The lexicon.
    source, target
        The tokenizers that it was made for.
    vectors
        Of source and target tokens, in one space, as saved with the lexicon: whether they fit each other.
    model
        The source model: whether rows rest on zero or untrained ones.
    progress
        Told about each group of findings.

    Raises
    ------
    InputError
        If lexicon, vectors or model belong to other tokenizers.
    """
    lexicon.check(source, target)
    case = Case(lexicon, source, target)
    steps: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("what rows rest on", lambda: row_findings(case, model)),
        ("how partners were chosen", lambda: mapping_findings(case, vectors)),
        ("what the text says", lambda: text_findings(case)),
        ("how both cut text", lambda: pair_findings(case)),
    ]
    findings: list[Finding] = []
    for number, (words, look) in enumerate(steps):
        if progress is not None:
            progress(number / len(steps), words)
        findings += look()
    return Diagnosis(sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity)))
