"""Do vectors and mappings rank as in the papers? First-step loss without tuning, and how well scores predict it.

    python benchmarks/faithfulness.py [--target sp32k] [--bytes 24000] [--out benchmarks/results/faithfulness.jsonl]

This repeats TokAlign++ table 6 on one pair at our scale: SmolLM2-135M, GloVe on a few megabytes of text. As in the
papers, tokens with equal strings are copied, each other target token copies the row of one source token, and a token
without a vector copies a random row; only vectors and mapping change. First-step loss is the mean negative log
likelihood of held-out text under the rearranged model, in nats per target token; bits per byte are shown too. The
papers' figures are for Pythia-1B to Gemma. BLEU-1, sentence score and BERTScore are measured on the same lexicons. r2
is that of a straight line fitted to (score, loss) of these lexicons and of partly shuffled ones, as in TokAlign figure
11.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from harness import report
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tokalign_lab import catalog
from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.rows import reverse_of
from tokalign_lab.alignment.lexicon.shuffle import shuffled
from tokalign_lab.alignment.methods.baselines import permuted
from tokalign_lab.alignment.methods.copies import copied_rows, open_ids, text_tokens_shared
from tokalign_lab.alignment.methods.induction import induce
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.alignment.methods.relative import choose_pivots, relative_vectors
from tokalign_lab.alignment.methods.spaces import Space, find_candidates
from tokalign_lab.alignment.methods.vecmap import normalise, vecmap
from tokalign_lab.alignment.search.neighbours import density
from tokalign_lab.corpus import Corpus, TokenizedPair, tokenize_pair
from tokalign_lab.documents import excerpts, read_documents, split_documents
from tokalign_lab.evaluation.bits_per_byte import bits_per_byte
from tokalign_lab.evaluation.lexicon_scores import score_lexicon
from tokalign_lab.model.load import load_model
from tokalign_lab.model.rearrange import rearrange
from tokalign_lab.vectors import hidden_states as module_of_hidden_states
from tokalign_lab.vectors.glove import glove_vectors
from tokalign_lab.vectors.hidden_states import hidden_state_vectors
from tokalign_lab.vectors.token_vectors import TokenVectors

Sides = tuple[TokenVectors, TokenVectors]
Ids = NDArray[np.int64]
PAPER = {
    "GloVe, cosine": 10.73, "GloVe, CSLS": 7.49, "GloVe, VecMap from identical tokens, CSLS": 4.15,
    "CBOW, VecMap, CSLS": 7.27, "skip-gram, VecMap, CSLS": 4.70,
    "hidden states, max, CSLS": 8.79, "hidden states, mean, CSLS": 8.34, "hidden states, last, CSLS": 6.03,
}  # fmt: skip
SHUFFLED = (0.1, 0.3, 0.6, 1.0)
SCORES = ("bleu1", "sentence_score", "bert_score")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="sp32k")
    parser.add_argument("--train-bytes", type=int, default=6_000_000)
    parser.add_argument("--bytes", type=int, default=24_000)
    parser.add_argument("--score-bytes", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source, target = catalog.load_vocabulary("smollm2-135m"), catalog.load_vocabulary(options.target)
    train, held_out = split_documents(read_documents(["default"], max_bytes=options.train_bytes))
    pair = tokenize_pair(source, target, train)
    scored = tokenize_pair(source, target, excerpts(held_out, options.score_bytes, longest=1000))
    model, passages = load_model("smollm2-135m"), excerpts(held_out, options.bytes)

    def measured(name: str, lexicon: Lexicon) -> dict[str, Any]:
        result = bits_per_byte(rearrange(model, lexicon, source, target, options.seed), target, passages)
        loss = result.bits_per_byte * result.bytes * math.log(2) / result.tokens
        scores = score_lexicon(lexicon, scored).to_dict()
        row = {"lexicon": name, "loss": loss, "bits_per_byte": result.bits_per_byte, "paper": PAPER.get(name)}
        row |= {f"{key} t->s": scores[key]["target_to_source"] for key in SCORES}
        row |= {f"{key} s->t": scores[key]["source_to_target"] for key in SCORES}
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
        return row

    kept = Path("build/faithfulness.jsonl")  # a stopped run continues after its finished measurements
    asked = [options.target, options.train_bytes, options.bytes, options.score_bytes, options.seed]
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    found = {line["lexicon"]: line for line in lines if line.pop("asked") == asked}
    kept.parent.mkdir(exist_ok=True)
    for name, make in lexicons(pair, model, options.seed).items():
        if name not in found:
            found[name] = measured(name, make())
            with open(kept, "a") as file:
                file.write(json.dumps({**found[name], "asked": asked}) + "\n")
    rows = list(found.values())
    fits = [{"score": key, "r2 with loss": r_squared([row[key] for row in rows], [row["loss"] for row in rows]),
             "lexicons": len(rows)} for key in rows[0] if "->" in key]  # fmt: skip
    title = f"SmolLM2-135M -> {options.target}, {pair.source_corpus.n_bytes:,} bytes of text, seed {options.seed}"
    notes = [f"{title}. The papers: BLEU-1 0.93, sentence score 0.95 (t->s), 0.93 (s->t)."]
    tables = [("The papers' order", rows), ("r² of a straight line", fits)]
    report("The papers' order", tables, notes, options.out)


def lexicons(pair: TokenizedPair, model: Any, seed: int) -> dict[str, Callable[[], Lexicon]]:
    """Return for the name of each line a function that makes its lexicon."""
    made = spaces(pair, model, seed)
    best = made["GloVe, VecMap from identical tokens, CSLS"]
    found = {name: partial(lambda space: copies_of_best(pair, space(), seed), space) for name, space in made.items()}
    for share in SHUFFLED:
        found[f"VecMap's, {share:.0%} shuffled"] = partial(
            lambda share: shuffled(copies_of_best(pair, best(), seed), share, seed), share
        )
    return found


def spaces(pair: TokenizedPair, model: Any, seed: int) -> dict[str, Callable[[], Space]]:
    """Return for the name of each space a function that makes it; intermediate results are computed once."""
    shared = text_tokens_shared(pair.source, pair.target, "raw")
    ids = (shared.source_ids, shared.target_ids)
    corpora = ((pair.source_corpus, pair.source.size), (pair.target_corpus, pair.target.size))

    @cache
    def glove() -> Sides:
        return _both([glove_vectors(*corpus, seed=seed) for corpus in corpora])

    @cache
    def word2vec(skip_gram: bool) -> Sides:
        return _both([word2vec_vectors(corpus, skip_gram, seed) for corpus, _ in corpora])

    @cache
    def mapped() -> Space:
        return _csls(vecmap(*glove(), ids, seed))

    @cache
    def relative(scaled: bool) -> Sides:
        pivots = choose_pivots(*glove(), ids, seed=seed)
        return _both([relative_vectors(*side, scaled) for side in zip(glove(), pivots, strict=True)])

    @cache
    def poolings() -> dict[str, Sides]:
        return hidden_states(pair, model)

    return {
        "GloVe, cosine": lambda: Space(*glove(), None, {}),
        "GloVe, CSLS": lambda: _csls(glove()),
        "GloVe, relative, as the script": lambda: Space(*relative(False), None, {}, by_dot_product=True),
        "GloVe, relative, scaled to length 1": lambda: Space(*relative(True), None, {}),
        "GloVe, relative, scaled to length 1, CSLS": lambda: _csls(relative(True)),
        "GloVe, VecMap unsupervised, CSLS": lambda: _csls(vecmap(*glove(), unsupervised_pairs(*glove()), seed)),
        "GloVe, VecMap from identical tokens, CSLS": mapped,
        "CBOW, VecMap, CSLS": lambda: _csls(vecmap(*word2vec(False), ids, seed)),
        "skip-gram, VecMap, CSLS": lambda: _csls(vecmap(*word2vec(True), ids, seed)),
        "hidden states, max, CSLS": lambda: _csls(poolings()["max"]),
        "hidden states, mean, CSLS": lambda: _csls(poolings()["mean"]),
        "hidden states, last, CSLS": lambda: _csls(poolings()["last"]),
    }


def unsupervised_pairs(source: TokenVectors, target: TokenVectors, size: int = 4000) -> tuple[Ids, Ids]:
    """Return source and target ids of VecMap's start without a dictionary (Artetxe et al. 2018, section 3.2).

    The sorted similarities of a word to all words of its language describe the word, so frequent words with similar
    sorted rows of sqrt(X X') are paired.
    """
    size = min(size, len(source), len(target))
    frequent = [np.lexsort((side.ids, -side.counts))[:size] for side in (source, target)]
    described = []
    with threadpool_limits(1, user_api="blas"):
        for side, places in zip((source, target), frequent, strict=True):
            left, strength, _ = np.linalg.svd(normalise(side.rows)[places], full_matrices=False)
            described.append(normalise(np.sort((left * strength) @ left.T, axis=1)))
        found = induce(*described)
    return source.ids[frequent[0][found.source]], target.ids[frequent[1][found.target]]


def word2vec_vectors(corpus: Corpus, skip_gram: bool, seed: int) -> TokenVectors:
    """Train CBOW or skip-gram (Mikolov et al. 2013) on token ids; window, dimensions, minimum count as for GloVe."""
    from gensim.models import Word2Vec

    longest = 10_000  # gensim ignores the words of a sentence after the first 10,000
    texts = (corpus[document].astype(str).tolist() for document in range(len(corpus)))
    sentences = [words[start : start + longest] for words in texts for start in range(0, len(words), longest)]
    trained = Word2Vec(
        sentences, sg=int(skip_gram), vector_size=300, window=15, min_count=5, seed=seed, workers=1, epochs=5
    ).wv
    ids = np.array(trained.index_to_key, dtype=np.int64)
    order = np.argsort(ids)
    counts = trained.expandos["count"][order]
    return TokenVectors(ids[order], trained.vectors[order], counts, corpus.vocabulary_fingerprint)


def hidden_states(pair: TokenizedPair, model: Any) -> dict[str, Sides]:
    """Read every token once, and pool its hidden states in all three ways."""

    def all_poolings(states: torch.Tensor) -> torch.Tensor:
        return torch.cat([states[:, -1], states.mean(1), states.amax(1)], dim=1)

    sides = []
    with patch.object(module_of_hidden_states, "pooled_states", all_poolings):
        for of, corpus in ((pair.source, pair.source_corpus), (pair.target, pair.target_corpus)):
            sides.append(hidden_state_vectors(model, pair.source, of, corpus.counts(of.size), spell=spell))
    parts = [np.split(side.rows, 3, axis=1) for side in sides]
    return {
        name: _both(
            [replace(side, rows=np.ascontiguousarray(part[i])) for side, part in zip(sides, parts, strict=True)]
        )
        for i, name in enumerate(("last", "mean", "max"))
    }


def _both(sides: list[TokenVectors]) -> Sides:
    return sides[0], sides[1]


def _csls(sides: Sides) -> Space:
    return Space(*sides, density(sides[1].rows, sides[0].rows), {})


def copies_of_best(pair: TokenizedPair, space: Space, seed: int) -> Lexicon:
    """Copy shared strings, the best source row for other tokens, and a random row for tokens without a vector."""
    rows, _ = copied_rows(pair, text_tokens_shared(pair.source, pair.target, "raw"))
    found = find_candidates(space, open_ids(rows, pair.target), pair.source.is_control)
    for target_id, ids, scores in zip(found.target_ids.tolist(), found.candidate_ids, found.scores, strict=True):
        rows.mix(target_id, [int(ids[0])], [1.0], "aligned")
        rows.candidates(target_id, ids, scores)
    permuted(rows, Inputs(pair, seed))
    provenance = make_provenance(pair.source, pair.target, recipe="benchmark", parameters={}, seed=seed)
    counts = pair.source_corpus.counts(pair.source.size), pair.target_corpus.counts(pair.target.size)
    table = rows.to_table(pair.source, pair.target, *counts)
    return Lexicon(table, reverse_of(rows, pair.source.size), provenance)


def r_squared(one: list[float], other: list[float]) -> float:
    return float(np.corrcoef(one, other)[0, 1] ** 2)


if __name__ == "__main__":
    main()
