"""Find the tensors of a model that have one row per token.

transformers names the input embedding and the head (with its bias). A model may have more: Gemma 3n and 4 embed each
token again for every layer, DeepSeek V4 has a table of experts for each token. No list of names is complete. So the
same model is built again on the meta device with a larger vocabulary, and the tensors that grew depend on its size.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MORE = 64  # rows that the larger vocabulary has
_NEAR = 0.1  # a further vocabulary's size differs by less than this share (Gemma 3n: 262,144 of 262,400)


def vocabulary_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters with one row per token: "input", "output" (the same if tied) and the head's "bias"."""
    head = model.get_output_embeddings()
    found = {"input": model.get_input_embeddings().weight}
    if head is not None:
        found["output"] = head.weight
        if getattr(head, "bias", None) is not None:
            found["bias"] = head.bias
    return found


def further_tables(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return by name the parameters and buffers with one row per token that `vocabulary_parameters` does not return.

    Each has the shape (rows, ...); it may have fewer rows than the input embedding.
    Raises `InputError` when a tensor depends on the vocabulary's size in another dimension than its first.

    Parameters
    ----------
    model : it may be on the meta device
    """
    known = {id(parameter) for parameter in vocabulary_parameters(model).values()}
    grown = {name: tensor.shape for name, tensor in _tensors(_with_more_tokens(model))}
    found = {}
    for name, tensor in _tensors(model):
        larger = grown.get(name)
        if id(tensor) in known or larger is None or larger == tensor.shape:
            continue
        if len(larger) != tensor.dim() or larger[1:] != tensor.shape[1:]:
            raise InputError(
                f"The model's tensor {name}, of shape {tuple(tensor.shape)}, depends on the vocabulary in a way "
                "that cannot be moved to another; use another model."
            )
        found[name] = tensor
    return found


def vocabulary_sizes(config: Any) -> list[str]:
    """Names of the sizes in a text configuration that are near the vocabulary's: `vocab_size`, `n_vocab`, ..."""
    rows = config.vocab_size
    return [
        name
        for name, value in vars(config).items()
        if "vocab" in name and "offset" not in name and isinstance(value, int) and abs(value - rows) <= _NEAR * rows
    ]


def names_in_model(model: PreTrainedModel, tensor: torch.Tensor) -> list[str]:
    """All names of a parameter or buffer; tied ones have several."""
    return [name for name, held in _tensors(model) if held is tensor]


def set_tensor(model: PreTrainedModel, name: str, value: torch.Tensor) -> None:
    """Replace a parameter or buffer by another tensor."""
    place, _, last = name.rpartition(".")
    module = model.get_submodule(place)
    old = getattr(module, last)
    is_parameter = last in module._parameters  # transformers may have set it to None when it resized the head
    requires_grad = old is None or old.requires_grad
    setattr(module, last, torch.nn.Parameter(value, requires_grad=requires_grad) if is_parameter else value)
    if isinstance(module, torch.nn.Embedding):
        module.num_embeddings = len(value)


def _tensors(model: PreTrainedModel) -> chain[tuple[str, torch.Tensor]]:
    return chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))


def _with_more_tokens(model: PreTrainedModel) -> PreTrainedModel:
    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    for name in vocabulary_sizes(text):
        setattr(text, name, getattr(text, name) + _MORE)
    with torch.device("meta"):
        return type(model)(config)
