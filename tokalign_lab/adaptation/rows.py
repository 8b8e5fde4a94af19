"""Only the input rows that a text uses: the others cannot move, so nothing is computed for them.

A row of the input embedding whose token never comes gets a gradient of zero, keeps both moments of Adam at zero, and
without weight decay an update of 0 / (sqrt(0) + eps) = 0. So training the rows of the tokens that do occur, as a small
matrix, gives the very numbers that training the whole matrix gives, without a gradient, two moments and an update for
a quarter of a million rows. It holds for an embedding that the head does not share (the softmax reaches every row).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def can_use_rows(model: PreTrainedModel, weight_decay: float) -> bool:
    """Return whether training some rows equals training all: untied input embedding, no weight decay."""
    head = model.get_output_embeddings()
    return weight_decay == 0 and head is not None and head.weight is not model.get_input_embeddings().weight


class UsedRows:
    """Makes a model's input embedding hold the used rows only.

    Until `close`, the embedding's weight is a parameter of shape (used, d) and ids are translated on their way in.
    An id that is not among the used ones raises `IndexError` then.

    Parameters
    ----------
    model
        A model for which `can_use_rows` holds.
    ids
        int64, every id that training will meet, each once.
    """

    def __init__(self, model: PreTrainedModel, ids: torch.Tensor) -> None:
        self._embedding: Any = model.get_input_embeddings()
        self._all: torch.nn.Parameter = self._embedding.weight
        self._padding: int | None = self._embedding.padding_idx
        self._ids = ids.to(self._all.device)
        # one past the end for ids that do not occur: the lookup refuses it
        self._place = torch.full((len(self._all),), len(ids), device=self._all.device)
        self._place[self._ids] = torch.arange(len(ids), device=self._all.device)
        self._used = torch.nn.Parameter(self._all.detach()[self._ids])
        self._hook: Any = None
        self._take()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Put the whole matrix back, trained rows in it, for as long as the block lasts: to measure or to save."""
        self.close()
        try:
            yield
        finally:
            self._take()

    def close(self) -> None:
        """Restore the whole matrix permanently."""
        with torch.no_grad():
            self._all[self._ids] = self._used
        self._hook.remove()
        self._embedding.weight, self._embedding.padding_idx = self._all, self._padding

    def _take(self) -> None:
        self._embedding.weight = self._used
        if self._padding is not None:
            used = bool((self._ids == self._padding).any())
            self._embedding.padding_idx = int(self._place[self._padding]) if used else None
        self._hook = self._embedding.register_forward_pre_hook(lambda module, inputs: (self._place[inputs[0]],))
