"""A smoke test of generation: a few greedy tokens, finite logits, ids that exist, and an end at eos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokalign_lab.errors import first_line
from tokalign_lab.evaluation.finding import Finding
from tokalign_lab.evaluation.head import check_causal
from tokalign_lab.model.folder_case import FolderCase

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT = "The capital of France is"
TOKENS = 8
_STOP_AT = 3


def generation(case: FolderCase) -> Finding:
    """Whether the model generates text and stops at eos; raises `InputError` if it is not causal."""
    vocabulary, model = case.vocabulary, case.model
    check_causal(model)
    input_ids = torch.tensor([vocabulary.tokenizer(PROMPT)["input_ids"]])
    if int(input_ids.max()) >= case.rows:
        evidence = f"The prompt has id {int(input_ids.max())}, which has no row."
        return Finding("generation", "fail", evidence, "See the check `ids`.")
    tokenizer = vocabulary.tokenizer  # for a generation_config with stop_strings
    try:
        made = _generate(model, input_ids, tokenizer=tokenizer, output_logits=True)
    except Exception as error:  # transformers refuses settings in many ways
        evidence = f"transformers cannot generate with the folder's settings: {first_line(error)}."
        return Finding("generation", "fail", evidence, "Look at generation_config.")
    written = made.sequences[0, input_ids.shape[1] :].tolist()
    text = vocabulary.tokenizer.decode(written)
    values: dict[str, Any] = {"prompt": PROMPT, "ids": written, "text": text}
    if not all(bool(torch.isfinite(logits).all()) for logits in made.logits):
        return Finding("generation", "fail", "Logits are NaN or infinite.", "Look at the weights.", values)
    strange = [i for i in written if i >= vocabulary.size or vocabulary.is_hole[i]]
    if strange:
        evidence = f"It writes ids that no token has: {strange[:5]}."
        return Finding("generation", "fail", evidence, "Set generation_config.suppress_tokens to them.", values)
    named = np.atleast_1d([] if (eos := model.generation_config.eos_token_id) is None else eos).astype(int).tolist()
    ends = [end for end in named if 0 <= end < case.rows]  # others are a matter of `special ids`
    evidence = f"Greedy after {PROMPT!r}: {text!r}"
    if not ends:
        return Finding("generation", "ok", f"{evidence}; there is no eos to stop at.", values=values)
    for end in ends:
        force = _Force(end, input_ids.shape[1] + _STOP_AT - 1)
        n = _generate(model, input_ids, tokenizer=tokenizer, logits_processor=[force])
        if n.sequences.shape[1] - input_ids.shape[1] > _STOP_AT:
            return Finding("generation", "fail", f"It continues after eos {end}.", "Look at generation_config.", values)
    return Finding("generation", "ok", f"{evidence}; it stops at {ends}.", values=values)


class _Force:
    """Makes one id certain from some length on, so that generation has to stop there."""

    def __init__(self, token_id: int, length: int) -> None:
        self._token_id, self._length = token_id, length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] >= self._length:
            scores = torch.full_like(scores, -1e4)
            scores[:, self._token_id] = 0
        return scores


@torch.inference_mode()
def _generate(model: PreTrainedModel, input_ids: torch.Tensor, **options: Any) -> Any:
    return model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        **options,
    )
