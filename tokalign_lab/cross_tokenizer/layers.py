"""The decoder layers of a model: their outputs, and a forward pass that ends after one of them.

Layers are counted from 1: the state after layer k is the output of the first k layers, before any final norm. A forward
pass that ends there needs no head, which with 262k tokens is more than half of the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layer(model: PreTrainedModel, number: int) -> torch.nn.Module:
    """Return decoder layer `number`, counted from 1.

    Raises `InputError` if there is no such layer, or no list of modules has as many members as the configuration has
    layers.
    """
    layers = _found(model)[2]
    if not 1 <= number <= len(layers):
        raise InputError(f"Layer {number} was requested, but the model has layers 1 to {len(layers)}.")
    return layers[number - 1]


@contextmanager
def layer_outputs(model: PreTrainedModel, numbers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block, collect the states after some layers from forward passes, (batch, length, d) each."""
    found: dict[int, torch.Tensor] = {}
    with ExitStack() as stack:
        for number in numbers:

            def keep(module: torch.nn.Module, inputs: Any, output: Any, number: int = number) -> None:
                found[number] = states_of(output)

            stack.callback(layer(model, number).register_forward_hook(keep).remove)
        yield found


def states_after(model: PreTrainedModel, input_ids: torch.Tensor, numbers: Sequence[int]) -> dict[int, torch.Tensor]:
    """Run the body up to the last of some layers; returns the states after each of them, (batch, length, d)."""
    parent, name, layers = _found(model)
    with layer_outputs(model, numbers) as found:
        setattr(parent, name, torch.nn.ModuleList(list(layers[: max(numbers)])))
        try:
            model.base_model(input_ids=input_ids, use_cache=False)
        finally:
            setattr(parent, name, layers)
    return found


def states_of(output: Any) -> torch.Tensor:
    """Return the states in a decoder layer's output, which is a tuple in some architectures."""
    return output if isinstance(output, torch.Tensor) else output[0]


def with_states(output: Any, states: torch.Tensor) -> Any:
    """Return a decoder layer's output with other states in it."""
    return states if isinstance(output, torch.Tensor) else (states, *output[1:])


def _found(model: PreTrainedModel) -> tuple[torch.nn.Module, str, torch.nn.ModuleList]:
    """Return the module that holds the list of layers, the list's name in it, and the list."""
    n = model.config.get_text_config().num_hidden_layers
    for parent in model.modules():
        for name, part in parent.named_children():
            if isinstance(part, torch.nn.ModuleList) and len(part) == n:
                return parent, name, part
    raise InputError(f"The {n} layers of a model of type {model.config.model_type!r} cannot be found.")
