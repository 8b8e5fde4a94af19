"""Bits per UTF-8 byte: how well a model predicts a text, comparable between tokenizers.

    bits per byte = sum over tokens of -log2 p(token | tokens before it) / UTF-8 bytes of the text

The sum over the tokens is the cost of the text itself, so models with different vocabularies can be compared, unlike by
perplexity per token. This is only valid if the tokens spell the text. Each byte that they do not spell (unknown
characters, dropped spaces or case; `spelled.py`) costs 8 bits more, as if it were sent unencoded, so that a tokenizer
gains nothing by dropping text that is hard to predict (docs/decisions/0015).

Each token is scored once. Each document is read separately, in windows. A window begins with bos (else eos); later
windows repeat the last quarter of the previous window as context. Neither is scored. Rows beyond the tokenizer
(padding) are part of the softmax, as in generation, so their probability is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from tokalign_lab.documents import Document
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.head import NO_NUMBERS, Head, check_causal, evaluation_mode, longest_input
from tokalign_lab.evaluation.spelled import unspelled_bytes
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BATCH_TOKENS = 1024  # per forward pass
_CONTEXT_SHARE = 0.25
ESCAPE_BITS = 8
"""Cost of a byte that the tokens do not spell."""


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte of a text.

    Attributes
    ----------
    bits_per_byte : bits per byte of all documents together
    bytes, tokens, documents : amount of scored text, without empty documents
    by_slice : bits per byte of each slice ("prose", "code", a language)
    bytes_by_slice : UTF-8 bytes of each slice
    unspelled_bytes : bytes that the tokens do not spell; each costs `ESCAPE_BITS`, which the figures above include
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
        """Share of bytes that the tokens do not spell, 0 to 1."""
        return self.unspelled_bytes / self.bytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, with the share of unspelled bytes."""
        return {**asdict(self), "unspelled_share": self.unspelled_share}


Ids = Sequence[int] | np.ndarray[Any, Any]
Input = tuple[Ids, Sequence[tuple[int, Ids]]]
"""Ids to read, and the answers to score: the position before each answer's first token, and its tokens."""


@dataclass(frozen=True)
class Window:
    """A part of a document that a model reads at once.

    Attributes
    ----------
    document : index of the document
    ids : int64 (n,): bos, context, then the tokens to score
    scored : number of tokens to score, at the end
    """

    document: int
    ids: np.ndarray[Any, Any]
    scored: int

    @property
    def input(self) -> Input:
        """The ids, and the answer to score: the window's last tokens."""
        return self.ids, [(len(self.ids) - self.scored - 1, self.ids[-self.scored :])]


def bits_per_byte(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    window: int = 512,
    batch_tokens: int = _BATCH_TOKENS,
    progress: Progress = silent,
) -> BitsPerByte:
    """Measure bits per byte of documents.

    Raises `InputError` if there is no text, the window is shorter than two tokens, the vocabulary has neither bos nor
    eos, the ids do not fit the model, or the model is not causal.

    Parameters
    ----------
    model
        A causal language model that reads `vocabulary`.
    vocabulary
        Its tokenizer.
    documents
        Texts, each scored separately. Lone surrogates (invalid UTF-8) count as U+FFFD.
    window
        Maximum tokens of an input, bos included; limited to the model's number of positions.
    batch_tokens
        Approximate number of tokens per forward pass.
    progress
        Called with the share of tokens scored.
    """
    if window < 2:
        raise InputError(f"A window of {window} tokens holds nothing to score; use at least 2.")
    texts = [_clean(document.text) for document in documents]
    sizes = np.array([len(text.encode("utf-8")) for text in texts], dtype=np.int64)
    if not sizes.sum():
        raise InputError("There is no text to score: every document is empty.")
    encoded = vocabulary.encode(texts)
    windows = _all_windows(model, vocabulary, encoded, window)
    nats = np.zeros(len(documents))
    total, done = sum(part.scored for part in windows), 0
    with scoring(model) as score:
        for batch in batches(windows, batch_tokens):
            for part, (value,) in zip(batch, score([part.input for part in batch]), strict=True):
                nats[part.document] += value
                done += part.scored
            progress(done / max(total, 1), "scoring text")
    pairs = zip(texts, encoded, strict=True)
    unspelled = np.array([unspelled_bytes(vocabulary, text, ids) for text, ids in pairs], dtype=np.int64)
    bits = nats / math.log(2) + ESCAPE_BITS * unspelled
    slices = np.array([document.slice for document in documents])
    by_slice = {name: slices == name for name in dict.fromkeys(slices.tolist()) if sizes[slices == name].sum()}
    return BitsPerByte(
        bits_per_byte=float(bits.sum() / sizes.sum()),
        bytes=int(sizes.sum()),
        tokens=int(total),
        documents=int((sizes > 0).sum()),
        by_slice={name: float(bits[here].sum() / sizes[here].sum()) for name, here in by_slice.items()},
        bytes_by_slice={name: int(sizes[here].sum()) for name, here in by_slice.items()},
        unspelled_bytes=int(unspelled.sum()),
    )


def check_number(value: float) -> float:
    """Return a sum of losses; `InputError` if it is NaN or infinite, because the model's predictions are."""
    if not math.isfinite(value):
        raise InputError(NO_NUMBERS)
    return value


