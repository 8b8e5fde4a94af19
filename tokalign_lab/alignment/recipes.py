"""From a text in two tokenisations to a lexicon, by one of five recipes.

The papers' algorithm (TokAlign sections 3.1 to 3.3), read top to bottom in `align`:

1. Tokens that both vocabularies have are copied; special tokens are matched by role.
2. Token vectors are learned from the text in either tokenisation and made comparable.
3. Each other target token looks for its most similar source tokens.
4. What has no vector falls back on its source pieces; what has no bytes, on the mean row.

`tokalign` is the paper with relative representations: its row is the row of the best source token. `anchored` takes
vectors that are comparable from the start (`vectors/anchored.py`) and mixes its rows: a quarter from ten CSLS
candidates, weighted by softmax, three quarters from the pieces that spell the token; the mixture beats either alone in
bits per byte (`benchmarks/anchored_mix.py`). The other three are what both must beat.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon, LexiconRows, make_provenance, make_reverse
from tokalign_lab.alignment.neighbours import Candidates
from tokalign_lab.alignment.pieces import spell
from tokalign_lab.alignment.spaces import N_CANDIDATES, Space, find_candidates, make_space, turned_space
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.files import atomic_folder
from tokalign_lab.progress import Progress, part
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import SharedTokens, Vocabulary, shared_roles, shared_tokens

RECIPES = {
    "anchored": "PMI vectors over shared tokens; ten CSLS candidates mixed with the token's source pieces (our best)",
    "tokalign": "GloVe and relative representations over 300 shared pivots; a copy of the best source row (the paper)",
    "pieces": "the mean of the source tokens that spell the token; needs no vectors",
    "mean": "the mean of all source rows for every token that is not shared",
    "random": "a random row for every token that is not shared",
}
PIECES_SHARE = 0.75  # of an anchored row; see docs/decisions/0005
TEMPERATURE = 0.1  # of the softmax over CSLS scores


@dataclass
class Alignment:
    """A lexicon, the vectors it was found with (None for recipes without), and seconds by step."""

    lexicon: Lexicon
    source_vectors: TokenVectors | None = None
    target_vectors: TokenVectors | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, folder: Path | str) -> None:
        """Write lexicon.parquet, and source.npz and target.npz where there are vectors."""
        with atomic_folder(Path(folder)) as temporary:
            self.lexicon.save(temporary / "lexicon.parquet")
            for name, vectors in (("source", self.source_vectors), ("target", self.target_vectors)):
                if vectors is not None:
                    vectors.save(temporary / f"{name}.npz")

    @classmethod
    def load(cls, folder: Path | str) -> Alignment:
        """Read what `save` wrote; seconds are not kept."""
        folder = Path(folder)
        vectors = [
            TokenVectors.load(path) if (path := folder / f"{name}.npz").exists() else None
            for name in ("source", "target")
        ]
        return cls(Lexicon.load(folder / "lexicon.parquet"), vectors[0], vectors[1])


def align(
    pair: TokenizedPair,
    recipe: str = "anchored",
    seed: int = 0,
    overlap: str = "bytes",
    progress: Progress | None = None,
    hidden: NDArray[np.int64] | None = None,
) -> Alignment:
    """Find for each target token what its new row is made of.

    Parameters
    ----------
    pair
        The text in both tokenisations.
    recipe
        A name of `RECIPES`.
    seed
        Of GloVe, pivots and the SVD; the same seed gives the same lexicon.
    overlap
        How shared tokens are found: "bytes", "raw" (as the paper) or "none".
    progress
        Told about each step.
    hidden
        int64, target ids of shared tokens to treat as if they were not shared.

    Returns
    -------
    Alignment
        The lexicon in both directions.

    Raises
    ------
    InputError
        For an unknown recipe or overlap, or if the recipe needs shared tokens and there are none.
    """
    check_recipe(recipe)
    source, target = pair.source, pair.target
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    # 1. What both vocabularies have.
    shared = text_tokens_shared(source, target, overlap, hidden)
    roles = shared_roles(source, target)
    forward = _copied(target, shared.target_ids, shared.source_ids, roles)
    back = _copied(source, *_turned(pair, shared), shared_roles(target, source))

    # 2. Vectors that can be compared.
    space = make_space(pair, recipe, shared, seed, part(progress, 0.0, 0.8))
    seconds["vectors"] = time.perf_counter() - started

    # 3. Candidates, in both directions.
    started = time.perf_counter()
    if space is not None:
        if progress is not None:
            progress(0.8, "comparing tokens")
        found = find_candidates(space, _open_ids(forward, target), source.is_control)
        found_back = find_candidates(turned_space(space), _open_ids(back, source), target.is_control, k=1)
        seconds["neighbours"] = time.perf_counter() - started

    # 4. Rows.
    started = time.perf_counter()
    if progress is not None:
        progress(0.9, "making the lexicon")
    if space is not None:
        _add_aligned(forward, found, source, target, mixed=recipe == "anchored")
        _add_aligned(back, found_back, target, source, mixed=False)
    _add_rest(forward, source, target, recipe)
    _add_rest(back, target, source, recipe)
    lexicon = _lexicon(pair, forward, back, recipe, seed, overlap, hidden, space)
    seconds["lexicon"] = time.perf_counter() - started
    if progress is not None:
        progress(1.0, "aligned")
    if space is None:
        return Alignment(lexicon, seconds=seconds)
    return Alignment(lexicon, space.source, space.target, seconds)


def check_recipe(recipe: str) -> None:
    """Raise InputError unless `recipe` is one of `RECIPES`."""
    if recipe not in RECIPES:
        raise InputError(f"There is no recipe '{recipe}'; choose one of {', '.join(RECIPES)}.")


def text_tokens_shared(
    source: Vocabulary, target: Vocabulary, overlap: str, hidden: NDArray[np.int64] | None = None
) -> SharedTokens:
    """Shared tokens without special ones, which are matched by role, and without the hidden ones."""
    shared = shared_tokens(source, target, by=overlap)
    kept = ~(target.is_control[shared.target_ids] | source.is_control[shared.source_ids])
    if hidden is not None:
        kept &= ~np.isin(shared.target_ids, hidden)
    return SharedTokens(source_ids=shared.source_ids[kept], target_ids=shared.target_ids[kept])


def _turned(pair: TokenizedPair, shared: SharedTokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shared tokens seen from the source: each source id once, with the target id that the text uses most."""
    counts = pair.target_corpus.counts(pair.target.size)[shared.target_ids]
    order = np.lexsort((shared.target_ids, -counts, shared.source_ids))
    source_ids, first = np.unique(shared.source_ids[order], return_index=True)
    return source_ids, shared.target_ids[order][first]


