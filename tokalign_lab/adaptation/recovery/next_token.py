"""The source's prediction of the next token, where it can be compared with the student's.

Both have read the same bytes before and predict over different vocabularies. Two comparisons are made:

- `SharedTokens`: at places where the next token of both is the same bytes, over the tokens that both have, each side
  renormalised to them ("strict 1:1 positions", arXiv 2610.08448).
- `PrefixTokens`: the probability of each of the source's tokens goes to the student's token that a text which begins so
  begins with: the longest whose bytes begin the token's bytes (arXiv 2607.22334). A source token does not tell the
  student's first token where the student has a longer token that begins with the same bytes and the source writes that
  one's bytes beginning with this very token. A place counts as exact where such tokens have at most 1 % of the source's
  probability; the others are left out.

Both are `loss.Term`s. The divergence is KL(source || student) or its reverse.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from tokalign_lab.adaptation.distillation import LivePredictions
from tokalign_lab.adaptation.recovery.byte_alignment import Bools, Ints, tokenize
from tokalign_lab.adaptation.settings import DistillationSettings
from tokalign_lab.evaluation.head import Head
from tokalign_lab.vocabulary import Vocabulary, shared_tokens

INEXACT = 0.01  # of the source's probability, at most, at a place that counts as exact


class Compared(Protocol):
    """Predictions of a source that a student is compared with."""

    def __call__(self, logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return KL and its gradient.

        Parameters
        ----------
        logits
            Float (n, vocab_size): the student's at the chosen places.
        chosen
            int64 (n,): which places these are.

        Returns
        -------
        kl, gradient
            Float (n,), nats, and float (n, vocab_size), in the logits.
        """
        ...


def shared_ids(student: Vocabulary, source: Vocabulary) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of tokens that both have, by bytes or by role, each once: student, source, int64 (n,)."""
    found = shared_tokens(source, student)
    mine_of = {yours: mine for mine, yours in _separators(student, source)}
    for mine, yours in zip(found.target_ids.tolist(), found.source_ids.tolist(), strict=True):
        mine_of.setdefault(yours, mine)
    pairs = sorted((mine, yours) for yours, mine in mine_of.items())
    mine, yours = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return mine, yours


def _separators(student: Vocabulary, source: Vocabulary) -> list[tuple[int, int]]:
    """Pair bos with bos and eos with eos, each token once; eos where one token is both."""
    mine_of: dict[int, int] = {}
    for role in ("eos", "bos"):
        if role in student.roles and role in source.roles and student.roles[role] not in mine_of.values():
            mine_of.setdefault(source.roles[role], student.roles[role])
    return [(mine, yours) for yours, mine in mine_of.items()]


class SharedTokens:
    """Predictions over the tokens that both have.

    Parameters
    ----------
    hidden
        Float (places, d): what the source's head sees at the places.
    head
        The source's.
    ids
        See `shared_ids`.
    settings
        Temperature and direction.
    """

    def __init__(
        self,
        hidden: torch.Tensor,
        head: Head,
        ids: tuple[torch.Tensor, torch.Tensor],
        settings: DistillationSettings,
    ) -> None:
        self._mine = ids[0].to(hidden.device)
        yours = ids[1].to(hidden.device)
        bias = getattr(head.module, "bias", None)
        rows = head.module.weight.detach()[yours]
        self._of = LivePredictions(hidden, rows, None if bias is None else bias.detach()[yours], head.cap)
        self._settings = settings

    def __call__(self, logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Compared`."""
        t = self._settings.temperature
        log_s = torch.log_softmax(logits[:, self._mine] / t, dim=1)
        kl, gradient = self._of[chosen].divergence(log_s, slice(None), self._settings)
        whole = torch.zeros_like(logits)
        return kl * t * t, whole.index_copy_(1, self._mine, gradient.mul_(t))  # T^2 / T


