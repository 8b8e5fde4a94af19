"""Findings about what rows rest on: partners, pieces, nothing; another token's row; padding, zero, untrained rows.

A source row is untrained where the tokenizer never makes the token. Such rows lie close together, where weight decay
and the softmax pushed them, so that rows known to be unused (padding; bytes that no UTF-8 text holds) show where, and
any token that lies as close is one of them (after Land and Bartolo 2024, "Fishing for Magikarp", section 3; they
compare output rows where input and output are apart, and so does this). In Gemma 3 270M the bytes C0, C1 and F5 to FF
lie within 0.018 of each other, and half of all tokens further than 1.2 away.
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
NOTHING_WARN, NOTHING_POOR = 0.01, 0.05
"""Share of the text on rows that say nothing. Where that is some 13 %, mean rows cost 0.5 bits per byte more than
pieces and random rows 2.2 (docs/results/demo.md); where it is 1.5 %, 0.03 and 0.08 (another text, same model)."""
NOTHING_OF_VOCABULARY_WARN, NOTHING_OF_VOCABULARY_POOR = 0.05, 0.5
"""The same where no text is known."""
ASTRAY_WARN, ASTRAY_POOR = NOTHING_WARN, NOTHING_POOR
"""A known token with the row of another says no more than a random row: the same bounds."""
USELESS_POOR = 0.01
"""Share of the text on padding, zero or untrained rows; upstream's shipped matrices hit padding in 6 and 1 tokens."""
AS_CLOSE = 3.0
"""An untrained row is at most so many times as far out as the median unused row ..."""
FAR = 0.25
"""... and nearer than this share of the median distance of all rows."""


def row_findings(case: Case, model: PreTrainedModel | None) -> list[Finding]:
    """All findings of this module; those about trained rows need the source model."""
    found = [coverage(case), nothing(case), astray(case)]
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
    """How much of vocabulary and text stands on a partner, on pieces, on nothing."""
    rest = case.is_token & ~case.with_partner & ~case.on_nothing
    values = {
        "partner": case.share(case.with_partner),
        "partner_of_text": case.text_share(case.with_partner),
        "pieces": case.share(rest),
        "pieces_of_text": case.text_share(rest),
    }
    severity = "warn" if values["partner"] < COVERAGE_WARN else "ok"
    return Finding(
        "coverage",
        severity,
        f"{case.amount(case.with_partner)} have a partner, {case.amount(rest)} rest on pieces.",
        "More text gives more tokens vectors, and so partners.",
        values,
        case.most_used(rest),
        case.ids(rest),
    )


def nothing(case: Case) -> Finding:
    """Rows that say nothing about their token: mean, random, or a source row at random."""
    bounds = (NOTHING_WARN, NOTHING_POOR)
    if not case.has_text:
        bounds = (NOTHING_OF_VOCABULARY_WARN, NOTHING_OF_VOCABULARY_POOR)
    share = case.text_share(case.on_nothing)
    severity = grade(share, *bounds)
    return Finding(
        "rows that rest on nothing",
        severity,
        f"{case.amount(case.on_nothing)} have the mean row or a random one.",
        "Use a recipe that falls back on pieces (anchored, pieces).",
        {"share": case.share(case.on_nothing), "share_of_text": share},
        case.most_used(case.on_nothing),
        case.ids(case.on_nothing),
    )


def astray(case: Case) -> Finding:
    """Tokens that the source has too, byte for byte, but whose row is chosen from another token.

    A person's own choice is no mistake. Bytes are compared, so that any of several source tokens that spell the same
    will do.
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
    severity = grade(share, ASTRAY_WARN, ASTRAY_POOR)
    return Finding(
        "shared tokens",
        severity,
        f"Of {several(len(shared.target_ids), 'token')} that the source spells the same, {case.amount(hit)} have the "
        "row of another token.",
        "Copy what both vocabularies have, by bytes (anchored and pieces do).",
        {"shared": len(shared.target_ids), "astray": len(hit), "share_of_text": share},
        case.pairs(case.ids(hit)),
        case.ids(hit),
    )


def padding(case: Case, rows: int) -> Finding:
    """Rows that rest on ids that no token has: beyond the tokenizer, or holes in it."""
    real = np.zeros(max(rows, case.source.size) + 1, bool)
    real[: case.source.size] = ~case.source.is_hole
    hit = _resting_on(case, ~real)
    return _useless_finding(case, "padding rows", hit, "ids that no source token has")


def useless(case: Case, model: PreTrainedModel) -> list[Finding]:
    """Rows that rest on zero rows, and on untrained ones."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    matrix = embedding if head is None else head.weight
    zero = ~np.isfinite(lengths := _lengths(embedding)) | (lengths == 0)
    found = [_useless_finding(case, "zero rows", _resting_on(case, zero), "source rows that are zero or not finite")]
    untrained = untrained_rows(case.source, matrix)
    if untrained is None:
        evidence = "The source model has no rows that are known to be unused, so untrained ones cannot be told."
        return [*found, Finding("untrained rows", "ok", evidence)]
    names = [case.source.label(int(i)) for i in np.flatnonzero(untrained[: case.source.size])[:5]]
    what = f"source rows that were hardly trained ({int(untrained[: case.source.size].sum()):,}: {' '.join(names)} ...)"
    return [*found, _useless_finding(case, "untrained rows", _resting_on(case, untrained), what)]


def untrained_rows(source: Vocabulary, matrix: torch.Tensor) -> NDArray[np.bool_] | None:
    """Find the rows that lie where unused ones do.

    Parameters
    ----------
    source
        The tokenizer of the model.
    matrix
        (rows, d), its output rows, or its tied ones.

    Returns
    -------
    np.ndarray or None
        bool (rows,); None where fewer than two rows are known to be unused.
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


def _lengths(matrix: torch.Tensor) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = matrix.detach().float().norm(dim=1).cpu().numpy()
    return lengths


def _resting_on(case: Case, useless: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Targets at least half of whose weight lies on useless rows; ids beyond these count as useless."""
    table = case.lexicon.table
    counts = np.array([len(ids) for ids in table["sources"]])
    empty = np.zeros(0)
    ids = np.concatenate([empty, *table["sources"]]).astype(np.int64)
    weights = np.abs(np.concatenate([empty, *table["weights"]]))
    bad = ~((ids >= 0) & (ids < len(useless))) | useless[ids.clip(0, len(useless) - 1)]
    target = np.repeat(np.arange(len(table)), counts)
    lost = np.bincount(target, weights=weights * bad, minlength=len(table))
    held = np.bincount(target, weights=weights, minlength=len(table)) + np.abs(table["mean_weight"].to_numpy())
    return (held > 0) & (lost >= 0.5 * held)


def _useless_finding(case: Case, name: str, hit: NDArray[np.bool_], what: str) -> Finding:
    n = int(hit.sum())
    severity = "ok" if not n else "poor" if case.text_share(hit) >= USELESS_POOR else "warn"
    values: dict[str, Any] = {"tokens": n, "share": case.share(hit), "share_of_text": case.text_share(hit)}
    evidence = f"{case.amount(hit)} rest on {what}." if n else f"No row rests on {what}."
    return Finding(
        name,
        severity,
        evidence,
        "These rows carry nothing: choose other sources for them, or pieces.",
        values,
        case.pairs(np.flatnonzero(hit & (case.source_of >= 0) & (case.source_of < case.source.size))) if n else [],
        case.ids(hit),
    )
