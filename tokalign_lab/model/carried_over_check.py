"""What a rearranged model has lost of what its source had, as its own `tokalign.json` says."""

from __future__ import annotations

import json

from tokalign_lab.evaluation.finding import Finding
from tokalign_lab.model.folder_case import FolderCase


def carried_over(case: FolderCase) -> Finding:
    """Whether chat template and special tokens of the source are still there."""
    try:
        said = json.loads((case.folder / "tokalign.json").read_text(encoding="utf-8"))
        lost = [str(sentence) for sentence in said.get("lost", ())]
    except (OSError, ValueError, AttributeError, TypeError):
        return Finding("carried over", "not verified", "The folder does not say what it was made from.")
    if not lost:
        return Finding("carried over", "ok", "Nothing of its source is recorded as lost.")
    advice = "Rearrange again with special_tokens='keep'."
    return Finding("carried over", "warn", " ".join(lost), advice, {"lost": lost})
