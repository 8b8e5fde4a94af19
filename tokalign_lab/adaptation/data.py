"""The training text as blocks of fixed length, in an endless seeded order.

Documents are concatenated, each between the vocabulary's bos and eos if it has them, and split into blocks of equal
length. Nothing is copied: a block is read from the memory-mapped corpus on demand. Each epoch has its own permutation
of the blocks, drawn from the seed. The state of the order is one number, the position: stage 2 and a resumed run
continue from it.

A mix (language-adaptive tuning, LAT, in the papers) concatenates each slice separately. For each position, it samples
the slice of the next block: slice i has a share proportional to weight_i * size_i^(1/temperature).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tokalign_lab.adaptation.loss import IGNORED
from tokalign_lab.corpus import Corpus
from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import check_causal, longest_input
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Ints = np.ndarray[Any, np.dtype[np.int64]]


class PackedBlocks:
    """Documents of a corpus as blocks of `length` tokens.

    Raises `InputError` if the text is shorter than one block.

    Parameters
    ----------
    corpus : token ids of the documents
    vocabulary : the vocabulary of those ids; gives bos and eos
    length : tokens per block; a shorter last block is dropped
    documents : which documents, in order; all when not given
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary, length: int, documents: Ints | None = None) -> None:
        self._corpus = corpus
        self._length = length
        self._documents = np.arange(len(corpus)) if documents is None else documents
        bos, eos = vocabulary.roles.get("bos"), vocabulary.roles.get("eos")
        # if one token is both bos and eos, it occurs once between documents
        self._before = np.array([] if bos is None or bos == eos else [bos], dtype=np.int64)
        self._after = np.array([] if eos is None else [eos], dtype=np.int64)
        lengths = np.diff(np.asarray(corpus.offsets, dtype=np.int64))[self._documents]
        self._starts = np.concatenate([[0], np.cumsum(lengths + len(self._before) + len(self._after))])
        if self._starts[-1] < length:
            raise InputError(
                f"The training text has {self._starts[-1]} tokens, fewer than one sequence of {length}; "
                "give more text or a shorter sequence_length."
            )

    def __len__(self) -> int:
        return int(self._starts[-1] // self._length)

    def __getitem__(self, block: int) -> Ints:
        return self.block(block)[0]

    def block(self, block: int) -> tuple[Ints, Ints]:
        """Return a block's ids, int64 (length,), and each token's position in its document's part of the block."""
        start, end = block * self._length, (block + 1) * self._length
        document = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        while document < len(self._documents) and self._starts[document] < end:
            ids = np.concatenate([self._before, self._corpus[int(self._documents[document])], self._after])
            first = self._starts[document]
            pieces.append(ids[max(0, start - first) : end - first])
            document += 1
        positions = np.concatenate([np.arange(len(piece)) for piece in pieces])
        return np.concatenate(pieces).astype(np.int64), positions

    @property
    def n_tokens(self) -> int:
        """Count the tokens of the documents, bos and eos included."""
        return int(self._starts[-1])


class Mix:
    """Blocks of several slices, and the slice of each position of the order.

    Parameters
    ----------
    streams : the blocks of each slice
    shares : sampling probability of each slice, summing to 1
    seed : of the sampling, and of the order within each slice
    """

    def __init__(self, streams: Sequence[PackedBlocks], shares: Sequence[float], seed: int) -> None:
        self.streams = list(streams)
        self.shares = list(shares)
        self.seed = seed
        self._picks = np.zeros(0, dtype=np.int16)
        self._turns = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        """Count the blocks of all streams together."""
        return sum(len(stream) for stream in self.streams)

    def block(self, number: int) -> tuple[Ints, Ints]:
        """Return a block by its `number`, as `PackedBlocks.block`."""
        for stream in self.streams:
            if number < len(stream):
                return stream.block(number)
            number -= len(stream)
        raise IndexError(number)

    def number(self, stream: int, block: int) -> int:
        """Return the number of a stream's block among all blocks; blocks of earlier streams come first."""
        return sum(len(before) for before in self.streams[:stream]) + block

    def at(self, position: int) -> tuple[int, int]:
        """Return the stream at a position of the endless order, and the number of its earlier blocks."""
        if len(self.streams) == 1:
            return 0, position
        if position >= len(self._picks):
            self._draw(max(1024, 2 * position))
        return int(self._picks[position]), int(self._turns[position])

    def _draw(self, n: int) -> None:
        # `random` begins with the same numbers for every n, so a longer draw keeps the earlier ones
        drawn = np.random.default_rng([self.seed, 1]).random(n)
        self._picks = np.searchsorted(np.cumsum(self.shares)[:-1], drawn, side="right").astype(np.int16)
        self._turns = np.zeros(n, dtype=np.int64)
        for stream in range(len(self.streams)):
            places = np.flatnonzero(self._picks == stream)
            self._turns[places] = np.arange(len(places))


def mixed(
    corpus: Corpus,
    documents: Sequence[Document],
    vocabulary: Vocabulary,
    length: int,
    seed: int,
    weights: Mapping[str, float] | None = None,
    temperature: float = 1.0,
) -> Mix:
    """Prepare a text for tuning.

    Raises `InputError` if the text lacks a named slice, no slice has a weight above 0, or one is shorter than one
    block.

    Parameters
    ----------
    corpus : the documents' ids
    documents : the documents themselves, for their slices
    vocabulary, length : as for `PackedBlocks`
    seed : of the order
    weights : a factor for each slice; 1 if it is not named, and 0 excludes it
    temperature : 1 keeps the proportions of the slices; a higher one makes them more equal
    """
    if not weights and temperature == 1.0:
        return Mix([PackedBlocks(corpus, vocabulary, length)], [1.0], seed)
    weights = weights or {}
    names = np.array([document.slice for document in documents])
    present = sorted(set(names.tolist()))
    unknown = sorted(weights.keys() - set(present))
    if unknown:
        raise InputError(f"The mix names the slice {unknown[0]!r}, but the text has {', '.join(present)}.")
    kept = [name for name in present if weights.get(name, 1.0) > 0]
    if not kept:
        raise InputError("The mix gives every slice of the text a weight of 0; leave at least one.")
    streams = []
    for name in kept:
        try:
            streams.append(PackedBlocks(corpus, vocabulary, length, np.flatnonzero(names == name)))
        except InputError as error:
            raise InputError(f"Slice {name!r} of the mix is too small. {error}") from error
    sizes = [
        weights.get(name, 1.0) * stream.n_tokens ** (1 / temperature)
        for name, stream in zip(kept, streams, strict=True)
    ]
    return Mix(streams, [size / sum(sizes) for size in sizes], seed)


@dataclass(eq=False)
class OrderedBlocks(Dataset[dict[str, torch.Tensor]]):
    """The blocks at positions `start` to `start + count` of the endless seeded order.

    Attributes
    ----------
    mix : the text
    start, count : the range of the order
    apart : separate the documents of a block: `position_ids` restart with each document, so that transformers limits
        attention to it, and its first token is not predicted from the document before
    taught : returns whether the teacher is used for the sequence at a position of the order. If given, items also have
        `taught`, int64 (): the block's number in the mix, or -1 without a teacher.
    """

    mix: Mix
    start: int
    count: int
    apart: bool = False
    taught: Callable[[int], bool] | None = None
    # of each stream, its epoch and that epoch's permutation
    _orders: dict[int, tuple[int, Ints]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        stream, block = self.block_at(index)
        ids, positions = (torch.from_numpy(part) for part in self.mix.streams[stream].block(block))
        item = {"input_ids": ids, "labels": ids.clone()}
        if self.apart:
            item["labels"][positions == 0] = IGNORED
            item["position_ids"] = positions
        if self.taught is not None:
            number = self.mix.number(stream, block) if self.taught(self.start + index) else -1
            item["taught"] = torch.tensor(number)
        return item

    def block_at(self, index: int) -> tuple[int, int]:
        """Return the stream and its block at position `index` of this range."""
        stream, turn = self.mix.at(self.start + index)
        n = len(self.mix.streams[stream])
        epoch, place = divmod(turn, n)
        if self._orders.get(stream, (-1,))[0] != epoch:
            seed = [self.mix.seed, epoch] if len(self.mix.streams) == 1 else [self.mix.seed, epoch, stream]
            self._orders[stream] = epoch, np.random.default_rng(seed).permutation(n)
        return stream, int(self._orders[stream][1][place])

    def ids(self, vocab_size: int) -> Ints:
        """Return every id below `vocab_size` that occurs in these blocks: int64, ascending, each once."""
        seen = np.zeros(vocab_size, dtype=bool)
        for stream, block in map(self.block_at, range(self.count)):
            seen[self.mix.streams[stream][block]] = True
        return np.flatnonzero(seen)

    def n_bytes(self, first: int, count: int, byte_lengths: Ints) -> int:
        """UTF-8 bytes in `count` blocks from position `first` on; `byte_lengths` has those of each token."""
        places = (self.block_at(index) for index in range(first, first + count))
        return sum(int(byte_lengths[self.mix.streams[stream][block]].sum()) for stream, block in places)


def check_sequences(model: PreTrainedModel, length: int, apart: bool, who: str = "model") -> None:
    """Make sure that a model can read the sequences of a run.

    Raises `InputError` if sequences exceed the model's maximum length, it is not causal, or it cannot separate
    documents.

    Parameters
    ----------
    model : the model
    length : tokens per sequence
    apart : whether the documents of a sequence are separated
    who : the name of the model in the error
    """
    limit = longest_input(model)
    if limit is not None and length > limit:
        raise InputError(f"The sequence_length is {length}, but the {who} reads at most {limit} tokens.")
    check_causal(model)
    if apart:
        check_apart(model)


def check_apart(model: PreTrainedModel) -> None:
    """Make sure that a model separates the documents of a row if their positions restart.

    Raises `InputError` if the output for the second of two documents depends on the first.
    """
    device = model.get_input_embeddings().weight.device
    rows = int(model.get_input_embeddings().weight.shape[0])
    first, second = (torch.arange(n, device=device).unsqueeze(0) % rows for n in (5, 7))
    positions = torch.cat([torch.arange(n, device=device).unsqueeze(0) for n in (5, 7)], 1)
    together = {"input_ids": torch.cat([first, second], 1), "position_ids": positions}
    with torch.no_grad():
        try:
            seen = model(**together, use_cache=False).logits[:, 5:].float()
        except TypeError:  # no position_ids: positions are part of its attention
            seen = None
        alone = model(input_ids=second, use_cache=False).logits.float()
    if seen is None or not torch.allclose(seen, alone, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"A model of type {model.config.model_type!r} cannot keep the documents of a sequence apart; "
            "leave cross_documents on."
        )
