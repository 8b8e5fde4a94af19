"""Findings about the sources of rows: partner, pieces or none; another token's row; padding, zero, untrained rows.

A source row is untrained if the tokenizer never produces its token. Weight decay and the softmax move all such rows to
one region. Rows that are known to be unused (padding; bytes that are never in UTF-8) show this region, and any token
that is as close to it is untrained too (after Land and Bartolo 2024, "Fishing for Magikarp", section 3; like them, this
compares output rows if input and output are untied). In Gemma 3 270M the bytes C0, C1 and F5 to FF are within 0.018 of
each other, and half of all tokens are more than 1.2 away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.finding import Case, Finding, grade, several
from tokalign_lab.spelling import NEVER_IN_UTF8
from tokalign_lab.vocabulary import Vocabulary, shared_tokens

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

COVERAGE_WARN = 0.8
"""Share of the vocabulary with a partner that TokAlign++ reports at 100M tokens of text."""
WITHOUT_SOURCE_WARN, WITHOUT_SOURCE_POOR = 0.01, 0.05
"""Share of the text's tokens with mean or random rows. At about 13 %, mean rows cost 0.5 bits per byte more than pieces
and random rows 2.2 (docs/results/demo.md); at 1.5 %, 0.03 and 0.08 (another text, same model)."""
WITHOUT_SOURCE_OF_VOCABULARY_WARN, WITHOUT_SOURCE_OF_VOCABULARY_POOR = 0.05, 0.5
"""Share of the vocabulary, used if no text is known."""
MISMATCHED_WARN, MISMATCHED_POOR = WITHOUT_SOURCE_WARN, WITHOUT_SOURCE_POOR
"""The same bounds: a shared token with another token's row is no better than one with a random row."""
USELESS_POOR = 0.01
"""Share of the text's tokens built from padding, zero or untrained rows; upstream's matrices map 6 and 1 tokens to
padding."""
AS_CLOSE = 3.0
"""The distance of an untrained row from the centre of the unused rows is at most this multiple of their median ..."""
FAR = 0.25
"""... and this share of the median distance of all rows."""


def row_findings(case: Case, model: PreTrainedModel | None) -> list[Finding]:
    """Return all findings of this module; those about zero and untrained rows need the source model.

    Raises `InputError` if the model has fewer rows than the source tokenizer has ids.
    """
    found = [coverage(case), without_source(case), mismatched(case)]
    if model is None:
        return [*found, padding(case, case.source.size)]
    rows = int(model.get_input_embeddings().weight.shape[0])
    if int(np.flatnonzero(~case.source.is_hole).max()) >= rows:
        raise InputError(
            f"The model has {rows:,} rows, but its tokenizer '{case.source.name}' has ids up to "
            f"{case.source.size - 1:,}; give the model that the lexicon's source tokenizer belongs to."
        )
    return [*found, padding(case, rows), *useless(case, model)]


def coverage(case: Case) -> Finding:
    """Check which share of vocabulary and text has a partner, and which is built from pieces."""
    pieces = case.is_token & ~case.with_partner & ~case.without_evidence
    values = {
        "partner": case.share(case.with_partner),
        "partner_of_text": case.text_share(case.with_partner),
        "pieces": case.share(pieces),
        "pieces_of_text": case.text_share(pieces),
    }
    return case.about(
        pieces,
        "coverage",
        "warn" if values["partner"] < COVERAGE_WARN else "ok",
        f"{case.amount(case.with_partner)} have a partner, {case.amount(pieces)} are built from pieces.",
        "Align with more text, so that more tokens get vectors and partners.",
        values,
    )


def without_source(case: Case) -> Finding:
    """Check for rows without information about their token: the mean, a random row, or a random source row."""
    bounds = (WITHOUT_SOURCE_WARN, WITHOUT_SOURCE_POOR)
    if not case.has_text:
        bounds = (WITHOUT_SOURCE_OF_VOCABULARY_WARN, WITHOUT_SOURCE_OF_VOCABULARY_POOR)
    share = case.text_share(case.without_evidence)
    return case.about(
        case.without_evidence,
        "rows without a source",
        grade(share, *bounds),
        f"{case.amount(case.without_evidence)} have the mean row or a random one.",
        "Use a recipe that falls back to pieces (anchored, pieces).",
        {"share": case.share(case.without_evidence), "share_of_text": share},
    )


