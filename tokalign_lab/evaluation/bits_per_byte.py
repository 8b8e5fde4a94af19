"""Bits per UTF-8 byte: how well a model predicts a text, whatever tokenizer it reads it with.

    bits per byte = sum over tokens of -log2 p(token | what stands before it) / UTF-8 bytes of the text

The sum over the tokens of a text is the cost of the text itself, so two models with different vocabularies can be
compared, which perplexity per token cannot. That holds only where the tokens spell the text. Each byte that they do
not spell (unknown characters, dropped spaces or case; `spelled.py`) costs 8 bits more, as if it were sent as it is, so
that a tokenizer cannot win by leaving out what is hard (docs/decisions/0013).

Every token is scored exactly once. Each document stands alone and is read in windows; a window begins with the
vocabulary's bos (else eos), which is not scored, and a later window repeats the last quarter of the one before as
context, not scored either.

Rows that the model has beyond its tokenizer (padding) take part in the softmax, as they do when it writes: what
probability they take is lost, and counts. `model/rows.py` bounds it for padding of ours.

Logits are made a few rows at a time from the body's output, so that a vocabulary of 262k needs tens of megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import Head
from tokalign_lab.evaluation.spelled import unspelled_bytes
from tokalign_lab.progress import Progress
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS_BYTES = 64_000_000  # of one block of float32 logits
_CONTEXT_SHARE = 0.25
ESCAPE_BITS = 8
"""What a byte costs that the tokens do not spell: itself."""


@dataclass(frozen=True)
class BitsPerByte:
    """The result.

    Attributes
    ----------
    bits_per_byte : float
        Over all documents together.
    bytes, tokens, documents : int
        What was scored; empty documents are not counted.
    by_slice : dict[str, float]
        Bits per byte of each slice ("prose", "code", a language).
    bytes_by_slice : dict[str, int]
        UTF-8 bytes of each slice.
    unspelled_bytes : int
        How many of `bytes` the tokens do not spell; each costs `ESCAPE_BITS`, which the figures above include.
    """

    bits_per_byte: float
    bytes: int
    tokens: int
    documents: int
    by_slice: dict[str, float]
    bytes_by_slice: dict[str, int]
    unspelled_bytes: int

    @property
    def unspelled_share(self) -> float:
        """Share of the text's bytes that the tokens do not spell, 0 to 1."""
        return self.unspelled_bytes / self.bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the share of unspelled bytes included."""
        return {**asdict(self), "unspelled_share": self.unspelled_share}


@dataclass(frozen=True)
class _Window:
    document: int
    ids: np.ndarray[Any, Any]  # prefix, context, then the tokens to score
    scored: int  # how many at the end are scored


def bits_per_byte(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    window: int = 512,
    batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> BitsPerByte:
    """Score documents.

    Parameters
    ----------
    model
        A causal language model that reads `vocabulary`.
    vocabulary
        Its tokenizer.
    documents
        Texts; each is scored by itself. Lone surrogates (invalid UTF-8 that was let through) count as U+FFFD.
    window
        Longest input in tokens, prefix included; no longer than the model has positions.
    batch_tokens
        About how many tokens go through the model at once.
    progress
        Told the share of the tokens that are scored.

    Raises
    ------
    InputError
        When there is no text, the window is shorter than two tokens, or the ids do not fit the model.
    """
    if window < 2:
        raise InputError(f"A window of {window} tokens holds nothing to score; use at least 2.")
    window = _fitting(window, model)
    texts = [_clean(document.text) for document in documents]
    sizes = np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64)
    if not sizes.sum():
        raise InputError("There is no text to score: every document is empty.")
    encoded = vocabulary.encode(texts)
    _check_ids(model, vocabulary, encoded)
    windows = _all_windows(vocabulary, encoded, window)
    nats = np.zeros(len(documents))
    total, done = sum(part.scored for part in windows), 0
    with scoring(model) as score:
        for batch in _batches(windows, batch_tokens):
            for part, value in zip(batch, score(batch), strict=True):
                nats[part.document] += value
                done += part.scored
            if progress is not None:
                progress(done / max(total, 1), "scoring text")
    unspelled = np.array(list(map(unspelled_bytes, repeat(vocabulary), texts, encoded)), dtype=np.int64)
    bits = nats / math.log(2) + ESCAPE_BITS * unspelled
    slices = np.array([document.slice for document in documents])
    present = [name for name in dict.fromkeys(slices.tolist()) if sizes[slices == name].sum()]
    return BitsPerByte(
        bits_per_byte=float(bits.sum() / sizes.sum()),
        bytes=int(sizes.sum()),
        tokens=int(total),
        documents=int((sizes > 0).sum()),
        by_slice={name: float(bits[slices == name].sum() / sizes[slices == name].sum()) for name in present},
        bytes_by_slice={name: int(sizes[slices == name].sum()) for name in present},
        unspelled_bytes=int(unspelled.sum()),
    )


def head_inputs(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    max_tokens: int,
    window: int = 512,
    progress: Progress | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read documents and keep what the head sees before each token, and the token.

    Parameters
    ----------
    model, vocabulary, documents, window, progress
        As for `bits_per_byte`.
    max_tokens
        Windows are read until they hold this many tokens; drawn from all documents, always the same ones.

    Returns
    -------
    states
        float32 (n, d), on the CPU.
    input_ids
        int64 (n,), the token that follows each state in the text.

    Raises
    ------
    InputError
        When there is no text, the ids do not fit the model, or the model does more to its logits than its head does.
    """
    encoded = vocabulary.encode([_clean(document.text) for document in documents])
    _check_ids(model, vocabulary, encoded)
    windows = _all_windows(vocabulary, encoded, _fitting(window, model))
    kept, n = [], 0
    for place in np.random.default_rng(0).permutation(len(windows)):  # documents of a kind stand together
        if n < max_tokens:
            kept.append(windows[place])
            n += windows[place].scored
    states, targets, done = [], [], 0
    with scoring(model) as score:
        if not score.head.in_chunks:
            raise InputError(
                f"A model of type {model.config.model_type!r} changes its logits after the head, so what the head sees "
                "does not tell its predictions; measure it by bits_per_byte."
            )
        for part in kept:
            whole = torch.from_numpy(part.ids).unsqueeze(0).to(score.head.device)
            hidden = score.head.hidden(whole, torch.ones_like(whole))[0]
            states.append(hidden[-part.scored - 1 : -1].float().cpu())
            targets.append(torch.from_numpy(part.ids[-part.scored :]))
            done += part.scored
            if progress is not None:
                progress(done / n, "reading text")
    if not states:
        raise InputError("There is no text to read: every document is empty.")
    return torch.cat(states), torch.cat(targets)