class PrefixMap:
    """Which of the student's tokens each of the source's tokens begins with.

    Attributes
    ----------
    to : torch.Tensor
        int64 (source.size,): a student's id; 0 where there is none.
    exact : torch.Tensor
        Bool (source.size,): the token tells the student's token for certain.
    """

    def __init__(self, student: Vocabulary, source: Vocabulary) -> None:
        begun = _with_longer(student, source)
        to = np.zeros(source.size, dtype=np.int64)
        exact = np.zeros(source.size, dtype=bool)
        longest = max((len(token) for token in student.token_bytes if token), default=0)
        for yours, token in enumerate(source.token_bytes):
            if not token:
                continue
            for size in range(min(len(token), longest), 0, -1):
                mine = student.id_of_bytes(token[:size])
                if mine is not None:
                    to[yours], exact[yours] = mine, not begun[yours]
                    break
        for mine, yours in _separators(student, source):
            to[yours], exact[yours] = mine, True
        self.to, self.exact = torch.from_numpy(to), torch.from_numpy(exact)


def _with_longer(student: Vocabulary, source: Vocabulary) -> Bools:
    """Tell of each source token whether a longer token of the student is written beginning with it, bool (size,)."""
    begun = np.zeros(source.size, dtype=bool)
    for token in student.token_bytes:
        if not token or source.id_of_bytes(token) is not None:
            continue
        first = _first_id(token, source)
        if first is not None:
            begun[first] = True
    return begun


def _first_id(token: bytes, source: Vocabulary) -> int | None:
    """Return the token that the source begins these bytes with."""
    try:
        written: Ints = tokenize(token.decode(), source).ids
    except UnicodeDecodeError:
        written = np.zeros(0, np.int64)
    for token_id in written.tolist():
        if source.token_bytes[token_id] and token.startswith(source.token_bytes[token_id] or b"-"):
            return int(token_id)
    for size in range(len(token), 0, -1):
        found = source.id_of_bytes(token[:size])
        if found is not None:
            return found
    return None


class PrefixTokens:
    """Predictions of the source, moved to the student's tokens by a `PrefixMap`.

    Parameters
    ----------
    hidden
        Float (places, d): what the source's head sees at the places.
    head
        The source's.
    prefixes
        The map.
    settings
        Temperature and direction; the temperature must be 1, since the map adds up probabilities.

    Attributes
    ----------
    exact, places : int
        How many places were compared so far, and how many were seen.
    """

    def __init__(self, hidden: torch.Tensor, head: Head, prefixes: PrefixMap, settings: DistillationSettings) -> None:
        self._hidden, self._head = hidden, head
        self._to, self._certain = prefixes.to.to(hidden.device), prefixes.exact.to(hidden.device)
        self._direction = settings.direction
        self.exact = self.places = 0

    def __call__(self, logits: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Compared`; places that are not exact have a KL of 0."""
        n = len(self._to)
        theirs = torch.softmax(self._head.logits(self._hidden[chosen])[:, :n].to(logits.dtype), dim=1)
        theirs *= self._certain
        exact = theirs.sum(dim=1, keepdim=True)
        good = exact >= 1 - INEXACT
        self.exact += int(good.sum())
        self.places += len(chosen)
        t = torch.zeros_like(logits).index_add_(1, self._to, theirs.div_(exact))
        log_s = torch.log_softmax(logits, dim=1)
        s = log_s.exp()
        if self._direction == "forward":
            kl = (torch.xlogy(t, t) - t * log_s).sum(dim=1)
            gradient = s - t
        else:
            ratio = log_s - t.clamp(min=torch.finfo(t.dtype).tiny).log()
            kl = (s * ratio).sum(dim=1)
            gradient = s * (ratio - kl[:, None])
        return torch.where(good[:, 0], kl, 0.0), torch.where(good, gradient, 0.0)


class ComparedNext:
    """A divergence of next-token predictions, summed over places; a `loss.Term`.

    Parameters
    ----------
    rows
        int64 (places,), ascending: the rows of the logits that are compared.
    compared
        The source's predictions at these places.

    Attributes
    ----------
    value : torch.Tensor
        float64 scalar: the sum so far.
    """

    def __init__(self, rows: torch.Tensor, compared: Compared) -> None:
        self._rows = rows
        self._compared = compared
        self.value = torch.zeros((), dtype=torch.float64, device=rows.device)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`."""
        chosen = torch.nonzero((self._rows >= rows.start) & (self._rows < rows.stop))[:, 0]
        if not len(chosen):
            logits.zero_()
            return logits.new_zeros(())
        here = self._rows[chosen] - rows.start
        kl, gradient = self._compared(logits[here], chosen)
        logits.zero_().index_copy_(0, here, gradient)
        self.value += kl.sum().double()
        return kl.sum()
