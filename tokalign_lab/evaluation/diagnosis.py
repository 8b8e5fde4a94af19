"""Is a lexicon good, and if not, why? A verdict with its evidence.

Scores show how much is lost; a diagnosis shows where. It needs the lexicon and its tokenizers. The token vectors of the
alignment, the source model and the converted model add findings. Each finding is a sentence with numbers and tokens.
The bounds are named constants of `mapping_findings`, `row_findings`, `text_findings` and `row_gate`, with the reason
for their values.

The verdict is "poor" if any finding is critical, "usable" if any is a warning, and "good" otherwise. A pair of
tokenizers that split text differently is usable at best: it loses quality that only tuning recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.finding import NEW_ROWS, Case, Finding, Findings
from tokalign_lab.evaluation.mapping_findings import mapping_findings
from tokalign_lab.evaluation.row_findings import row_findings
from tokalign_lab.evaluation.text_findings import pair_findings, text_findings
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERDICTS = {"ok": "good", "warn": "usable", "poor": "poor"}


@dataclass(frozen=True)
class Diagnosis(Findings):
    """Findings about a lexicon, worst first."""

    @property
    def verdict(self) -> str:
        """Return "good", "usable" or "poor"."""
        return VERDICTS[super().verdict]

    @property
    def reasons(self) -> list[str]:
        """Return the evidence of the findings that decide the verdict; empty for "good"."""
        deciding = super().verdict
        return [f.evidence for f in self.findings if f.severity == deciding != "ok"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return super().to_dict() | {"reasons": self.reasons}


def diagnose(
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    vectors: tuple[TokenVectors, TokenVectors] | None = None,
    model: PreTrainedModel | None = None,
    progress: Progress = silent,
) -> Diagnosis:
    """Diagnose a lexicon.

    Raises `InputError` if lexicon, vectors or model belong to other tokenizers.

    Parameters
    ----------
    lexicon
        The lexicon.
    source, target
        Its tokenizers.
    vectors
        Source and target vectors in one space, as saved with the lexicon; adds a finding about how well they match.
    model
        The source model; adds findings about rows that are built from zero or untrained rows.
    progress
        Called with each group of findings.
    """
    lexicon.check(source, target)
    case = Case(lexicon, source, target)
    steps: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("sources of rows", lambda: row_findings(case, model)),
        ("choice of partners", lambda: mapping_findings(case, vectors)),
        ("text", lambda: text_findings(case)),
        ("tokenizers", lambda: pair_findings(case)),
    ]
    findings: list[Finding] = []
    for number, (words, check) in enumerate(steps):
        progress(number / len(steps), words)
        findings += check()
    return Diagnosis(findings)


def with_new_rows(
    diagnosis: Diagnosis, lexicon: Lexicon, target: Vocabulary, moved: PreTrainedModel, documents: Sequence[Document]
) -> Diagnosis:
    """Return a diagnosis with findings about the new rows of a model made from the lexicon (`row_gate`).

    Earlier findings about new rows are replaced. Raises `InputError` as `row_gate` does.

    Parameters
    ----------
    diagnosis : the diagnosis of the lexicon
    lexicon, target : the lexicon and its target tokenizer
    moved : the model
    documents : held-out text
    """
    from tokalign_lab.evaluation.row_gate import row_gate  # imports torch, which takes a second

    new = np.flatnonzero(~lexicon.table["origin"].isin(("identical", "role", "hole")))
    kept = [finding for finding in diagnosis.findings if finding.name not in NEW_ROWS]
    return Diagnosis(kept + row_gate(moved, target, documents, new))


def check_moved(moved: Vocabulary, target: Vocabulary) -> None:
    """Check that a model was made with the target tokenizer of a lexicon.

    Raises `InputError` if ids of the target are other tokens in it. It may have kept control tokens after them.
    """
    if moved.size < target.size or any(moved.raw_token(i) != target.raw_token(i) for i in range(target.size)):
        raise InputError(
            f"The model '{moved.name}' has another tokenizer ({moved.size:,} tokens) than the lexicon's target "
            f"'{target.name}' ({target.size:,} tokens), so it was not made from it; name the model that was."
        )