def head_inputs(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    documents: Sequence[Document],
    max_tokens: int,
    window: int = 512,
    progress: Progress = silent,
) -> tuple[torch.Tensor, torch.Tensor, list[Window]]:
    """Read documents.

    Returns the head's input before each token, float32 (n, d) on the CPU; the token after it, int64 (n,); and the
    windows that were read, of which these are the scored tokens.

    Raises `InputError` if there is no text, the ids do not fit the model, or the model changes its logits after the
    head.

    Parameters
    ----------
    model, vocabulary, documents, window, progress : as for `bits_per_byte`
    max_tokens : windows are read until they have this many scored tokens. They are sampled from all documents by a
        fixed seed.
    """
    encoded = vocabulary.encode([_clean(document.text) for document in documents])
    windows = _all_windows(model, vocabulary, encoded, window)
    if not windows:
        raise InputError("There is no text to read: every document is empty.")
    order = np.random.default_rng(0).permutation(len(windows))  # adjacent windows have one kind of text
    scored = np.cumsum([windows[place].scored for place in order])
    kept = [windows[place] for place in order[: np.searchsorted(scored, max_tokens) + 1]]
    states: dict[int, torch.Tensor] = {}  # by window, because batches are in another order
    with scoring(model) as score:
        if not score.head.in_chunks:
            raise InputError(
                f"A model of type {model.config.model_type!r} changes its logits after the head, so its predictions "
                "cannot be computed from the head's input; measure it by bits_per_byte."
            )
        for batch in batches(kept, _BATCH_TOKENS):
            hidden = score.head.hidden(*score.padded([part.ids for part in batch]))
            for part, row in zip(batch, hidden, strict=True):
                states[id(part)] = row[len(part.ids) - part.scored - 1 : len(part.ids) - 1].float().cpu()
            progress(len(states) / len(kept), "reading text")
    targets = [torch.from_numpy(part.ids[-part.scored :]) for part in kept]
    return torch.cat([states[id(part)] for part in kept]), torch.cat(targets), kept


def _clean(text: str) -> str:
    """Replace lone surrogates by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _all_windows(
    model: PreTrainedModel, vocabulary: Vocabulary, encoded: Sequence[np.ndarray[Any, Any]], window: int
) -> list[Window]:
    """Check that the ids fit the model, and split documents into windows."""
    start = vocabulary.start_id
    if start is None:
        raise InputError(f"The vocabulary {vocabulary.name} has no special token to begin a text with (bos or eos).")
    rows = int(model.get_input_embeddings().weight.shape[0])
    highest = max((int(ids.max()) for ids in encoded if len(ids)), default=0)
    if max(highest, start) >= rows:
        raise InputError(
            f"The tokenizer {vocabulary.name} gives id {max(highest, start)}, but the model has {rows} rows; "
            "they do not belong together."
        )
    longest = min(window, longest_input(model) or window)
    return [part for number, ids in enumerate(encoded) for part in _windows(number, ids, start, longest)]


def _windows(document: int, ids: np.ndarray[Any, Any], prefix: int, window: int) -> Iterator[Window]:
    """Split a document so that each token is scored once and, after the first window, has context."""
    context = int((window - 1) * _CONTEXT_SHARE)
    start = 0
    while start < len(ids):
        seen_from = max(0, start - context)
        end = min(len(ids), seen_from + window - 1)
        yield Window(document, np.concatenate([[prefix], ids[seen_from:end]]).astype(np.int64), end - start)
        start = end


def batches(inputs: Iterable[Any], batch_tokens: int) -> Iterator[list[Any]]:
    """Yield batches of objects with `ids`, longest first: inputs of similar length need little padding."""
    ordered, start = sorted(inputs, key=lambda one: -len(one.ids)), 0
    while start < len(ordered):
        size = max(1, batch_tokens // len(ordered[start].ids))
        yield ordered[start : start + size]
        start += size


@contextmanager
def scoring(model: PreTrainedModel) -> Iterator[Scorer]:
    """Yield a `Scorer` of the model in evaluation mode, without gradients. Raises `InputError` as `check_causal`."""
    check_causal(model)
    with evaluation_mode(model), torch.inference_mode():
        yield Scorer(model)


class Scorer:
    """Scores tokens; computes logits in chunks if `Head.in_chunks` allows it, else for the whole batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.head = Head(model)

    def __call__(self, batch: Sequence[Input]) -> list[list[float]]:
        """Return, for each input, the loss of each of its answers in nats."""
        rows, columns, targets = [], [], []
        for place, (_, answers) in enumerate(batch):
            for before, tokens in answers:
                rows.append(torch.full((len(tokens),), place))
                columns.append(torch.arange(before, before + len(tokens)))
                targets.append(torch.as_tensor(tokens, dtype=torch.long))
        at = [torch.cat(parts).to(self.head.device) for parts in (rows, columns, targets)]
        nats = self._nats(*self.padded([read for read, _ in batch]), *at).double().cpu()
        sums = iter([float(part.sum()) for part in torch.split(nats, [len(tokens) for tokens in targets])])
        return [[next(sums) for _ in answers] for _, answers in batch]

    def padded(self, inputs: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and attention mask of a batch, int64 (batch, longest)."""
        ids = torch.zeros((len(inputs), max(map(len, inputs))), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, read in enumerate(inputs):
            ids[place, : len(read)] = torch.as_tensor(read)
            mask[place, : len(read)] = 1
        return ids.to(self.head.device), mask.to(self.head.device)

    def _nats(
        self, ids: torch.Tensor, mask: torch.Tensor, row: torch.Tensor, column: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of `targets` in nats, each predicted at (row, column)."""
        head = self.head
        if not head.in_chunks:
            logits = head.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            return cross_entropy(logits[row, column].float(), targets, reduction="none")
        return head.at(ids, mask, lambda hidden: head.nats(hidden[row, column], targets))
