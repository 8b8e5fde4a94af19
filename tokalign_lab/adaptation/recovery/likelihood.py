"""ALM: approximate likelihood matching of the source and the student on chunks of text (arXiv 2503.20083).

A chunk has the tokens of both sides between two positions where both have read the same bytes. With

    a = lT / tau - 1e-6     b = lS / tau - 1e-6     lT, lS: sums of the log probabilities of a chunk's tokens

and tau = `TAU`, the loss is the binary cross entropy of the softened probabilities, summed over chunks here:

    - [ e^a b + (1 - e^a) log(1 - e^b) ]

It is smallest, with a gradient of zero, at lS = lT.

Both sides of a chunk have the same bytes, but on one side the next token could continue the same word. Debiasing adds
the log probability that the text continues with white space or a special token after the chunk, on both sides. If the
source's probability of that is below 0.1, the chunk is merged into the next.

`ChunkLikelihood` is a `loss.Term`: it gets one slice of the logits at a time. The gradient of a chunk's loss in its
logits depends on all tokens of the chunk. The few tokens that are in the next slice are computed ahead.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tokalign_lab.cross_tokenizer.source import Reading, SharedPositions
from tokalign_lab.evaluation.head import Head
from tokalign_lab.vocabulary import Vocabulary

TAU = 5.0
_OFFSET = 1e-6  # keeps the probabilities below 1
_CLOSED = 0.1


def opens_word(vocabulary: Vocabulary, rows: int) -> torch.Tensor:
    """Return the ids below `rows` that begin with white space or are special tokens, int64 (n,)."""
    tokens = enumerate(vocabulary.token_bytes[:rows])
    opening = [i for i, token in tokens if token is None or token[:1] in (b" ", b"\t", b"\n")]
    return torch.tensor([i for i in opening if not vocabulary.is_hole[i]], dtype=torch.int64)


@torch.no_grad()
def chunks_of(reading: Reading, head: Head, opening: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute the source's log probability of each exact chunk of a batch whose tokens both sides predict.

    Chunks at the end of a sequence, after which nothing is predicted, are excluded. Returns the student's first and
    last token of each chunk, int64 (n,), counted through the batch, and lT, float64 (n,), at most 0.

    Parameters
    ----------
    reading : with `hidden`
    head : the source's
    opening : the source's `opens_word`
    """
    assert reading.hidden is not None
    hidden, positions, own = reading.hidden, reading.positions, reading.input_ids.shape[1]
    (first, last), (begin, end) = positions.student.unbind(1), positions.source.unbind(1)
    labels = reading.input_ids.flatten().roll(-1)  # the next token; wrong at the ends of rows, where it is not used
    log_probs = -head.nats(hidden, labels).double().to(end.device)
    after = hidden[end.to(hidden.device)]
    opens = head.log_probs_of_any(after, opening.to(hidden.device)).double().to(end.device)
    opener, whole = _merged(positions, opens.exp() >= _CLOSED)
    whole &= (end % own != own - 1) & (last % reading.length != reading.length - 1)
    sums = torch.cat([log_probs.new_zeros(1), log_probs.cumsum(0)])
    # the token at position p is predicted at p - 1
    of_chunk = sums[end] - sums[(begin[opener] - 1).clamp(min=0)] + opens
    return first[opener][whole], last[whole], of_chunk[whole].clamp(max=0.0)


def _merged(positions: SharedPositions, closed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge each chunk that is not closed into the next of its sequence.

    Returns for each chunk the one where its merged chunk begins, int64 (n,), and whether a merged chunk ends with it
    that is exact and has no first token of a text, bool (n,).
    """
    row, closes = positions.row.cpu().numpy(), closed.cpu().numpy()
    usable = (positions.exact & ~positions.first).cpu().numpy()
    begins = np.diff(row, prepend=-1) != 0
    begins[1:] |= closes[:-1]
    merged = np.cumsum(begins) - 1
    whole = np.bincount(merged, weights=~usable) == 0
    device = positions.row.device
    opener = torch.from_numpy(np.flatnonzero(begins)[merged]).to(device)
    return opener, torch.from_numpy(closes & whole[merged]).to(device)


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
    first, last : int64 (n,), ascending: the rows that predict the first and the last token of each chunk; the row after
        `last` has the state of the chunk's last token
    log_probs : float64 (n,): the source's
    ahead : computes the logits of a slice of the rows, float (n, vocab_size)
    opening : the student's `opens_word`
    """

    def __init__(
        self,
        labels: torch.Tensor,
        first: torch.Tensor,
        last: torch.Tensor,
        log_probs: torch.Tensor,
        ahead: Callable[[slice], torch.Tensor],
        opening: torch.Tensor,
    ) -> None:
        self._labels = labels
        self._first, self._end = first, last + 1
        self._log_t = log_probs
        self._ahead = ahead
        self._opening = opening.to(labels.device)
        self._tokens = torch.zeros(len(labels), dtype=torch.float64, device=labels.device)
        self._opens = torch.zeros_like(self._tokens)

    def __call__(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See `loss.Term`; the gradient in a row's logits is dL/dlS times that of the log probabilities it gives."""
        stop = min(rows.stop, len(self._labels))
        here = slice(rows.start, stop)
        opened = self._measure(logits, here)
        chosen = torch.nonzero((self._first < stop) & (self._end >= rows.start))[:, 0]
        if not len(chosen):
            logits.zero_()
            return logits.new_zeros(())
        first, end = self._first[chosen], self._end[chosen]
        need = int(end.max()) + 1
        if need > stop:
            beyond = slice(stop, need)
            self._measure(self._ahead(beyond).to(logits.dtype), beyond)
        sums = torch.cat([self._tokens.new_zeros(1), self._tokens[:need].cumsum(0)])
        log_s = sums[end] - sums[first] + self._opens[end]
        loss, slope = softened_cross_entropy(self._log_t[chosen], log_s)
        begun = first >= rows.start  # the others were counted in the slice before
        total = loss[begun].sum()

        # for each row: the slope of the chunk whose token it predicts, and of the chunk that ends before it
        steps = torch.zeros(max(need, stop) + 1, dtype=torch.float64, device=logits.device)
        closing = steps.clone().index_add_(0, end, slope)[here].to(logits.dtype)
        steps.index_add_(0, first, slope)
        steps.index_add_(0, end, -slope)
        of_token = steps.cumsum(0)[here].to(logits.dtype)
        torch.softmax(logits, dim=1, out=logits)
        logits.mul_(-(of_token + closing)[:, None])
        logits.index_add_(1, self._opening, opened.mul_(closing[:, None]))
        logits.scatter_add_(1, self._labels[here, None], of_token[:, None])
        return total.to(logits.dtype)

    def _measure(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """Store the log probabilities of rows; return the distribution among the opening tokens."""
        whole, opening = logits.logsumexp(dim=1), logits[:, self._opening]
        self._tokens[rows] = (logits.gather(1, self._labels[rows, None])[:, 0] - whole).double()
        self._opens[rows] = (opening.logsumexp(dim=1) - whole).double()
        return opening.softmax(dim=1)
