"""Check that a folder that was just written holds the model that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tokalign_lab.errors import InputError
from tokalign_lab.model.hard_texts import TEXTS
from tokalign_lab.model.load import load_model, quiet
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOLERANCE = {
    torch.float64: 1e-3,
    torch.float32: 1e-3,
}  # share of the largest logit; attention may be computed in another way
_TOLERANCE_OF_HALVES = 5e-2
_TOKENS = 32


def check_loads_alike(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path) -> None:
    """Load a folder and compare the logits of a short text with those of the model in memory.

    Raises `InputError` when the folder cannot be loaded, lacks weights, or its logits differ.

    Parameters
    ----------
    model
        What was saved, on any device; a second copy is loaded next to it.
    vocabulary
        Its tokenizer.
    folder
        Where it was saved.
    """
    ids = torch.from_numpy(vocabulary.encode([TEXTS[0]])[0][:_TOKENS]).long()[None]
    with quiet():
        loaded = load_model(str(folder), device=model.device, dtype="auto")
        wanted, found = _logits(model, ids), _logits(loaded, ids)
    difference, scale = float((wanted - found).abs().max()), float(wanted.abs().max())
    if not difference <= _TOLERANCE.get(model.dtype, _TOLERANCE_OF_HALVES) * scale:
        raise InputError(
            f"The saved model is not the one in memory: its logits differ by {difference:.3g} of {scale:.3g}, so "
            f"transformers does not read a {model.config.model_type!r} model as it writes it; nothing was saved."
        )


@torch.inference_mode()
def _logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    training = model.training
    model.eval()
    try:
        return torch.nan_to_num(model(ids.to(model.device), use_cache=False).logits.float())
    finally:
        model.train(training)
