"""A name becomes a causal language model: a catalogue name, a folder, a GGUF file or a hub id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tokalign_lab.errors import InputError, first_line
from tokalign_lab.model.device import pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(
    name: str, device: torch.device | str | None = None, dtype: torch.dtype | str = torch.float32
) -> PreTrainedModel:
    """Load a model in evaluation mode.

    Parameters
    ----------
    name
        Catalogue name, model folder, GGUF file or hub id. Code that a repository brings along is never run.
    device
        Where to put it; the best device here when not given.
    dtype
        A torch dtype, or "auto" for the one the weights were saved in.

    Raises
    ------
    InputError
        When there is no such model, it is not a causal language model, or some of its weights are missing.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tokalign_lab.catalog import model_folder

    logging.disable_progress_bar()  # the engine prints nothing by itself
    place = device if isinstance(device, torch.device) else pick_device(device)
    folder = str(model_folder(str(name)))
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"The model {name!r} cannot be loaded: {first_line(error)}.") from error
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would fill them with random numbers, and every figure measured would be about those
        raise InputError(
            f"The model {name!r} lacks {len(missing)} of its weights (the first is {missing[0]}); "
            "use a complete causal language model."
        )
    return model.to(place).eval()
