"""The training text as fixed-length blocks in an order that goes on.

Documents are laid end to end, each between the vocabulary's bos and eos where it has them, and cut into blocks of
equal length. Nothing is copied: a block is read from the memory-mapped corpus when it is wanted. The order is a
permutation drawn from the seed, a new one each time the text is used up, and a position in that order is all there
is to remember: stage 2 and a resumed run go on from where the data stood.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tokalign_lab.corpus import Corpus
from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import Vocabulary


class PackedBlocks:
    """A corpus as blocks of `length` tokens.

    Parameters
    ----------
    corpus
        Token ids of the documents.
    vocabulary
        The vocabulary of those ids; gives bos and eos.
    length
        Tokens a block; the rest at the end of the text is left out.

    Raises
    ------
    InputError
        When the text is shorter than one block.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, length: int) -> None:
        self._corpus = corpus
        self._length = length
        bos, eos = vocabulary.roles.get("bos"), vocabulary.roles.get("eos")
        # where one token does both jobs it stands once between documents
        self._before = np.array([] if bos is None or bos == eos else [bos], dtype=np.int64)
        self._after = np.array([] if eos is None else [eos], dtype=np.int64)
        added = (len(self._before) + len(self._after)) * np.arange(len(corpus) + 1)
        self._starts = np.asarray(corpus.offsets, dtype=np.int64) + added
        if self._starts[-1] < length:
            raise InputError(
                f"The training text has {self._starts[-1]} tokens, fewer than one sequence of {length}; "
                "give more text or a shorter sequence_length."
            )

    def __len__(self) -> int:
        return int(self._starts[-1] // self._length)

    def __getitem__(self, block: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        start, end = block * self._length, (block + 1) * self._length
        document = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        while document < len(self._corpus) and self._starts[document] < end:
            laid = np.concatenate([self._before, self._corpus[document], self._after])
            first = self._starts[document]
            pieces.append(laid[max(0, start - first) : end - first])
            document += 1
        return np.concatenate(pieces).astype(np.int64)


class OrderedBlocks(Dataset[dict[str, torch.Tensor]]):
    """The blocks at positions `start` to `start + count` of the endless seeded order.

    Parameters
    ----------
    blocks
        The text.
    start, count
        Which stretch of the order.
    seed
        Draws the permutations.
    """

    def __init__(self, blocks: PackedBlocks, start: int, count: int, seed: int) -> None:
        self._blocks = blocks
        self._start = start
        self._count = count
        self._seed = seed
        self._epoch = -1
        self._order = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        ids = torch.from_numpy(self._blocks[self.block_at(index)])
        return {"input_ids": ids, "labels": ids.clone()}

    def block_at(self, index: int) -> int:
        """Which block stands at place `index` of this stretch."""
        epoch, place = divmod(self._start + index, len(self._blocks))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._blocks))
            self._epoch = epoch
        return int(self._order[place])
