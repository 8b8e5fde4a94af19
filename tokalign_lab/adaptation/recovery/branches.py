"""Branches: the second pieces of words that the source model predicts, in the contexts of the text.

Most of the loss of a swap is on source tokens that the student writes with several tokens: the source never wrote their
pieces one by one (docs/decisions/0016-recovery-defaults.md has the figures). A text has few such tokens, and each of
them teaches one word. But at each position, the source gives probability to many of them. One is sampled, and its first
piece is appended to the text as a branch. A branch is a token that attends to the text up to this position and to
itself; no other token attends to it. There, the student learns the source's distribution of the second piece. One
forward pass covers a sequence and all its branches, and a branch costs as much as one more token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.cross_tokenizer.pieces import Predictions
from tokalign_lab.cross_tokenizer.tensor_table import TensorTable
from tokalign_lab.evaluation.head import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARE = 0.5  # maximum number of branches, as a share of a sequence's tokens
LEAST_SPLIT = 0.003  # least probability, at a position, of all tokens that the student writes with several
LEAST_KNOWN = 0.5  # least share, by probability, of tokens with this first piece that have a second


@dataclass(frozen=True)
class Branches(TensorTable):
    """First pieces that are appended to a text, and the distribution of the piece after each.

    Attributes
    ----------
    row, column : int64 (n,), ascending rows: the sequence, and the token that the branch follows
    token : int64 (n,): the student's id
    second : int64 (n, k): ids that may follow
    probs : float (n, k): how likely each is; sums to 1. An id may come several times.
    weight : float (n,), 0 to 1: probability that a token with this first piece has a second piece. For a token without
        one, the source has no prediction of what follows.
    """

    row: torch.Tensor
    column: torch.Tensor
    token: torch.Tensor
    second: torch.Tensor
    probs: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def draw(cls, predictions: Predictions, at: torch.Tensor, length: int, seed: int) -> Branches:
        """Sample branches for a batch.

        Parameters
        ----------
        predictions : of the source, at the positions `at`
        at : int64 (positions,), ascending: tokens of the student, row * length + column
        length : tokens per sequence
        seed : of the sampling
        """
        generator = torch.Generator().manual_seed(seed)
        row, column = at // length, at % length
        split = predictions.probs * (predictions.count > 1)
        possible = torch.nonzero((split.sum(dim=1) > LEAST_SPLIT) & (column < length - 1))[:, 0]
        order = possible[torch.randperm(len(possible), generator=generator).to(possible.device)]
        order = order[torch.argsort(row[order], stable=True)]
        here = order[_number_in(row[order]) < int(SHARE * length)]
        if len(here):
            drawn = torch.multinomial(split[here].cpu(), 1, generator=generator).to(here.device)
        else:
            drawn = here[:, None]
        found = predictions[here]
        token = found.first.gather(1, drawn)
        probs = found.probs * (found.first == token)
        continued = probs * (found.count > 1)
        known = continued.sum(dim=1)
        weight = known / probs.sum(dim=1)
        kept = weight >= LEAST_KNOWN
        return cls(
            row[here][kept],
            column[here][kept],
            token[kept][:, 0],
            found.second[kept],
            (continued / known[:, None])[kept],
            weight[kept],
        )

    @property
    def slot(self) -> torch.Tensor:
        """int64 (n,): number of each branch in its row."""
        return _number_in(self.row)

    def append_to(self, inputs: dict[str, Any], dtype: torch.dtype) -> None:
        """Append the branches to the sequences of a batch: ids, positions and an attention mask of four dimensions.

        Rows with fewer branches are padded with tokens that no other token attends to and that have no loss.
        """
        ids = inputs["input_ids"]
        n_rows, length = ids.shape
        slot = self.slot
        n = int(slot.max()) + 1 if len(self) else 0
        columns = torch.arange(length + n, device=ids.device)
        longer = torch.cat([ids, ids[:, :1].expand(n_rows, n)], dim=1)
        positions = columns.clamp(max=length - 1).repeat(n_rows, 1)
        sees = (columns[None, :] <= columns[:, None]) & (columns[None, :] < length)
        sees = sees.repeat(n_rows, 1, 1)
        sees[:, length:] = False
        sees[self.row, length + slot] = columns[None, :] <= self.column[:, None]
        sees |= torch.eye(length + n, dtype=torch.bool, device=ids.device)
        longer[self.row, length + slot] = self.token
        positions[self.row, length + slot] = self.column + 1
        mask = torch.zeros(sees.shape, dtype=dtype, device=ids.device).masked_fill_(~sees, torch.finfo(dtype).min)
        inputs.update(input_ids=longer, position_ids=positions, attention_mask=mask[:, None])


def _number_in(row: torch.Tensor) -> torch.Tensor:
    """Count the entries of each row from 0; `row` is int64 (n,), ascending."""
    return torch.arange(len(row), device=row.device) - torch.searchsorted(row, row)


@torch.no_grad()
def reads_branches(model: PreTrainedModel, length: int) -> bool:
    """Return whether a model reads a branch like the text followed by the branch's token; tests it on a few tokens.

    It does not if it has no attention (state-space models), if a layer has a window shorter than `length` tokens, or if
    its attention takes no mask of four dimensions.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window is not None and window < length:
        return False
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(1, 13, device=device)[None] % int(model.get_input_embeddings().weight.shape[0])
    one = torch.zeros(1, dtype=torch.int64, device=device)
    empty = torch.zeros(1, 0, device=device)
    branch = Branches(one, one + 5, ids[0, 10:11], empty.long(), empty, empty.sum(dim=1))
    inputs = {"input_ids": ids}
    branch.append_to(inputs, model.dtype)
    try:
        with evaluation_mode(model):
            plain = model(input_ids=torch.cat([ids[:, :6], ids[:, 10:11]], dim=1), use_cache=False).logits[0, -1]
            made = model(**inputs, use_cache=False).logits[0]
            text = model(input_ids=ids, use_cache=False).logits[0]
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    close = 1e-3 if model.dtype in (torch.float32, torch.float64) else 5e-2
    return torch.allclose(made[-1], plain, rtol=close, atol=close) and torch.allclose(made[:12], text, close, close)
