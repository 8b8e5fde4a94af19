"""ALM: approximate likelihood matching of the source and the student on chunks of text (arXiv 2503.20083).

A chunk has the tokens of both sides between two positions where both have read the same bytes. With

    a = lT / tau - 1e-6     b = lS / tau - 1e-6     lT, lS: sums of the log probabilities of a chunk's tokens

and tau = `TAU`, the loss is the binary cross entropy of the softened probabilities, summed over chunks here:

    - [ e^a b + (1 - e^a) log(1 - e^b) ]

It is smallest, with a gradient of zero, at lS = lT.

`ChunkLikelihood` is a `loss.Term`: it gets one slice of the logits at a time. The gradient of a chunk's loss in its
logits depends on all tokens of the chunk. The few tokens that are in the next slice are computed ahead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tokalign_lab.cross_tokenizer.source import Reading
from tokalign_lab.evaluation.head import Head

TAU = 5.0
_OFFSET = 1e-6  # keeps the probabilities below 1


@torch.no_grad()
def chunks_of(reading: Reading, head: Head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the source's log probability of each exact chunk of a batch whose tokens both sides predict.

    Returns the student's first and last token of each chunk, int64 (n,), counted through the batch, and lT, float64
    (n,), at most 0.

    Parameters
    ----------
    reading : with `hidden`
    head : the source's
    """
    assert reading.hidden is not None
    labels = reading.input_ids.flatten().roll(-1)  # the next token; wrong at the ends of rows, where it is not used
    log_probs = -head.nats(reading.hidden, labels).double()
    sums = torch.cat([log_probs.new_zeros(1), log_probs.cumsum(0)])
    positions = reading.positions[reading.positions.exact & ~reading.positions.first]
    begin, end = positions.source.unbind(1)
    # the token at position p is predicted at p - 1
    first, last = positions.student.unbind(1)
    return first, last, (sums[end] - sums[begin - 1]).to(first.device).clamp(max=0.0)


def softened_cross_entropy(log_t: torch.Tensor, log_s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ALM's loss of each chunk and its derivative in the student's log probability.

    Parameters
    ----------
    log_t, log_s : float64 (n,): log probabilities of source and student, at most 0
    """
    a, b = log_t / TAU - _OFFSET, log_s.clamp(max=0.0) / TAU - _OFFSET
    rest = torch.log(-torch.expm1(b))  # log(1 - e^b)
    t, not_t = a.exp(), -torch.expm1(a)
    return -(t * b + not_t * rest), -(t - not_t * (b - rest).exp()) / TAU


class ChunkLikelihood:
    """ALM's loss, summed over chunks; a `loss.Term`.

    Parameters
    ----------
    labels : int64 (rows,): the token that each row predicts
    first, last : int64 (n,), ascending: the rows that predict the first and the last token of each chunk
    log_probs : float64 (n,): the source's
    ahead : computes the logits of a slice of the rows, float (n, vocab_size)
    """

    def __init__(
        self,
        labels: torch.Tensor,
        first: torch.Tensor,
        last: torch.Tensor,
        log_probs: torch.Tensor,
        ahead: Callable[[slice], torch.Tensor],
    ) -> None:
        self._labels = labels
        self._first, self._end = first, last + 1
        self._log_t = log_probs
        self._ahead = ahead
        self._tokens = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`; the gradient in a row's logits is dL/dlS times that of the log probability it gives."""
        stop = min(rows.stop, len(self._labels))
        here = slice(rows.start, stop)
        self._measure(logits, here)
        chosen = torch.nonzero((self._first < stop) & (self._end > rows.start))[:, 0]
        if not len(chosen):
            logits.zero_()
            return logits.new_zeros(())
        first, end = self._first[chosen], self._end[chosen]
        need = int(end.max())
        if need > stop:
            beyond = slice(stop, need)
            self._measure(self._ahead(beyond).to(logits.dtype), beyond)
        sums = torch.cat([self._tokens.new_zeros(1), self._tokens[:need].cumsum(0)])
        loss, slope = softened_cross_entropy(self._log_t[chosen], sums[end] - sums[first])
        begun = first >= rows.start  # the others were counted in the slice before
        total = loss[begun].sum()

        # for each row, the slope of the chunk whose token it predicts
        steps = torch.zeros(max(need, stop) + 1, dtype=torch.float64, device=logits.device)
        steps.index_add_(0, first, slope)
        steps.index_add_(0, end, -slope)
        of_token = steps.cumsum(0)[here].to(logits.dtype)
        torch.softmax(logits, dim=1, out=logits)
        logits.mul_(-of_token[:, None])
        logits.scatter_add_(1, self._labels[here, None], of_token[:, None])
        return total.to(logits.dtype)

    def _measure(self, logits: torch.Tensor, rows: slice) -> None:
        """Store the log probabilities of rows."""
        whole = torch.logsumexp(logits, dim=1)
        self._tokens[rows] = (logits.gather(1, self._labels[rows, None])[:, 0] - whole).double()
