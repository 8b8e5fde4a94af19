"""Which tokens of a vocabulary the text of a run trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tokalign_lab.adaptation.data import Ints
from tokalign_lab.documents import Document
from tokalign_lab.vocabulary import Vocabulary, shared_tokens


def new_tokens(student: Vocabulary, source: Vocabulary) -> Ints:
    """Return the student's text tokens whose bytes equal those of no source token, int64 ascending."""
    shared = np.zeros(student.size, dtype=bool)
    shared[shared_tokens(source, student).target_ids] = True
    is_text = np.array([bool(token) for token in student.token_bytes])
    return np.flatnonzero(is_text & ~shared)


def coverage(
    read: Ints, vocabulary: Vocabulary, held_out: Sequence[Document], source: Vocabulary | None
) -> dict[str, Any]:
    """Count the tokens that a run reads.

    Returns `rows` (of the vocabulary), `rows_trained` (rows whose token the run reads), `held_out_trained` (share of
    held-out tokens with such a row, 0 to 1), and if the source is known `new_tokens` and `new_tokens_trained`.

    Parameters
    ----------
    read : int64 (n,): the ids that occur in the blocks that the run reads
    vocabulary : the model's
    held_out : held-out text
    source : the model's former vocabulary, if it is known
    """
    trained = np.zeros(vocabulary.size, dtype=bool)
    trained[read] = True
    ids = np.concatenate([np.zeros(0, np.int64), *vocabulary.encode([document.text for document in held_out])])
    found = {
        "rows": vocabulary.size,
        "rows_trained": int(trained.sum()),
        "held_out_trained": float(trained[ids].mean()) if len(ids) else 1.0,
    }
    if source is None:
        return found
    new = new_tokens(vocabulary, source)
    return {**found, "new_tokens": len(new), "new_tokens_trained": int(trained[new].sum())}


def in_words(found: dict[str, Any]) -> str:
    """Report how many tokens the text lacks: of the new tokens if they are known, else of all."""
    if "new_tokens" in found:
        lacks, of = found["new_tokens"] - found["new_tokens_trained"], f"{found['new_tokens']:,} new tokens"
    else:
        lacks, of = found["rows"] - found["rows_trained"], f"{found['rows']:,} tokens"
    return f"{lacks:,} of {of} do not occur in the text that the run reads"
