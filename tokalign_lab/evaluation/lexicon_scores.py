"""Scores of a lexicon: how well it maps a text from one tokenization to the other.

The target ids of held-out text are mapped to source ids by the lexicon (each to its best source) and compared with the
source ids of the same text; and vice versa with the reverse lexicon.

- **BLEU-1** (TokAlign section 3.2; `eval_matrix.py`): clipped unigram precision times brevity penalty per document,
  unweighted mean. It measures how many tokens are the same.
- **Sentence score**: cosine of the sentence embeddings of both id sequences, decoded by the same tokenizer. The papers
  call it BERTScore; it is not the token-matching score of Zhang et al. 2020. It measures how similar the meaning is.
- **BERTScore** (`encoder.bert_score`): the score of Zhang et al., over the tokens of the same two texts.

A row without a source token (mean, random) counts as lost. Both papers report that the first two correlate with the
first training loss (r2 about 0.93 to 0.95). Each is a mean over documents with n and a bootstrap interval
(`interval`). The packaged encoder was trained on English only (`encoder`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import Corpus, TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.encoder import ENCODER_TOKENS, Encoder, bert_score, load_encoder
from tokalign_lab.evaluation.interval import Interval, of_mean, of_ratio
from tokalign_lab.files import plain
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.vocabulary import Vocabulary

FEWEST_TOKENS = 10  # in both tokenizations, as upstream; shorter documents are left out
MOST_SENTENCES = 200  # embedding is slow; the mean of 200 cosines is accurate to about 0.01
_BATCH = 32  # documents whose token vectors are in memory at a time


@dataclass(frozen=True)
class LexiconScores:
    """Scores of one lexicon on one held-out text.

    Attributes
    ----------
    bleu1 : by direction ("target_to_source", "source_to_target"): mean BLEU-1 of documents, 0 to 1
    sentence_score, bert_score : by direction: mean cosine of sentence embeddings, and mean F1 of BERTScore, -1 to 1;
        None without an encoder
    coverage_types, coverage_text : by origin: share of the target vocabulary without holes, and of the held-out text's
        tokens; each sums to 1
    hubs : for the target tokens that were aligned by vectors: `most_chosen`, the share of them on the three most
        frequent source tokens, and `distinct`, the number of distinct source tokens over that of aligned tokens. None
        if no token was aligned.
    documents, sentences : numbers of documents for BLEU-1, and for sentence score and BERTScore
    intervals : the same means with n and 95 % bounds: "bleu1", "sentence_score", "bert_precision", "bert_recall" and
        "bert_score" by direction, over documents; "coverage_text" by origin, over tokens, with documents resampled
    encoder : name of the encoder
    """

    bleu1: dict[str, float]
    sentence_score: dict[str, float] | None
    bert_score: dict[str, float] | None
    coverage_types: dict[str, float]
    coverage_text: dict[str, float]
    hubs: dict[str, float] | None
    documents: int
    sentences: int
    intervals: dict[str, dict[str, Interval]]
    encoder: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without scores that were not measured."""
        values: dict[str, Any] = plain({name: value for name, value in asdict(self).items() if value is not None})
        return values

    def means(self) -> dict[str, Any]:
        """Return the part for a model card: scores by direction, number of documents and sentences, encoder."""
        kept = ("bleu1", "sentence_score", "bert_score", "documents", "sentences", "encoder")
        return {name: value for name, value in self.to_dict().items() if name in kept}


