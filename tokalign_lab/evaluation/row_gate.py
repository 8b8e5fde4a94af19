"""Row safety: whether the new rows of a converted model behave like trained rows on held-out text.

A mean over a text hides single bad rows. The new rows are checked for three faults. The reference are the copied rows,
or all rows if the new ones are unknown.

- **Length**: a row of the input embedding or the head is far longer or shorter than the reference's median.
- **Wrong predictions**: a token has the highest logit in many contexts that the text continues differently, and is
  rare in the text.
- **Breaker tokens**: the row's logit is high in every context. For each row, the logit minus the mean of its context is
  averaged over the contexts. The robust z-score of this average is its distance to the reference's median, divided by
  the median absolute deviation (scaled to a standard deviation).

The bounds are our choice; SmolLM2-135M's own rows stay below them on the default text (tests/test_row_gate.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokalign_lab.documents import Document
from tokalign_lab.evaluation.bits_per_byte import head_inputs
from tokalign_lab.evaluation.finding import NEW_ROWS, Finding, first_ids, percent, several
from tokalign_lab.evaluation.head import Head, evaluation_mode, in_fast_dtype
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CONTEXTS = 10_000
FAR = 10.0
"""Maximum ratio of a row's length to the median, or of the median to the length."""
WRONG_SHARE, WRONG_TIMES = 0.01, 10
"""Maximum wrong predictions of a token: a share of the contexts, and a multiple of its occurrences in the text."""
FEW = 3
"""Added to the occurrences, so that a token missing from a short text is not reported by chance."""
OUTLIER = 12.0
"""Minimum robust z-score of a breaker token. SmolLM2-135M's largest is 7.2 (the line end, at 3,898 contexts)."""
_BLOCK = 256  # contexts whose logits are in memory at a time
_EXAMPLES = 5
_CALIBRATE = "calibrate the output (`rearrange --calibrate`)"


def row_gate(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    new_ids: NDArray[np.integer[Any]] | None = None,
    contexts: int = CONTEXTS,
) -> list[Finding]:
    """Check new rows for the three faults of this module.

    Returns the findings named in `finding.NEW_ROWS`; severity "ok" or "warn".
    Raises `InputError` if there is no text, the ids do not fit the model, or the model changes its logits after the
    head.

    Parameters
    ----------
    model : a causal language model that reads `vocabulary`, such as a converted one
    vocabulary : its tokenizer
    documents : held-out text
    new_ids : int (n,), ids of the new rows; all text tokens by default
    contexts : approximate number of tokens of the text that are predicted
    """
    is_text = ~(vocabulary.is_hole | vocabulary.is_control)[: len(model.get_output_embeddings().weight)]
    new = is_text if new_ids is None else np.isin(np.arange(len(is_text)), new_ids) & is_text
    reference = is_text & ~new if new_ids is not None and (is_text & ~new).any() else is_text
    with in_fast_dtype(model):
        states, following, _ = head_inputs(model, vocabulary, documents, contexts)
    mean_logit, wrong = (found[: len(is_text)] for found in _predict(model, states, following))
    uses = np.bincount(following.numpy(), minlength=len(is_text))[: len(is_text)]
    middle = np.median(mean_logit[reference])
    z = (mean_logit - middle) / max(1.4826 * float(np.median(np.abs(mean_logit[reference] - middle))), 1e-12)
    too_often = (wrong > WRONG_SHARE * len(following)) & (wrong > WRONG_TIMES * (uses + FEW))
    ratio = _length_ratio(model, reference)
    largest = float(z[new].max()) if new.any() else 0.0

    def finding(name: str, bad: NDArray[np.bool_], worst: NDArray[Any], what: str, advice: str) -> Finding:
        ids = np.flatnonzero(bad & new)
        most = float(worst[new].max()) if new.any() else 0.0
        ids = ids[np.argsort(-worst[ids], kind="stable")]
        return Finding(
            name,
            "warn" if len(ids) else "ok",
            f"Of {several(int(new.sum()), 'new row')}, {len(ids):,} {what}.",
            advice,
            {"rows": len(ids), "new": int(new.sum()), "contexts": len(following), "most": most},
            [vocabulary.label(int(i)) for i in ids[:_EXAMPLES]],
            first_ids(ids),
        )

    return [
        finding(
            NEW_ROWS[0],
            (ratio > FAR) | (ratio < 1 / FAR),
            np.maximum(ratio, 1 / ratio.clip(1e-12)),
            f"are more than {FAR:g} times as long or as short as the median row",
            "Check the sources of these rows in the lexicon.",
        ),
        finding(
            NEW_ROWS[1],
            too_often,
            wrong,
            f"are predicted in at least {percent(WRONG_SHARE)} of {len(following):,} contexts, more than {WRONG_TIMES} "
            "times as often as the text uses them",
            f"Give these rows other sources, or {_CALIBRATE}.",
        ),
        finding(
            NEW_ROWS[2],
            z > OUTLIER,
            z,
            f"have a high logit whatever the text is (z-score above {OUTLIER:g}; the largest is {largest:.1f})",
            f"Give these rows other sources, or {_CALIBRATE}.",
        ),
    ]


def _predict(
    model: PreTrainedModel, states: torch.Tensor, following: torch.Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each row its mean logit minus the context's mean, and its number of wrong predictions."""
    with evaluation_mode(model), torch.inference_mode():
        head = Head(model)
        weight = head.module.weight
        total = torch.zeros(len(weight), dtype=torch.float64)
        wrong = torch.zeros(len(weight), dtype=torch.int64)
        for part, right in zip(torch.split(states, _BLOCK), torch.split(following, _BLOCK), strict=True):
            logits = head.logits(part.to(weight.device, weight.dtype))
            best = logits.argmax(dim=1).cpu()
            wrong += torch.bincount(best[best != right], minlength=len(weight))
            total += (logits - logits.mean(dim=1, keepdim=True)).sum(dim=0).double().cpu()
    return (total / len(states)).numpy(), wrong.numpy()


def _length_ratio(model: PreTrainedModel, reference: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each row's length over the reference's median, of input embedding or head, whichever is further from 1."""
    ratios = []
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        lengths = module.weight.detach().float().norm(dim=1).double().cpu().numpy()[: len(reference)]
        ratios.append(lengths / np.median(lengths[reference]))
    first, second = ratios
    return np.where(np.abs(np.log(first.clip(1e-12))) > np.abs(np.log(second.clip(1e-12))), first, second)
