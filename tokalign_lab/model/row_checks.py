"""Checks of values: weights that are NaN or infinite, rows of zeros, rows far longer or shorter than the others.

Rows of padding and holes are left out, and so is the row of pad, which is zero in many models.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tokalign_lab.catalog.texts import udhr_documents
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.finding import Finding, sentence, several, worst
from tokalign_lab.evaluation.row_gate import FAR, row_gate
from tokalign_lab.model.folder_case import FolderCase

FAR_SHARE_FAIL = 0.01
"""A larger share of outliers is a fault (a wrong scale, missing rows)."""
CONTEXTS = 500
"""Tokens that are predicted to find breaker tokens: some seconds for a small model."""
_EXAMPLES = 5
_AT_A_TIME = 1 << 14  # rows, so that no float32 copy of a matrix is made


def finite_weights(case: FolderCase) -> Finding:
    """Whether all weights are numbers."""
    broken = [name for name, weight in case.model.named_parameters() if not _is_finite(weight)]
    if broken:
        evidence = f"{several(len(broken), 'tensor')} hold NaN or infinite values: {', '.join(broken[:3])}."
        return Finding(
            "finite weights", "fail", evidence, "Make the model again from a sound source.", {"names": broken}
        )
    return Finding("finite weights", "ok", "Every weight is finite.")


def _is_finite(weight: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(part).all()) for part in torch.split(weight.detach(), _AT_A_TIME))


def zero_rows(case: FolderCase) -> Finding:
    """Tokens whose row is all zeros: a zero input row carries no information, a zero output row gives no gradient."""
    vocabulary = case.vocabulary
    found = {part: real & (lengths == 0) for part, lengths, real in _matrices(case)}
    severities, examples = ["ok"], []
    for zero in found.values():
        severities += ["fail" if not vocabulary.is_control[i] else "warn" for i in np.flatnonzero(zero)]
        examples += [vocabulary.label(int(i)) for i in np.flatnonzero(zero)[:_EXAMPLES]]
    values = {part: int(zero.sum()) for part, zero in found.items()}
    severity = worst(severities)
    if severity == "ok":
        return Finding("zero rows", "ok", "No token has a row of zeros.", values=values)
    evidence = f"Rows of zeros: {', '.join(f'{part} {n:,}' for part, n in values.items())}."
    return Finding(
        "zero rows", severity, evidence, "Rearrange again; a row should at least be the mean row.", values, examples
    )


def row_lengths(case: FolderCase) -> Finding:
    """Rows that are far longer or shorter than the median row."""
    values, examples, severities, sentences = {}, [], ["ok"], []
    for part, lengths, real in _matrices(case):
        real &= lengths > 0
        if not real.any():
            continue  # `zero rows` reports it
        ratio = lengths / np.median(lengths[real])
        far = real & ((ratio > FAR) | (ratio < 1 / FAR))
        values[part] = {
            "far": int(far.sum()),
            "shortest": float(ratio[real].min()),
            "longest": float(ratio[real].max()),
        }
        severities.append("fail" if far.sum() > FAR_SHARE_FAIL * real.sum() else "warn" if far.any() else "ok")
        sentences.append(
            f"{part} rows are {values[part]['shortest']:.2f} to {values[part]['longest']:.2f} times the median long, "
            f"{several(int(far.sum()), 'row')} off by more than {FAR:g}"
        )
        examples += [case.vocabulary.label(int(i)) for i in np.flatnonzero(far)[:_EXAMPLES]]
    if not values:
        return Finding("row lengths", "not verified", "All rows are zero.")
    severity = worst(severities)
    advice = "" if severity == "ok" else "Look at what these rows were made from (`diagnose`)."
    return Finding("row lengths", severity, sentence(sentences), advice, values, examples)


def breaker_tokens(case: FolderCase) -> Finding:
    """Rows whose logit is high in every context, on a short text in 27 languages (`evaluation.row_gate`)."""
    text = [Document(one["text"][:300], one["name"], one["group"], one["slice"]) for one in udhr_documents()]
    try:
        return row_gate(case.model, case.vocabulary, text, contexts=CONTEXTS)[-1]
    except InputError as error:  # no bos or eos, or a head that does more to its logits
        return Finding("breaker tokens", "not verified", f"Not measured: {error}")


def _matrices(case: FolderCase) -> list[tuple[str, NDArray[np.float32], NDArray[np.bool_]]]:
    """Return for each matrix (one if they are tied): part, length of its rows, and which rows belong to a token."""
    vocabulary = case.vocabulary
    real = np.zeros(case.rows, bool)
    known = ~vocabulary.is_hole[: case.rows]
    real[: len(known)] = known
    pad = vocabulary.roles.get("pad")
    if pad is not None and pad < case.rows and pad != vocabulary.roles.get("eos"):
        real[pad] = False
    parts = {id(case.matrices[part]): part for part in ("output", "input")}  # tied: "input"
    found = []
    for part in sorted(parts.values()):
        if part == "output" and case.missing & case.head_names:
            continue  # random after this load, which `tied head` reports
        matrix = case.matrices[part].detach()
        lengths = torch.cat([rows.float().norm(dim=1) for rows in torch.split(matrix, _AT_A_TIME)]).numpy()
        found.append((part, lengths, real.copy()))
    return found