def _copied(
    vocabulary: Vocabulary, ids: NDArray[np.int64], from_ids: NDArray[np.int64], roles: dict[int, int]
) -> LexiconRows:
    """Step 1: rows of shared and special tokens; the others are still holes."""
    rows = LexiconRows(vocabulary.size)
    for token, other in zip(ids.tolist(), from_ids.tolist(), strict=True):
        rows.copy(token, other, "identical")
    for token, other in roles.items():
        rows.copy(token, other, "role")
    return rows


def _open_ids(rows: LexiconRows, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Tokens that are neither copied nor special nor holes."""
    return np.flatnonzero((rows.origin == "hole") & ~vocabulary.is_hole & ~vocabulary.is_control)


def _add_aligned(rows: LexiconRows, found: Candidates, source: Vocabulary, target: Vocabulary, mixed: bool) -> None:
    """Step 4 for tokens with a vector: a copy of the best candidate, or the mixture of candidates and pieces."""
    tokens = [target.token_bytes[i] or b"" for i in found.target_ids]
    spelled = spell(source, tokens) if mixed else [[] for _ in tokens]
    for i, target_id in enumerate(found.target_ids.tolist()):
        ids, scores, pieces = found.candidate_ids[i], found.scores[i], spelled[i]
        if mixed:
            share = PIECES_SHARE if pieces else 0.0
            weights = (1 - share) * _softmax(scores / TEMPERATURE)
            piece_weights = [share / len(pieces)] * len(pieces)
            rows.mix(target_id, [*ids, *pieces], [*weights, *piece_weights], "aligned")
        else:
            rows.mix(target_id, [int(ids[0])], [1.0], "aligned")
        rows.candidates(target_id, ids, scores)


def _add_rest(rows: LexiconRows, source: Vocabulary, target: Vocabulary, recipe: str) -> None:
    """Step 4 for the others: pieces (or what a baseline prescribes); the mean row for what has no bytes."""
    left = np.flatnonzero((rows.origin == "hole") & ~target.is_hole)
    if recipe in ("mean", "random"):
        rows.fill(left, recipe)
        return
    spelled = spell(source, [target.token_bytes[i] or b"" for i in left])
    for target_id, pieces in zip(left.tolist(), spelled, strict=True):
        if not pieces:
            rows.fill(np.array([target_id]), "mean")
            continue
        rows.mix(target_id, pieces, [1.0] * len(pieces), "pieces")
        # One source token has to stand for the word in lists and scores: the piece that spells most of it.
        rows.source_id[target_id] = max(pieces, key=lambda piece: len(source.token_bytes[piece] or b""))


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(scores.astype(np.float64) - float(scores.max()))
    return powers / powers.sum()


def _lexicon(
    pair: TokenizedPair,
    forward: LexiconRows,
    back: LexiconRows,
    recipe: str,
    seed: int,
    overlap: str,
    hidden: NDArray[np.int64] | None,
    space: Space | None,
) -> Lexicon:
    source, target = pair.source, pair.target
    parameters: dict[str, Any] = {"overlap": overlap, "hidden": 0 if hidden is None else len(hidden)}
    if space is not None:
        parameters |= {**space.parameters, "candidates": N_CANDIDATES}
    if recipe == "anchored":
        parameters |= {"pieces_share": PIECES_SHARE, "temperature": TEMPERATURE}
    provenance = make_provenance(
        source,
        target,
        recipe=recipe,
        parameters=parameters,
        seed=seed,
        text_hash=pair.source_corpus.text_hash,
        text_bytes=pair.source_corpus.n_bytes,
    )
    counts = pair.source_corpus.counts(source.size), pair.target_corpus.counts(target.size)
    reverse = make_reverse(back.source_id, back.score, back.origin)
    return Lexicon(forward.to_table(source, target, *counts), reverse, provenance)