def mismatched(case: Case) -> Finding:
    """Check for shared tokens, by bytes, whose row is from another token.

    Edits by the user are not reported. Any source token with the same bytes is accepted.
    """
    shared = shared_tokens(case.source, case.target, by="bytes")
    chosen = case.source_of[shared.target_ids]
    there = (chosen >= 0) & (chosen < case.source.size) & (case.origin[shared.target_ids] != "edited")
    spelled, wanted = case.source.token_bytes, case.target.token_bytes
    wrong = [
        target
        for target, source in zip(shared.target_ids[there].tolist(), chosen[there].tolist(), strict=True)
        if spelled[source] != wanted[target]
    ]
    hit = np.array(wrong, np.int64)
    share = case.text_share(hit)
    return case.about(
        hit,
        "shared tokens",
        grade(share, MISMATCHED_WARN, MISMATCHED_POOR),
        f"Of {several(len(shared.target_ids), 'token')} that the source also has, {case.amount(hit)} have the "
        "row of another token.",
        "Use a recipe that copies shared tokens by bytes (anchored, pieces).",
        {"shared": len(shared.target_ids), "astray": len(hit), "share_of_text": share},
        examples=case.pairs(case.ids(hit)),
    )


def padding(case: Case, rows: int) -> Finding:
    """Check for rows built from source ids without a token: beyond the tokenizer, or holes."""
    real = np.zeros(max(rows, case.source.size) + 1, bool)
    real[: case.source.size] = ~case.source.is_hole
    return _made_of(case, "padding rows", ~real, "ids that no source token has")


def useless(case: Case, model: PreTrainedModel) -> list[Finding]:
    """Check for rows built from zero or untrained rows."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    lengths = embedding.detach().float().norm(dim=1).cpu().numpy()
    zero = ~np.isfinite(lengths) | (lengths == 0)
    found = [_made_of(case, "zero rows", zero, "source rows that are zero or not finite")]
    untrained = untrained_rows(case.source, embedding if head is None else head.weight)
    if untrained is None:
        evidence = "The source model has no rows that are known to be unused, so untrained rows cannot be recognised."
        return [*found, Finding("untrained rows", "ok", evidence)]
    ids = np.flatnonzero(untrained[: case.source.size])
    names = " ".join(case.source.label(int(i)) for i in ids[:5])
    what = f"source rows that were hardly trained ({len(ids):,}: {names} ...)"
    return [*found, _made_of(case, "untrained rows", untrained, what)]


def untrained_rows(source: Vocabulary, matrix: torch.Tensor) -> NDArray[np.bool_] | None:
    """Find the rows that are close to the unused ones.

    Returns bool (rows,); None if fewer than two rows are known to be unused.

    Parameters
    ----------
    source : the tokenizer of the model
    matrix : (rows, d), the output rows, or the tied ones
    """
    rows = len(matrix)
    unused = [*range(source.size, rows), *np.flatnonzero(source.is_hole).tolist()]
    unused += [i for byte in NEVER_IN_UTF8 if (i := source.id_of_bytes(byte)) is not None]
    unused = [i for i in unused if i < rows]
    if len(unused) < 2:
        return None
    values = matrix.detach().float()
    distance = (values - values[unused].median(dim=0).values).norm(dim=1).cpu().numpy()
    bound = min(AS_CLOSE * float(np.median(distance[unused])), FAR * float(np.median(distance)))
    return np.asarray(distance <= bound)


def _made_of(case: Case, name: str, useless: NDArray[np.bool_], what: str) -> Finding:
    """Check for targets with at least half of their weight on useless source rows; ids beyond the mask are useless."""
    table = case.lexicon.table
    counts = np.array([len(ids) for ids in table["sources"]])
    empty = np.zeros(0)
    ids = np.concatenate([empty, *table["sources"]]).astype(np.int64)
    weights = np.abs(np.concatenate([empty, *table["weights"]]))
    bad = ~((ids >= 0) & (ids < len(useless))) | useless[ids.clip(0, len(useless) - 1)]
    target = np.repeat(np.arange(len(table)), counts)
    lost = np.bincount(target, weights=weights * bad, minlength=len(table))
    held = np.bincount(target, weights=weights, minlength=len(table)) + np.abs(table["mean_weight"].to_numpy())
    hit = (held > 0) & (lost >= 0.5 * held)
    n = int(hit.sum())
    values: dict[str, Any] = {"tokens": n, "share": case.share(hit), "share_of_text": case.text_share(hit)}
    return case.about(
        hit,
        name,
        "ok" if not n else "poor" if case.text_share(hit) >= USELESS_POOR else "warn",
        f"{case.amount(hit)} are built from {what}." if n else f"No row is built from {what}.",
        "These rows are useless: choose other sources for them, or pieces.",
        values,
        examples=case.pairs(np.flatnonzero(hit & (case.source_of >= 0) & (case.source_of < case.source.size))),
    )
