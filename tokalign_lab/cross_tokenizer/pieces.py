"""How the student writes each source token, and the source's predictions in the student's tokens.

The source predicts the probability of each of its tokens. The student writes such a token with one or several tokens.
So the source's prediction also gives the probability of each *first piece*, and after it of each *second piece*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tokalign_lab.cross_tokenizer.source import Reading
from tokalign_lab.cross_tokenizer.tensor_table import TensorTable
from tokalign_lab.evaluation.head import Head
from tokalign_lab.vocabulary import Vocabulary

TOP = 512  # most likely source tokens that are kept at a position
LEAST_SPELLED = 0.9  # least share of the probability on known pieces, where the whole prediction is used


class Pieces:
    """The student's tokens that write each source token in the middle of a text.

    Parameters
    ----------
    student, source : the two tokenizers

    Attributes
    ----------
    first, second : int64 (source.size,): the student's ids; -1 if there is none
    count : int64 (source.size,): the number of student tokens that write the token; 0 if unknown
    """

    def __init__(self, student: Vocabulary, source: Vocabulary) -> None:
        table = np.full((3, source.size), -1, dtype=np.int64)
        table[2] = 0
        texts: dict[int, str] = {}
        for yours, token in enumerate(source.token_bytes):
            mine = student.id_of_token(source, yours) if token else None
            if mine is not None:
                table[0, yours], table[2, yours] = mine, 1
            elif token:
                try:
                    texts[yours] = token.decode()
                except UnicodeDecodeError:
                    continue
        for yours, pieces in zip(texts, _written(list(texts.values()), student), strict=True):
            table[0, yours], table[1, yours], *_ = *pieces, -1, -1
            table[2, yours] = len(pieces)
        for mine, yours in separators(student, source):
            table[:, yours] = mine, -1, 1
        self.first, self.second, self.count = torch.from_numpy(table).unbind(0)

    @property
    def openings(self) -> torch.Tensor:
        """int64, ascending: first pieces of the source tokens that the student writes with several tokens."""
        return torch.unique(self.first[self.count > 1])


def separators(student: Vocabulary, source: Vocabulary) -> list[tuple[int, int]]:
    """Pair the ids of bos and of eos (student, source), each token once; a token that is both counts as eos."""
    mine_of: dict[int, int] = {}
    for role in ("eos", "bos"):
        if role in student.roles and role in source.roles and student.roles[role] not in mine_of.values():
            mine_of.setdefault(source.roles[role], student.roles[role])
    return [(mine, yours) for yours, mine in mine_of.items()]


def _written(texts: list[str], student: Vocabulary) -> list[list[int]]:
    """Tokenize fragments as if within a text; an empty list if the result is not certain.

    Each fragment is tokenized after a character that the tokenizer does not merge with it.
    """
    found: list[list[int]] = [[] for _ in texts]
    for before in ("a", "\n", "."):
        asked = [i for i, text in enumerate(texts) if not found[i] and (before != "a" or not text[0].isalnum())]
        for i, ids in zip(asked, student.encode([before + texts[i] for i in asked]), strict=True):
            spelled = [student.token_bytes[one] for one in ids.tolist()]
            place = next((n for n, part in enumerate(spelled, 1) if part and part.strip(b" ") == before.encode()), 0)
            if place and b"".join(part or b"" for part in spelled[place:]) == texts[i].encode():
                found[i] = ids[place:].tolist()
    return found


@dataclass(frozen=True)
class Predictions(TensorTable):
    """The source's predictions at some positions: its most likely tokens, as the student writes them.

    Attributes
    ----------
    probs : float (positions, k): probability; 0 for tokens whose student pieces are unknown
    first, second, count : int64 (positions, k): see `Pieces`; -1 became 0
    """

    probs: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    count: torch.Tensor

    @classmethod
    def of(
        cls, reading: Reading, input_ids: torch.Tensor, head: Head, pieces: Pieces, chosen: torch.Tensor | None = None
    ) -> Predictions:
        """Return the source's predictions at the positions of a reading.

        The probability of the source token that follows in the text is given to the student token that follows, even if
        this token is longer. Other source tokens are written as in `pieces`.

        Parameters
        ----------
        reading : the batch as the source reads it
        input_ids : int64 (batch, length), the batch as the student reads it
        head : the source's
        pieces : how the student writes each token of the source
        chosen : bool (positions,) or int64 (n,): only these positions; all by default
        """
        assert reading.hidden is not None
        text, at = _following(reading, input_ids), reading.positions.source[:, 1]
        if chosen is not None:
            text, at = text[chosen], at[chosen]
        hidden = reading.hidden[at.to(reading.hidden.device)]
        size = len(pieces.first)
        probs, tokens = torch.softmax(head.logits(hidden)[:, :size], dim=1).topk(min(TOP, size), dim=1)
        probs, tokens = probs.to(input_ids.device), tokens.cpu()
        first, second, count = (part[tokens].to(probs.device) for part in (pieces.first, pieces.second, pieces.count))
        yours, *mine = (column[:, None].expand_as(first) for column in text.unbind(1))
        otherwise = (tokens.to(probs.device) == yours) & (mine[0] != first)
        first, second, count = (
            torch.where(otherwise, *both) for both in zip(mine, (first, second, count), strict=True)
        )
        return cls(probs * (count > 0), first.clamp(min=0), second.clamp(min=0), count)

    @property
    def whole(self) -> torch.Tensor:
        """Bool (positions,): nearly all of the source's probability is on tokens whose student pieces are known."""
        return self.probs.sum(dim=1) > LEAST_SPELLED

    @property
    def first_probs(self) -> torch.Tensor:
        """Float (positions, k): probability of each of `first` as next token; sums to 1. An id may occur repeatedly."""
        return self.probs / self.probs.sum(dim=1, keepdim=True)


def _following(reading: Reading, input_ids: torch.Tensor) -> torch.Tensor:
    """Return the tokens that follow each position in the text, int64 (positions, 4).

    The columns are the source token, the student token, the next student token, and the number of student tokens that
    write the source token (1 if the student token is longer). All are -1 if the bytes of both tokenizers differ there.
    """
    positions = reading.positions
    following = torch.full((len(positions), 4), -1, device=input_ids.device)
    known = torch.nonzero((positions.row[1:] == positions.row[:-1]) & positions.exact[1:])[:, 0]
    (mine, last), (yours, last_of_yours) = positions.student[known + 1].unbind(1), positions.source[known + 1].unbind(1)
    split = (yours == last_of_yours) & (mine < last)
    ids = input_ids.flatten()
    following[known, 0] = reading.input_ids.to(ids.device).flatten()[yours]
    following[known, 1] = ids[mine]
    following[known, 2] = torch.where(split, ids[torch.minimum(mine + 1, last)], -1)
    following[known, 3] = torch.where(split, last - mine + 1, 1)
    return following
