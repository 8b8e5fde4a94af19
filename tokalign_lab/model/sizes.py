"""How large a model is: its files, its weights, and its weights with another number of tokens.

torch is imported where it is used, because the panels ask for the size of files at their start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tokalign_lab.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

IN_MEMORY = 2.3
"""Memory of rearranging a whole model, as a multiple of the bytes of its files (docs/results/rearrange_memory.md)."""


def bytes_of_files(path: Path) -> int:
    """Return the bytes of a model's weights on the disk: a file, or a folder with safetensors or else PyTorch files."""
    files = [path] if path.is_file() else list(path.glob("*.safetensors")) or list(path.glob("pytorch_model*.bin"))
    return sum(file.stat().st_size for file in files)


def weights_and_bytes(model: PreTrainedModel, rows: int | None = None) -> tuple[int, int]:
    """Count weights, and the bytes that they take in the model's number format.

    Raises `InputError` as `further_tables`.

    Parameters
    ----------
    model : it may be on the meta device
    rows : count the model that `rearrange` makes for so many tokens: every matrix with one row per token gets this
        size, and the head has its own matrix. None counts the model as it is.
    """
    import torch

    from tokalign_lab.model.vocabulary_tensors import further_tables, vocabulary_parameters

    held = list(model.parameters())
    weights, size = sum(one.numel() for one in held), sum(one.numel() * one.element_size() for one in held)
    if rows is None:
        return weights, size
    more = [one for one in further_tables(model).values() if isinstance(one, torch.nn.Parameter)]
    new = [*vocabulary_parameters(model).values(), *more]  # a tied matrix counts twice, because it is untied
    for one in {id(one): one for one in new}.values():
        weights, size = weights - one.numel(), size - one.numel() * one.element_size()
    for one in new:
        numbers = rows * (one.numel() // len(one))
        weights, size = weights + numbers, size + numbers * one.element_size()
    return weights, size


def check_memory(name: str, model: PreTrainedModel, rows: int, device: torch.device) -> None:
    """Check that a model in float32 and one more head of `rows` rows fit into the free memory.

    Raises `InputError` when they do not fit, or the model has no head.

    Parameters
    ----------
    name : of the model, for the sentence
    model : it may be on the meta device
    rows : of the other head
    device : where both are to be
    """
    import torch

    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"The model {name!r} has no output head; use a causal language model.")
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    needed = torch.float32.itemsize * (weights_and_bytes(model)[0] + rows * int(head.weight.shape[1]))
    if needed > free:
        raise InputError(
            f"The model {name!r} and the new head take {needed / 1e9:.1f} GB in float32, but {free / 1e9:.1f} GB are "
            f"free on {device.type}; use a smaller model of the same family."
        )