def score_lexicon(
    lexicon: Lexicon,
    held_out: TokenizedPair,
    encoder: str | None = "minilm",
    max_documents: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> LexiconScores:
    """Score a lexicon on a text that it was not made from.

    Raises `InputError` if the tokenizers are not the lexicon's, or no document has 10 tokens in both tokenizations.

    Parameters
    ----------
    lexicon
        The lexicon.
    held_out
        The text in both tokenizations.
    encoder
        Catalogue name, folder or hub id of a sentence-transformers model; None leaves out sentence score and BERTScore.
    max_documents
        Maximum number of documents, spread evenly over the text; the encoder reads at most 200 of them.
    seed
        Seed of the bootstrap.
    progress
        Called with each step.
    """
    lexicon.check(held_out.source, held_out.target)  # before an encoder is loaded
    reader = load_encoder(encoder) if encoder is not None else None
    measured = document_scores(lexicon, held_out, reader, max_documents, progress)
    progress(1.0, "scored")
    types, text = coverage(lexicon, held_out.target_corpus)
    intervals = {
        measure: {name: of_mean(values, seed) for name, values in by_direction.items()}
        for measure, by_direction in measured.items()
    }
    means = {
        measure: {name: one.mean for name, one in by_direction.items()} for measure, by_direction in intervals.items()
    }
    return LexiconScores(
        bleu1=means["bleu1"],
        sentence_score=means.get("sentence_score"),
        bert_score=means.get("bert_score"),
        coverage_types=types,
        coverage_text={name: interval.mean for name, interval in text.items()},
        hubs=hubs(lexicon),
        documents=len(measured["bleu1"]["target_to_source"]),
        sentences=len(measured["sentence_score"]["target_to_source"]) if encoder is not None else 0,
        intervals={**intervals, "coverage_text": text},
        encoder=encoder,
    )


def document_scores(
    lexicon: Lexicon,
    held_out: TokenizedPair,
    reader: Encoder | None = None,
    max_documents: int = 1000,
    progress: Progress = silent,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Score documents one by one; they are the same for every lexicon of a pair.

    Returns float64 (documents,) by measure (as in `LexiconScores.intervals`), then by direction. Raises `InputError` as
    `score_lexicon`.

    Parameters
    ----------
    lexicon, held_out, max_documents, progress : as for `score_lexicon`
    reader : encoder for sentence score and BERTScore; None leaves them out
    """
    lexicon.check(held_out.source, held_out.target)
    if max_documents < 1:
        raise InputError(f"max_documents is {max_documents}, but scores need at least 1 document.")
    source, target = held_out.source_corpus, held_out.target_corpus
    documents = spread(np.flatnonzero(long_enough(held_out)), max_documents)
    directions = {
        "target_to_source": (lexicon.source_of(), target, source, held_out.source),
        "source_to_target": (lexicon.target_of(), source, target, held_out.target),
    }
    progress(0.0, f"BLEU-1 of {len(documents)} documents")
    measured = {
        "bleu1": {
            name: np.array([bleu1(mapping[written[i]].tolist(), wanted[i].tolist()) for i in documents])
            for name, (mapping, written, wanted, _) in directions.items()
        }
    }
    if reader is not None:
        sentences = spread(documents, MOST_SENTENCES)
        for number, (name, direction) in enumerate(directions.items()):
            report = part(progress, 0.2 + 0.4 * number, 0.6 + 0.4 * number)
            for measure, values in score_texts(reader, *direction, sentences, report).items():
                measured.setdefault(measure, {})[name] = values
    return measured


def long_enough(held_out: TokenizedPair) -> NDArray[np.bool_]:
    """Return a mask of the documents that are long enough to be scored, bool (documents,).

    Raises `InputError` if none has 10 tokens in both tokenizations.
    """
    source, target = held_out.source_corpus, held_out.target_corpus
    enough = np.minimum(np.diff(source.offsets), np.diff(target.offsets)) >= FEWEST_TOKENS
    if not enough.any():
        raise InputError(
            f"No held-out document has {FEWEST_TOKENS} tokens in both tokenizations; give more or longer documents."
        )
    return enough


def bleu1(hypothesis: Sequence[int], reference: Sequence[int]) -> float:
    """Compute BLEU-1 of one document: clipped unigram precision times brevity penalty, 0 to 1, without smoothing.

    A hypothesis token counts at most as often as it is in the reference (Papineni et al. 2002, section 2.1). A
    hypothesis of c tokens that is shorter than the reference's r is scaled by exp(1 - r / c). 0 if either is empty.
    The same figure as `nltk.sentence_bleu([reference], hypothesis, (1, 0, 0, 0))`.
    """
    if not hypothesis or not reference:
        return 0.0
    matched = (Counter(hypothesis) & Counter(reference)).total()
    c, r = len(hypothesis), len(reference)
    penalty = 1.0 if c >= r else float(np.exp(1 - r / c))
    return penalty * matched / c


def coverage(lexicon: Lexicon, target: Corpus) -> tuple[dict[str, float], dict[str, Interval]]:
    """Return the share of target tokens by origin of their row: of the vocabulary without holes, and of a text.

    Origins that do not occur are left out; each dictionary sums to 1. The shares of the text have intervals over
    documents; they are empty for a text without tokens.
    """
    origins = lexicon.table["origin"].to_numpy(dtype=str)
    names, place = np.unique(origins, return_inverse=True)
    tokens = max(1, int((origins != "hole").sum()))
    types = {str(name): float((place == i).sum() / tokens) for i, name in enumerate(names) if name != "hole"}
    if not len(target.ids):
        return types, {}
    uses = np.bincount(target.document_of * len(names) + place[target.ids], minlength=len(target) * len(names))
    by_document = uses.reshape(len(target), len(names))
    shares = of_ratio(by_document, np.repeat(by_document.sum(axis=1)[:, None], len(names), axis=1))
    return types, {str(name): share for name, share in zip(names, shares, strict=True) if name != "hole"}


def hubs(lexicon: Lexicon) -> dict[str, float] | None:
    """Return `LexiconScores.hubs` of a lexicon."""
    chosen = lexicon.source_of()[lexicon.table["origin"].to_numpy(dtype=str) == "aligned"]
    if not len(chosen):
        return None
    times = np.sort(np.unique(chosen, return_counts=True)[1])[::-1]
    return {"most_chosen": float(times[:3].sum() / len(chosen)), "distinct": float(len(times) / len(chosen))}


def spread(documents: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return at most `n` of the documents, evenly spread over the text."""
    if len(documents) <= n:
        return documents
    return documents[np.linspace(0, len(documents) - 1, n).round().astype(np.int64)]


def score_texts(
    encoder: Encoder,
    mapping: NDArray[np.int32],
    written: Corpus,
    wanted: Corpus,
    vocabulary: Vocabulary,
    documents: NDArray[np.int64],
    progress: Progress,
) -> dict[str, NDArray[np.float64]]:
    """Compute sentence score and BERTScore of each document: mapped ids against `wanted`, decoded by `vocabulary`.

    Returns float64 (documents,) by measure.
    """
    rows = np.empty((len(documents), 4))
    by_length = np.argsort([len(wanted[i]) for i in documents], kind="stable")  # a batch is padded to its longest text
    for first in range(0, len(documents), _BATCH):
        progress(first / len(documents), f"reading {len(documents)} documents")
        batch = by_length[first : first + _BATCH]
        mapped = [mapping[written[i][:ENCODER_TOKENS]] for i in documents[batch]]
        ours = encoder.read([vocabulary.decode(ids[ids >= 0]) for ids in mapped])
        theirs = encoder.read_references([vocabulary.decode(wanted[i][:ENCODER_TOKENS]) for i in documents[batch]])
        for place, one, other in zip(batch, ours, theirs, strict=True):
            cosine = min(1.0, float(one.sentence @ other.sentence))
            rows[place] = cosine, *bert_score(one.tokens, other.tokens)
    names = ("sentence_score", "bert_precision", "bert_recall", "bert_score")
    return dict(zip(names, rows.T, strict=True))
