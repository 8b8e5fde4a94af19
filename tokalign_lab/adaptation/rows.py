"""Train only some rows of the embedding and the head.

`UsedRows`: the input rows that a text does not use cannot change, so nothing is computed for them.
If a token never occurs, its row of the input embedding has a gradient of zero, and both moments of Adam stay zero.
Without weight decay, its update is 0 / (sqrt(0) + eps) = 0. So training only the rows of occurring tokens, as a small
matrix, gives exactly the same numbers as training the whole matrix. It saves a gradient, two moments and an update for
a quarter of a million rows. This requires an embedding that is not shared with the head (the softmax gives every row a
gradient).

`frozen_rows`: rows of the user's choice keep their values, such as those of tokens that the source has too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.adaptation.stages import row_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def can_use_rows(model: PreTrainedModel, weight_decay: float) -> bool:
    """Return whether training some rows equals training all: untied input embedding, no weight decay."""
    head = model.get_output_embeddings()
    return weight_decay == 0 and head is not None and head.weight is not model.get_input_embeddings().weight


@contextmanager
def frozen_rows(model: PreTrainedModel, frozen: torch.Tensor, used: UsedRows | None = None) -> Iterator[None]:
    """Within the block, give rows of the embedding and the head no gradient; without weight decay, they do not change.

    Parameters
    ----------
    model : the model to train
    frozen : bool (vocab_size,), by id; rows beyond it (padding) are frozen too
    used : of this model, if its embedding holds some rows only
    """
    embedding: Any = model.get_input_embeddings()
    hooks = []
    for weight in dict.fromkeys(weight for module in row_modules(model) for weight in module.parameters()):
        if used is not None and weight is embedding.weight:
            trains = ~frozen[used.ids.to(frozen.device)]
        else:
            trains = torch.zeros(len(weight), dtype=torch.bool)
            trains[: len(frozen)] = ~frozen
        factor = trains.to(weight.device, weight.dtype).view(-1, *[1] * (weight.ndim - 1))
        masked = functools.partial(torch.mul, factor)
        hooks.append(weight.register_hook(masked))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class UsedRows:
    """Replaces a model's input embedding by its used rows.

    Until `close`, the embedding's weight is a parameter of shape (used, d), and input ids are translated to its rows.
    An id that is not among the used ones raises `IndexError`.

    Parameters
    ----------
    model : a model for which `can_use_rows` holds
    ids : int64, every id that occurs in training, each once

    Attributes
    ----------
    ids : the same
    """

    def __init__(self, model: PreTrainedModel, ids: torch.Tensor) -> None:
        self._embedding: Any = model.get_input_embeddings()
        self._all: torch.nn.Parameter = self._embedding.weight
        self._padding: int | None = self._embedding.padding_idx
        self.ids = ids.to(self._all.device)
        # one past the end for ids that do not occur: the lookup refuses it
        self._place = torch.full((len(self._all),), len(ids), device=self._all.device)
        self._place[self.ids] = torch.arange(len(ids), device=self._all.device)
        self._used = torch.nn.Parameter(self._all.detach()[self.ids])
        self._hook: Any = None
        self._take()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block, restore the whole matrix with the trained rows: to measure or to save."""
        self.close()
        try:
            yield
        finally:
            self._take()

    def close(self) -> None:
        """Restore the whole matrix permanently."""
        with torch.no_grad():
            self._all[self.ids] = self._used
        self._hook.remove()
        self._embedding.weight, self._embedding.padding_idx = self._all, self._padding

    def _take(self) -> None:
        self._embedding.weight = self._used
        if self._padding is not None:
            used = bool((self.ids == self._padding).any())
            self._embedding.padding_idx = int(self._place[self._padding]) if used else None
        self._hook = self._embedding.register_forward_pre_hook(lambda module, inputs: (self._place[inputs[0]],))