def _prefix(vocabulary: Vocabulary) -> int:
    if vocabulary.start_id is None:
        raise InputError(f"The vocabulary {vocabulary.name} has no special token to begin a text with (bos or eos).")
    return vocabulary.start_id


def _check_ids(model: PreTrainedModel, vocabulary: Vocabulary, encoded: Sequence[np.ndarray[Any, Any]]) -> None:
    rows = int(model.get_input_embeddings().weight.shape[0])
    highest = max((int(ids.max()) for ids in encoded if len(ids)), default=0)
    if max(highest, _prefix(vocabulary)) >= rows:
        raise InputError(
            f"The tokenizer {vocabulary.name} gives id {highest}, but the model has {rows} rows; "
            "they do not belong together."
        )


def _clean(text: str) -> str:
    """Lone surrogates become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _fitting(window: int, model: PreTrainedModel) -> int:
    return min(window, getattr(model.config.get_text_config(), "max_position_embeddings", None) or window)


def _all_windows(vocabulary: Vocabulary, encoded: Sequence[np.ndarray[Any, Any]], window: int) -> list[_Window]:
    prefix = _prefix(vocabulary)
    return [part for number, ids in enumerate(encoded) for part in _windows(number, ids, prefix, window)]


def _windows(document: int, ids: np.ndarray[Any, Any], prefix: int, window: int) -> Iterator[_Window]:
    """Cut a document so that each token is scored once and, after the first window, has context."""
    context = int((window - 1) * _CONTEXT_SHARE)
    start = 0
    while start < len(ids):
        seen_from = max(0, start - context)
        end = min(len(ids), seen_from + window - 1)
        yield _Window(document, np.concatenate([[prefix], ids[seen_from:end]]).astype(np.int64), end - start)
        start = end


def _batches(windows: Sequence[_Window], batch_tokens: int) -> Iterator[list[_Window]]:
    """Windows of like length together, so that little is padded."""
    batch: list[_Window] = []
    for part in sorted(windows, key=lambda item: -len(item.ids)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(part)
    if batch:
        yield batch


@contextmanager
def scoring(model: PreTrainedModel) -> Iterator[Scorer]:
    """Yield a `Scorer` of the model in evaluation mode, without gradients; the mode is put back at the end."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            scorer = Scorer(model)
            yield scorer
    finally:
        model.train(was_training)


class Scorer:
    """Scores batches, making logits in chunks where the model's head allows it, else one short batch at a time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.head = Head(model)

    def __call__(self, batch: Sequence[_Window]) -> list[float]:
        """Return the nats of each window's scored tokens."""
        longest = max(len(part.ids) for part in batch)
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        rows, columns = [], []
        for place, part in enumerate(batch):
            ids[place, : len(part.ids)] = torch.from_numpy(part.ids)
            mask[place, : len(part.ids)] = 1
            rows.append(torch.full((part.scored,), place))
            # the position before a token predicts it
            columns.append(torch.arange(len(part.ids) - part.scored - 1, len(part.ids) - 1))
        row, column = torch.cat(rows), torch.cat(columns)
        device = self.head.device
        targets = ids[row, column + 1].to(device)
        nats = self.nats(ids.to(device), mask.to(device), row.to(device), column.to(device), targets)
        return [float(part.sum()) for part in torch.split(nats, [part.scored for part in batch])]

    def nats(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        row: torch.Tensor,
        column: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Score single tokens.

        Parameters
        ----------
        ids, mask
            int64 (batch, positions): what is read.
        row, column, targets
            int64 (n,): the places after which each target comes, on the device of `ids`.

        Returns
        -------
        torch.Tensor
            float64 (n,), nats, on the CPU.
        """
        head = self.head
        if not head.in_chunks:
            logits = head.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            return cross_entropy(logits[row, column].float(), targets, reduction="none").double().cpu()
        return head.at(ids, mask, lambda hidden: self._in_chunks(hidden[row, column], targets))

    def _in_chunks(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        head = self.head
        chunk = max(1, _LOGITS_BYTES // (4 * int(head.module.weight.shape[0])))
        parts = [
            cross_entropy(head.logits(hidden[start : start + chunk]), targets[start : start + chunk], reduction="none")
            for start in range(0, len(hidden), chunk)
        ]
        return torch.cat(parts).double().cpu()
