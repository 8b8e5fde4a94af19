"""The source model as teacher: it reads the student's text with its own tokenizer.

A block of training text has ids of the student: concatenated documents, each between bos and eos. `Retokenizer` encodes
the same text with the source's tokenizer and records the bytes of each token of both. It separates documents as the
source does. `SourceTeacher` runs the source on the result, without gradients.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tokalign_lab.cross_tokenizer.byte_alignment import (
    Bools,
    Ints,
    Tokens,
    align,
    consecutive,
    special,
    tokenize,
    writes_space_first,
)
from tokalign_lab.cross_tokenizer.layers import layer_outputs, states_after
from tokalign_lab.cross_tokenizer.tensor_table import TensorTable
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import head_to_learn_from, longest_input
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NOT_UTF8 = re.compile("[\udc80-\udcff]+")


class Retokenizer:
    """Converts ids of the student to ids of the source.

    Parameters
    ----------
    student, source : the two tokenizers
    """

    def __init__(self, student: Vocabulary, source: Vocabulary) -> None:
        self.student, self.source = student, source
        self._space_first = writes_space_first(student)
        self._lengths = np.array([len(token or b"") for token in student.token_bytes], dtype=np.int64)
        self._is_text = np.array([token is not None for token in student.token_bytes])
        bos, eos = student.roles.get("bos"), student.roles.get("eos")
        # the function of each separator of the student: end a document, begin one, or both
        if eos is not None and bos in (None, eos):
            self._does = {eos: "EB"}
        else:
            self._does = {token: does for token, does in ((eos, "E"), (bos, "B")) if token is not None}

    def is_special(self, input_ids: Ints) -> Bools:
        """Return which ids of the student are not text, bool (n,)."""
        return ~self._is_text[input_ids]

    def __call__(self, input_ids: Ints) -> tuple[Tokens, Tokens]:
        """Encode a block, int64 (n,), with the source's tokenizer.

        Returns the student's tokens and the source's, for `align`.
        """
        mine: list[Tokens] = []
        yours: list[Tokens] = []
        begins = False  # whether a document begins here
        is_text = self._is_text[input_ids]
        edges = np.flatnonzero(np.diff(is_text)) + 1
        for run in np.split(input_ids, edges) if len(input_ids) else []:
            if self._is_text[run[0]]:
                one, other = self._text(run, begins)
            else:
                begins = "B" in self._does.get(int(run[-1]), "")
                one, other = self._separators(run.tolist())
            mine.append(one)
            yours.append(other)
        return Tokens.joined(mine), Tokens.joined(yours)

    def _text(self, run: Ints, begins: bool) -> tuple[Tokens, Tokens]:
        """Encode text; at the beginning of a document, the student's tokenizer may add a space."""
        data = b"".join(self.student.token_bytes[i] or b"" for i in run.tolist())
        lengths = self._lengths[run].copy()
        if begins and self._space_first and data[:1] == b" ":
            first = int(np.flatnonzero(lengths)[0])
            lengths[first] -= 1
            data = data[1:]
        # a block may begin or end inside a character, which the source cannot read as text
        parts, place = [], 0
        written = data.decode("utf-8", "surrogateescape")
        for broken in _NOT_UTF8.finditer(written):
            parts += [tokenize(written[place : broken.start()], self.source), _nothing(len(broken.group()))]
            place = broken.end()
        parts.append(tokenize(written[place:], self.source))
        return consecutive(run, lengths), Tokens.joined(parts)

    def _separators(self, run: Sequence[int]) -> tuple[Tokens, Tokens]:
        """Convert special tokens by function: end or beginning of a document, or a token of the same name."""
        mine: list[Tokens] = []
        yours: list[Tokens] = []
        pending = ""  # the function of each separator, one letter per unit

        def close() -> None:
            nonlocal pending
            if pending:
                yours.append(self._as_source(pending))
                pending = ""

        for token in run:
            does = "".join(part for part in self._does.get(token, "") if self._can(part))
            if does:
                mine.append(special(token, len(does)))
                pending += does
                continue
            close()
            same = None if token in self._does else self.source.id_of_raw(self.student.raw_token(token))
            known = same is not None and bool(self.source.is_control[same])
            mine.append(special(token, int(known)))
            if known and same is not None:
                yours.append(special(same, 1))
        close()
        return Tokens.joined(mine), Tokens.joined(yours)

    def _can(self, part: str) -> bool:
        """Return whether the source has a token that ends ("E") or begins ("B") a document."""
        roles = self.source.roles
        return "eos" in roles if part == "E" else "bos" in roles or "eos" in roles

    def _as_source(self, pending: str) -> Tokens:
        """Return the source's separators; a token that both ends and begins documents occurs once between two."""
        eos = self.source.roles.get("eos")
        bos = self.source.roles.get("bos", eos)
        if bos != eos:
            return Tokens.joined([special(int(bos if part == "B" else eos), 1) for part in pending])  # type: ignore[arg-type]
        assert bos is not None
        return Tokens.joined([special(bos, len(units)) for units in re.findall("EB|E|B", pending)])


