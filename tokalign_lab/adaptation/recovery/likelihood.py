"""ALM: approximate likelihood matching of the source and the student on chunks of text (arXiv 2503.20083).

A chunk has the tokens of both sides between two positions where both have read the same bytes. With

    a = lT / tau - 1e-6     b = lS / tau - 1e-6     lT, lS: sums of the log probabilities of a chunk's tokens

the loss is the binary cross entropy of the softened probabilities, summed over chunks here:

    - [ e^a b + (1 - e^a) log(1 - e^b) ]

It is smallest, with a gradient of zero, at lS = lT.

Both sides of a chunk have the same bytes, but on one side the next token could continue the same word. Debiasing adds
the log probability that the text continues with a white-space byte or a special token after the chunk, on both sides.
If the source's probability of that is below 0.1, the chunk is merged into the next.

`ChunkLikelihood` is a `loss.Term`: it gets one slice of the logits at a time. The gradient of a chunk's loss in its
logits depends on all tokens of the chunk. The few tokens that are in the next slice are computed ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tokalign_lab.cross_tokenizer.source import Reading
from tokalign_lab.cross_tokenizer.tensor_table import TensorTable
from tokalign_lab.evaluation.head import Head, capped_logits
from tokalign_lab.vocabulary import Vocabulary

_OFFSET = 1e-6  # keeps the probabilities below 1
_CLOSED = 0.1
_LOGITS_BYTES = {"cpu": 1 << 26, "cuda": 1 << 29}


def opens_word(vocabulary: Vocabulary, rows: int) -> torch.Tensor:
    """Return the ids below `rows` that begin with white space or are special tokens, int64 (n,)."""
    ids = [
        i
        for i, token in enumerate(vocabulary.token_bytes[:rows])
        if not vocabulary.is_hole[i] and (token is None or token[:1] in (b" ", b"\t", b"\n"))
    ]
    return torch.tensor(ids, dtype=torch.int64)


@dataclass(frozen=True)
class Chunks(TensorTable):
    """Chunks with the source's log probability of each.

    Attributes
    ----------
    first, last : int64 (n,): the student's first and last token of each, counted through the batch
    log_probs : float64 (n,): lT, at most 0
    """

    first: torch.Tensor
    last: torch.Tensor
    log_probs: torch.Tensor


@torch.no_grad()
def chunks_of(reading: Reading, head: Head, opening: torch.Tensor | None = None) -> Chunks:
    """Compute the source's log probability of each chunk of a batch.

    Parameters
    ----------
    reading : with `hidden`
    head : the source's
    opening : the source's `opens_word` if chunks are debiased; chunks at the end of a sequence, after which nothing is
        predicted, are then excluded

    Returns
    -------
    Chunks
        Exact chunks whose tokens both sides predict.
    """
    assert reading.hidden is not None
    own = reading.input_ids.shape[1]
    labels = reading.input_ids.flatten().roll(-1)  # the next token; wrong at the ends of rows, where it is not used
    tokens, opens = _log_probs(reading.hidden, head, labels, opening)
    positions = reading.positions
    first, last = positions.student[:, 0].clone(), positions.student[:, 1]
    begin, end = positions.source[:, 0].clone(), positions.source[:, 1]
    keep = positions.exact & ~positions.first
    if opening is not None:
        first, begin, keep = _merged(positions.row, first, begin, keep, opens[end].exp() >= _CLOSED)
        keep &= (end % own != own - 1) & (last % reading.length != reading.length - 1)
    sums = torch.cat([tokens.new_zeros(1), tokens.cumsum(0)])
    # the token at position p is predicted at p - 1
    log_probs = sums[end] - sums[(begin - 1).clamp(min=0)]
    if opening is not None:
        log_probs = log_probs + opens[end]
    device = positions.row.device
    return Chunks(first[keep], last[keep], log_probs.to(device)[keep].clamp(max=0.0))


def _merged(
    row: torch.Tensor, first: torch.Tensor, begin: torch.Tensor, keep: torch.Tensor, closed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Merge each chunk that is not closed into the next of its sequence; returns first, begin and keep."""
    rows, closes = row.cpu().numpy(), closed.cpu().numpy()
    good = keep.cpu().numpy()
    new_row = np.diff(rows, prepend=-1) != 0
    starts = new_row | np.concatenate([[True], closes[:-1]]) if len(rows) else new_row
    group = np.cumsum(starts) - 1  # a merged chunk each
    opener = np.flatnonzero(starts)[group] if len(rows) else group
    bad = np.bincount(group, weights=~good) > 0 if len(rows) else new_row
    merged = torch.from_numpy(closes & ~bad[group]).to(keep.device)
    chosen = torch.from_numpy(opener).to(first.device)
    return first[chosen], begin[chosen], merged


