"""How well a lexicon carries text from one vocabulary to the other, before any model is touched.

A held-out text stands in both tokenisations. Map its target ids to source ids by the lexicon (each to its single best
source) and compare with the source's own ids of the same text; and the other way round with the reverse lexicon.

- **BLEU-1** (TokAlign section 3.2; `eval_matrix.py`): clipped unigram precision times brevity penalty, a document at
  a time, plain mean. It asks whether the same tokens come out.
- **Sentence score**: the cosine between sentence embeddings of both id sequences decoded by the same tokenizer. The
  papers call it BERTScore; it is not the token-matching score of Zhang et al. 2020, so it has its own name here. It
  asks whether the same meaning comes out.

Neither counts a row that rests on no single token (mean, random) as anything but lost. Both papers report that the
two fall in step with the first training loss (r2 about 0.93 to 0.95).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon
from tokalign_lab.corpus import Corpus, TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress
from tokalign_lab.vocabulary import Vocabulary

FEWEST_TOKENS = 10  # in both tokenisations, as upstream: shorter documents say little
MOST_SENTENCES = 200  # embedding is slow; the mean of 200 cosines is known to about 0.01
_ENCODER_TOKENS = 512  # no sentence encoder of ours reads further


@dataclass(frozen=True)
class LexiconScores:
    """Scores of one lexicon on one held-out text; each in both directions.

    Parameters
    ----------
    bleu1
        By direction ("target_to_source", "source_to_target"): mean BLEU-1 of documents, 0 to 1.
    sentence_score
        By direction: mean cosine of sentence embeddings, -1 to 1; None if no encoder was given.
    coverage_types
        By origin: share of the target vocabulary's tokens, holes left out. Sums to 1.
    coverage_text
        By origin: share of the held-out text's target tokens. Sums to 1.
    hubs
        Of the target tokens that vectors aligned: `most_chosen`, the share that the three most chosen source tokens
        take, and `distinct`, the number of different source tokens over the number of aligned tokens.
    documents, sentences
        Numbers of documents that BLEU-1 and the sentence score were taken on.
    """

    bleu1: dict[str, float]
    sentence_score: dict[str, float] | None
    coverage_types: dict[str, float]
    coverage_text: dict[str, float]
    hubs: dict[str, float] | None
    documents: int
    sentences: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what was not measured is left out."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value is not None}


def score_lexicon(
    lexicon: Lexicon,
    held_out: TokenizedPair,
    encoder: str | None = "minilm",
    max_documents: int = 1000,
    progress: Progress | None = None,
) -> LexiconScores:
    """Score a lexicon on a text that it was not made from.

    Parameters
    ----------
    lexicon
        The lexicon.
    held_out
        The text in both tokenisations, by the tokenizers that the lexicon was made for.
    encoder
        Catalogue name, folder or hub id of a sentence-transformers model; None leaves the sentence score out.
    max_documents
        Documents that are scored, spread evenly over the text; of these, 200 for the sentence score.
    progress
        Told about each step.

    Raises
    ------
    InputError
        If the tokenizers are not the lexicon's, or no document has 10 tokens in both tokenisations.
    """
    lexicon.check(held_out.source, held_out.target)
    source, target = held_out.source_corpus, held_out.target_corpus
    long_enough = np.minimum(np.diff(source.offsets), np.diff(target.offsets)) >= FEWEST_TOKENS
    documents = _spread(np.flatnonzero(long_enough), max_documents)
    if not len(documents):
        raise InputError(
            f"No held-out document has {FEWEST_TOKENS} tokens in both tokenisations; give more or longer documents."
        )
    directions = {
        "target_to_source": (lexicon.source_of(), target, source, held_out.source),
        "source_to_target": (lexicon.target_of(), source, target, held_out.target),
    }
    if progress is not None:
        progress(0.0, f"BLEU-1 of {len(documents)} documents")
    bleu = {
        name: float(np.mean([bleu1(mapping[written[i]].tolist(), wanted[i].tolist()) for i in documents]))
        for name, (mapping, written, wanted, _) in directions.items()
    }
    sentences = _spread(documents, MOST_SENTENCES)
    scores = None
    if encoder is not None:
        if progress is not None:
            progress(0.2, f"embedding {len(sentences)} documents")
        embed = _encoder(encoder)
        scores = {
            name: _sentence_score(embed, *direction, documents=sentences) for name, direction in directions.items()
        }
    if progress is not None:
        progress(1.0, "scored")
    types, text = coverage(lexicon, target)
    return LexiconScores(
        bleu1=bleu,
        sentence_score=scores,
        coverage_types=types,
        coverage_text=text,
        hubs=hubs(lexicon),
        documents=len(documents),
        sentences=len(sentences) if encoder is not None else 0,
    )


def bleu1(hypothesis: Sequence[int], reference: Sequence[int]) -> float:
    """BLEU-1 of one document: clipped unigram precision times brevity penalty, 0 to 1, without smoothing.

    Each hypothesis token counts as often as the reference has it at most (Papineni et al. 2002, section 2.1); a
    hypothesis of c tokens shorter than the reference's r is scaled by exp(1 - r / c). 0 if either is empty. The same
    figure as `nltk.sentence_bleu([reference], hypothesis, (1, 0, 0, 0))`.
    """
    if not hypothesis or not reference:
        return 0.0
    matched = (Counter(hypothesis) & Counter(reference)).total()
    c, r = len(hypothesis), len(reference)
    penalty = 1.0 if c >= r else float(np.exp(1 - r / c))
    return penalty * matched / c


def coverage(lexicon: Lexicon, target: Corpus) -> tuple[dict[str, float], dict[str, float]]:
    """Share of target tokens by the origin of their row: of the vocabulary without holes, and of a text.

    Origins that do not occur are left out; each dictionary sums to 1.
    """
    origins = lexicon.table["origin"].to_numpy(dtype=object)
    counts = target.counts(len(lexicon))
    tokens, uses = int((origins != "hole").sum()), int(counts.sum())
    types, text = {}, {}
    for origin in sorted(set(origins.tolist()) - {"hole"}):
        here = origins == origin
        types[origin] = float(here.sum() / max(1, tokens))
        text[origin] = float(counts[here].sum() / max(1, uses))
    return types, text


def hubs(lexicon: Lexicon) -> dict[str, float] | None:
    """How evenly aligned target tokens spread over source tokens; None if none is aligned."""
    chosen = lexicon.source_of()[lexicon.table["origin"].to_numpy(dtype=str) == "aligned"]
    if not len(chosen):
        return None
    times = np.sort(np.unique(chosen, return_counts=True)[1])[::-1]
    return {"most_chosen": float(times[:3].sum() / len(chosen)), "distinct": float(len(times) / len(chosen))}


def _spread(documents: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """At most `n` of the documents, evenly spread, so that every part of the text is heard."""
    if len(documents) <= n:
        return documents
    return documents[np.linspace(0, len(documents) - 1, n).round().astype(np.int64)]


def _encoder(name: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    from tokalign_lab import catalog

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(catalog.encoder_folder(name), device=device)
    return lambda texts: model.encode(
        texts, batch_size=32, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )


def _sentence_score(
    embed: Any,
    mapping: NDArray[np.int32],
    written: Corpus,
    wanted: Corpus,
    vocabulary: Vocabulary,
    documents: NDArray[np.int64],
) -> float:
    """Mean cosine between the embeddings of mapped and wanted ids, both decoded by `vocabulary`."""
    mapped = [mapping[written[i][:_ENCODER_TOKENS]] for i in documents]
    ours = embed([vocabulary.decode(ids[ids >= 0]) for ids in mapped])
    theirs = embed([vocabulary.decode(wanted[i][:_ENCODER_TOKENS]) for i in documents])
    return float(np.mean(np.sum(ours * theirs, axis=1)))