@dataclass(frozen=True)
class SharedPositions(TensorTable):
    """The positions of a batch where student and source have read the same bytes, in order.

    Tokens are numbered through the batch: row * length + column, with the length of their side.

    Attributes
    ----------
    student, source : int64 (n, 2): first and last token of each position's chunk; the last one ends at the position
    row : int64 (n,): the sequence of the batch
    exact : bool (n,): whether the chunk writes the same bytes on both sides
    first : bool (n,): the chunk begins with the first token of the sequence, which nothing predicts
    special : bool (n,): the position follows a special token
    """

    student: torch.Tensor
    source: torch.Tensor
    row: torch.Tensor
    exact: torch.Tensor
    first: torch.Tensor
    special: torch.Tensor

    @property
    def one_to_one(self) -> torch.Tensor:
        """Bool (n,): exact chunks of one token on each side."""
        single = (self.student[:, 0] == self.student[:, 1]) & (self.source[:, 0] == self.source[:, 1])
        return self.exact & single


@dataclass(frozen=True)
class Reading:
    """A batch in the source's tokens, with its states.

    Attributes
    ----------
    input_ids : int64 (batch, length): the source's ids, padded at the end of rows
    length : the length of the student's sequences
    positions : the positions where both have read the same bytes
    layers : float (batch * length, d): the states after the requested layers
    hidden : float (batch * length, d): the input of the source's head
    """

    input_ids: torch.Tensor
    length: int
    positions: SharedPositions
    layers: dict[int, torch.Tensor]
    hidden: torch.Tensor | None


class SourceTeacher:
    """The source model, which reads the batches of the student.

    Raises `InputError` if the model has fewer rows than its tokenizer has ids, or its logits cannot be computed from
    its head alone.

    Parameters
    ----------
    model : the source model; its weights are not changed
    vocabulary : its tokenizer
    student : the student's tokenizer
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary, student: Vocabulary) -> None:
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.head = head_to_learn_from(model, vocabulary, "source")
        self._write = Retokenizer(student, vocabulary)
        self._filler = vocabulary.start_id or 0

    @torch.no_grad()
    def read(self, input_ids: torch.Tensor, layers: Sequence[int] = (), predicts: bool = False) -> Reading:
        """Read a batch of the student. Raises `InputError` if a sequence exceeds the source's maximum length.

        Parameters
        ----------
        input_ids : int64 (batch, length), the student's ids
        layers : keep the states after these layers, counted from 1
        predicts : keep the input of the head. Otherwise the source runs only up to the last of `layers`.
        """
        written = [self._write(row) for row in input_ids.cpu().numpy().astype(np.int64)]
        n_rows, length = input_ids.shape
        own = max(1, max(len(other) for _, other in written))
        limit = longest_input(self.model)
        if limit is not None and own > limit:
            raise InputError(
                f"A sequence of {length} tokens takes {own} of the source's, but the source reads at most {limit}; "
                "use a shorter sequence_length."
            )
        ids = np.full((n_rows, own), self._filler, dtype=np.int64)
        for row, (_, other) in zip(ids, written, strict=True):
            row[: len(other)] = other.ids
        device = self.head.device
        here = torch.from_numpy(ids).to(device)
        positions = self._positions(written, length, own).on(input_ids.device)
        kept: dict[int, torch.Tensor] = {}
        hidden = None
        # rows are padded at their ends, which a causal model does not attend to, so no mask is needed
        if predicts:
            with layer_outputs(self.model, layers) as kept:
                hidden = self.head.hidden(here).flatten(0, 1)
        elif layers:
            kept = states_after(self.model, here, layers)
        return Reading(here, length, positions, {k: states.flatten(0, 1) for k, states in kept.items()}, hidden)

    def _positions(self, written: Sequence[tuple[Tokens, Tokens]], length: int, own: int) -> SharedPositions:
        rows, student, source, exact, first, special_ = [], [], [], [], [], []
        for row, (mine, yours) in enumerate(written):
            found = align(mine, yours)
            chunks = found.chunks.copy()
            chunks[:, :, 1] -= 1  # the last token itself
            rows.append(np.full(len(found), row, dtype=np.int64))
            student.append(chunks[:, 0] + row * length)
            source.append(chunks[:, 1] + row * own)
            exact.append(found.exact)
            first.append((chunks[:, :, 0] == 0).any(axis=1))
            special_.append(self._write.is_special(mine.ids[found.pairs[:, 0]]))
        parts = (student, source, rows, exact, first, special_)
        return SharedPositions(*(torch.from_numpy(np.concatenate(part)) for part in parts))


def _nothing(length: int) -> Tokens:
    """Return a part of a text without tokens."""
    none = np.zeros(0, np.int64)
    return Tokens(none, none, none, none.astype(bool), length)