def _log_probs(
    hidden: torch.Tensor, head: Head, labels: torch.Tensor, opening: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log probability of each label and of all of `opening`, float64 (n,), a few rows at a time."""
    weight = head.module.weight
    size = max(1, _LOGITS_BYTES.get(hidden.device.type, 1 << 26) // (4 * len(weight)))
    parts = []
    for start in range(0, len(hidden), size):
        logits = head.logits(hidden[start : start + size])
        whole = torch.logsumexp(logits, dim=1)
        token = logits.gather(1, labels[start : start + size, None])[:, 0] - whole
        opens = token if opening is None else torch.logsumexp(logits[:, opening.to(logits.device)], dim=1) - whole
        parts.append((token.double(), opens.double()))
    tokens, opened = (torch.cat(column) for column in zip(*parts, strict=True))
    return tokens, opened


def softened_cross_entropy(log_t: torch.Tensor, log_s: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ALM's loss of each chunk and its derivative in the student's log probability.

    Parameters
    ----------
    log_t, log_s : float64 (n,): log probabilities of source and student, at most 0
    tau : the temperature
    """
    a, b = log_t / tau - _OFFSET, log_s.clamp(max=0.0) / tau - _OFFSET
    rest = torch.log(-torch.expm1(b))  # log(1 - e^b)
    t, not_t = a.exp(), -torch.expm1(a)
    return -(t * b + not_t * rest), -(t - not_t * (b - rest).exp()) / tau


class ChunkLikelihood:
    """ALM's loss, summed over chunks; a `loss.Term`.

    Parameters
    ----------
    labels : int64 (rows,): the token that each row predicts
    first, last : int64 (n,), ascending: the rows that predict the first and the last token of each chunk
    log_probs : float64 (n,): the source's
    tau : the temperature
    ahead : computes the logits of a slice of the rows, float (n, vocab_size)
    opening : the student's `opens_word` if chunks are debiased; then the row after `last` must be the state of the
        chunk's last token
    """

    def __init__(
        self,
        labels: torch.Tensor,
        first: torch.Tensor,
        last: torch.Tensor,
        log_probs: torch.Tensor,
        tau: float,
        ahead: Callable[[slice], torch.Tensor],
        opening: torch.Tensor | None = None,
    ) -> None:
        self._labels = labels
        self._first, self._last = first, last
        self._end = last + 1 if opening is None else last + 2  # one past the last row that is used
        self._log_t = log_probs
        self._tau = tau
        self._ahead = ahead
        self._opening = None if opening is None else opening.to(labels.device)
        self._tokens = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
        self._opens = torch.zeros_like(self._tokens)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`; the gradient in a row's logits is dL/dlS times that of the log probabilities it gives."""
        stop = min(rows.stop, len(self._labels))
        here = slice(rows.start, stop)
        opened = self._measure(logits, here)
        chosen = torch.nonzero((self._first < stop) & (self._end > rows.start))[:, 0]
        if not len(chosen):
            logits.zero_()
            return logits.new_zeros(())
        first, last, end = self._first[chosen], self._last[chosen], self._end[chosen]
        need = int(end.max())
        if need > stop:
            beyond = slice(stop, need)
            self._measure(self._ahead(beyond).to(logits.dtype), beyond)
        sums = torch.cat([self._tokens.new_zeros(1), self._tokens[:need].cumsum(0)])
        log_s = sums[last + 1] - sums[first]
        if self._opening is not None:
            log_s = log_s + self._opens[last + 1]
        loss, slope = softened_cross_entropy(self._log_t[chosen], log_s, self._tau)
        begun = first >= rows.start  # the others were counted in the slice before
        total = loss[begun].sum()

        # for each row: the slope of the chunk whose token it predicts, and of the chunk that ends before it
        steps = torch.zeros(need + 2, dtype=torch.float64, device=logits.device)
        steps.index_add_(0, first, slope)
        steps.index_add_(0, last + 1, -slope)
        of_token = steps.cumsum(0)[here].to(logits.dtype)
        torch.softmax(logits, dim=1, out=logits)
        if self._opening is None or opened is None:
            logits.mul_(-of_token[:, None])
        else:
            of_end = torch.zeros(need + 2, dtype=torch.float64, device=logits.device)
            of_end.index_add_(0, last + 1, slope)
            closing = of_end[here].to(logits.dtype)
            logits.mul_(-(of_token + closing)[:, None])
            logits.index_add_(1, self._opening, opened.mul_(closing[:, None]))
        logits.scatter_add_(1, self._labels[here, None], of_token[:, None])
        return total.to(logits.dtype)

    def _measure(self, logits: torch.Tensor, rows: slice) -> torch.Tensor | None:
        """Store the log probabilities of rows; returns the distribution among the opening tokens."""
        whole = torch.logsumexp(logits, dim=1)
        self._tokens[rows] = (logits.gather(1, self._labels[rows, None])[:, 0] - whole).double()
        if self._opening is None:
            return None
        opening = logits[:, self._opening]
        self._opens[rows] = (torch.logsumexp(opening, dim=1) - whole).double()
        return torch.softmax(opening, dim=1)


def logits_ahead(hidden: torch.Tensor, head: Head) -> Callable[[slice], torch.Tensor]:
    """Return what computes a student's logits of a slice of `hidden` (rows, d), without a graph."""
    weight, bias = head.module.weight.detach(), getattr(head.module, "bias", None)
    states = hidden.detach()
    return lambda rows: capped_logits(states[rows].to(weight.dtype), weight, bias, head.cap)
