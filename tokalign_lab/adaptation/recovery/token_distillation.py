"""Better input rows for new tokens, from the source's states, before anything else is tuned.

Token Distillation (arXiv 2505.20133). Student and source read the same text. After a few layers the student's state
at a new token should be the source's at the last of the pieces that it reads there instead, and so at the tokens
behind it that attend to it. Only the input rows of new tokens are trained, by the squared difference of these states;
the body and the rows of tokens that both tokenizers have are frozen. Both models end after the layer that is compared,
so a step needs neither the other layers nor the head.

Running text shows few of the new tokens often. `covering` chooses blocks of it so that every new token that the text
has comes up to so many times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tokalign_lab.adaptation.coverage import new_tokens
from tokalign_lab.adaptation.recovery.byte_alignment import Bools, Ints
from tokalign_lab.adaptation.recovery.layers import states_after
from tokalign_lab.adaptation.recovery.source import SourceTeacher
from tokalign_lab.adaptation.recovery.states import state_loss
from tokalign_lab.adaptation.rows import UsedRows
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class RowsDone:
    """Result of training new input rows.

    Attributes
    ----------
    rows : int
        Input rows that were trained: new tokens that the chosen text has.
    unseen : int
        New tokens that the text does not have; their rows are as they were.
    places : int
        How often new tokens came, in all.
    steps : int
        Optimiser steps.
    first_loss, last_loss : float
        Mean over the first and the last tenth of the steps.
    """

    rows: int
    unseen: int
    places: int
    steps: int
    first_loss: float
    last_loss: float


def covering(blocks: Sequence[Ints], wanted: Ints, size: int, places: int, seed: int = 0) -> Ints:
    """Choose blocks until every wanted token that they have comes up so often, or always.

    Parameters
    ----------
    blocks
        int64 (length,) each.
    wanted
        int64 (n,): token ids.
    size
        One more than the highest id.
    places
        How often each should come; more where others come along.
    seed
        Of the order in which blocks are looked at.

    Returns
    -------
    np.ndarray
        int64: numbers of blocks in the order to read them, each once.
    """
    is_wanted = np.zeros(size, dtype=bool)
    is_wanted[wanted] = True
    found = [block[is_wanted[block]] for block in blocks]
    total = np.zeros(size, dtype=np.int64)
    for tokens in found:
        np.add.at(total, tokens, 1)
    order = np.random.default_rng(seed).permutation(len(blocks))
    # blocks with the rarest tokens first: they are needed anyway, and bring common tokens along
    rarest = np.array([total[found[i]].min() if len(found[i]) else np.iinfo(np.int64).max for i in order])
    count = np.zeros(size, dtype=np.int64)
    chosen = []
    for i in order[np.argsort(rarest, kind="stable")].tolist():
        if len(found[i]) and (count[found[i]] < places).any():
            chosen.append(i)
            np.add.at(count, found[i], 1)
    return np.random.default_rng([seed, 1]).permutation(np.array(chosen, dtype=np.int64))


def train_new_rows(
    model: PreTrainedModel,
    student: Vocabulary,
    teacher: SourceTeacher,
    blocks: Sequence[Ints],
    layer: int,
    places: int = 25,
    learning_rate: float = 0.1,
    batch_size: int = 8,
    max_steps: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
    interrupt: Callable[[], None] = lambda: None,
) -> RowsDone:
    """Train the input rows of new tokens so that states after a layer become the source's.

    Parameters
    ----------
    model
        The moved model; only its input rows of new tokens change. Input and output rows must not be tied.
    student
        Its tokenizer.
    teacher
        The source.
    blocks
        The text: int64 (length,) each, as `PackedBlocks` gives them.
    layer
        Counted from 1. Early layers are cheaper, and as good in the paper.
    places
        How often each new token should come.
    learning_rate
        AdamW's, without decay, as a share of the root mean square of the model's rows; it falls as a cosine. 0.1 was
        tried on SmolLM2-135M, for 16 steps of 4 blocks.
    batch_size
        Blocks a step.
    max_steps
        End after so many steps; all chosen blocks once when not given.
    seed
        Of the choice and the order of blocks.
    progress, interrupt
        Called at each step.

    Raises
    ------
    InputError
        If the head shares the input rows, the layer does not exist, or the text has no new token.
    """
    embedding = model.get_input_embeddings()
    head = model.get_output_embeddings()
    if head is not None and head.weight is embedding.weight:
        raise InputError(
            "Input and output rows are tied, so rows that fit the states would be written too; rearrange the model "
            "without keep_tied first."
        )
    fresh = new_tokens(student, teacher.vocabulary)
    chosen = covering(blocks, fresh, student.size, places, seed)
    if not len(chosen):
        raise InputError(f"The text has none of the {len(fresh)} tokens that are new to the model; give other text.")
    steps = -(-len(chosen) // batch_size)
    steps = steps if max_steps is None else min(steps, max_steps)
    chosen = chosen[: steps * batch_size]
    is_new = np.zeros(student.size, dtype=bool)
    is_new[fresh] = True
    present = np.unique(np.concatenate([blocks[i] for i in chosen]))
    used = UsedRows(model, torch.from_numpy(present))
    frozen = [weight for weight in model.parameters() if weight.requires_grad and weight is not embedding.weight]
    for weight in frozen:
        weight.requires_grad_(False)
    try:
        read = _Read(blocks, chosen, batch_size, is_new, present)
        losses, n = _train(model, teacher, read, layer, learning_rate, progress, interrupt)
    finally:
        for weight in frozen:
            weight.requires_grad_(True)
        used.close()
    trained = int(is_new[present].sum())
    part = max(1, len(losses) // 10)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    return RowsDone(trained, len(fresh) - trained, n, len(losses), first, last)


@dataclass(frozen=True)
class _Read:
    """The text: chosen blocks, which ids are new (bool by id), and the ids that occur, ascending."""

    blocks: Sequence[Ints]
    chosen: Ints
    batch_size: int
    is_new: Bools
    present: Ints

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.batch_size)

    def batch(self, step: int) -> Ints:
        """Return the ids of a step, int64 (blocks, length)."""
        first = step * self.batch_size
        return np.stack([self.blocks[i] for i in self.chosen[first : first + self.batch_size]])


def _train(
    model: PreTrainedModel,
    teacher: SourceTeacher,
    read: _Read,
    layer: int,
    learning_rate: float,
    progress: Progress,
    interrupt: Callable[[], None],
) -> tuple[list[float], int]:
    """Return the loss of each step and how many places of new tokens were read."""
    weight = model.get_input_embeddings().weight
    new = torch.from_numpy(read.is_new[read.present]).to(weight.device)
    size = float(weight.detach().float().square().mean().sqrt())
    optimizer = torch.optim.AdamW([weight], lr=learning_rate * size, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(read))
    losses: list[float] = []
    n = 0
    for step in range(len(read)):
        interrupt()
        batch = read.batch(step)
        n += int(read.is_new[batch].sum())
        ids = torch.from_numpy(batch).to(weight.device)
        reading = teacher.read(ids, [layer])
        here = reading.places[~reading.places.special & ~reading.places.first]
        mine = states_after(model, ids, [layer])[layer].flatten(0, 1)[here.student[:, 1]]
        yours = reading.layers[layer][here.source[:, 1].to(reading.input_ids.device)].to(mine.device)
        loss = state_loss(mine, yours)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        weight.grad *= new[:, None]  # rows of tokens that both have stay; without decay a gradient of 0 moves nothing
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        progress((step + 1) / len(read), f"new rows: difference {losses[-1]:.3f}")
    return losses, n
