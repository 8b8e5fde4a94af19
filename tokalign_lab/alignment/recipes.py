"""Make a lexicon from a text in two tokenisations, by any recipe of `registry.py`.

The papers' algorithm (TokAlign sections 3.1 to 3.3), step by step in `align`:

1. Copy tokens that both vocabularies have, and match special tokens by role (`copies.py`).
2. Learn token vectors from the text in both tokenisations, or from the model, and make them comparable (`spaces.py`).
3. Find the most similar source tokens of every other target token.
4. Copy the row of the best one, or mix several (`mixture.py`). Tokens without a vector get the recipe's fallback
   (`baselines.py`, or a method such as `focus.py`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
from tokalign_lab.alignment.lexicon.rows import LexiconRows, make_reverse, reverse_of
from tokalign_lab.alignment.methods.copies import copied_rows, open_ids, text_tokens_shared
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.spaces import N_CANDIDATES, Space, find_candidates, swapped_space
from tokalign_lab.alignment.registry import RECIPES as RECIPES
from tokalign_lab.alignment.registry import check_recipe
from tokalign_lab.alignment.search.neighbours import Candidates
from tokalign_lab.alignment.search.neighbours import one_to_one as assign
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.files import atomic_folder, holds_only
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

    from tokalign_lab.alignment.methods.inputs import Donor

_ASSIGNMENT_CANDIDATES = 50  # per token in a one-to-one assignment: with ten, many tokens get no source token


@dataclass
class Alignment:
    """A lexicon, its token vectors (None for recipes without vectors), and seconds by step."""

    lexicon: Lexicon
    source_vectors: TokenVectors | None = None
    target_vectors: TokenVectors | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, folder: Path | str) -> None:
        """Write lexicon.parquet, and source.npz and target.npz if there are vectors.

        Raises InputError if the folder has other files.
        """
        with atomic_folder(Path(folder), _is_alignment) as temporary:
            self.lexicon.save(temporary / "lexicon.parquet")
            for name, vectors in (("source", self.source_vectors), ("target", self.target_vectors)):
                if vectors is not None:
                    vectors.save(temporary / f"{name}.npz")

    @classmethod
    def load(cls, folder: Path | str) -> Alignment:
        """Read what `save` wrote; seconds are not stored. Raises InputError if it is missing or damaged."""
        folder = Path(folder)
        vectors = [
            TokenVectors.load(path) if (path := folder / f"{name}.npz").exists() else None
            for name in ("source", "target")
        ]
        return cls(Lexicon.load(folder / "lexicon.parquet"), vectors[0], vectors[1])


def _is_alignment(folder: Path) -> bool:
    return holds_only(folder, "lexicon.parquet", r"lexicon\.parquet|(source|target)\.npz")


def align(
    pair: TokenizedPair,
    recipe: str = "anchored",
    seed: int = 0,
    overlap: str | None = None,
    progress: Progress = silent,
    hidden: NDArray[np.int64] | None = None,
    model: PreTrainedModel | None = None,
    donor: Donor | None = None,
    one_to_one: bool = False,
    vectors: tuple[TokenVectors, TokenVectors] | None = None,
) -> Alignment:
    """Find, for each target token, the source rows that make its new row.

    Raises `InputError` for an unknown recipe or overlap, if the recipe lacks shared tokens, a model or a donor that it
    needs, or if it cannot be one-to-one.

    Parameters
    ----------
    pair
        The text in both tokenisations.
    recipe
        A name of `RECIPES`.
    seed
        Seed of all random choices; the same seed gives the same lexicon, unless GloVe was trained on a GPU.
    overlap
        How shared tokens are found: "bytes", "raw" (as the papers) or "none"; None for the recipe's default.
    progress
        Called at each step with the share that is done.
    hidden
        int64 (n,), held-out target ids: shared tokens that are treated as if they were not shared.
    model
        The source model, for the recipes that need it.
    donor
        A model whose tokenizer is the target, and its vocabulary, for `omp`.
    one_to_one
        Use no source row twice; a token without a source row gets the same fallback as one without a vector.
    vectors
        Vectors of source and target, used instead of training GloVe.

    Returns
    -------
    Alignment
        The lexicon in both directions.
    """
    method = check_recipe(recipe, model, donor, one_to_one, overlap)
    overlap = method.overlap if overlap is None else overlap
    inputs = Inputs(pair, seed, part(progress, 0.0, 0.8), model, donor, vectors)
    source, target = pair.source, pair.target
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    # 1. Tokens that both vocabularies have.
    shared = text_tokens_shared(source, target, overlap, hidden)
    forward, back = copied_rows(pair, shared)
    parameters: dict[str, Any] = {"overlap": overlap, "hidden": 0 if hidden is None else len(hidden)}

    # 2. Vectors that can be compared.
    space = None if method.space is None else method.space(inputs, shared)
    seconds["vectors"] = time.perf_counter() - started

    # 3. Candidates in both directions, and the rows made from them.
    if space is not None:
        started = time.perf_counter()
        progress(0.8, "comparing tokens")
        parameters |= {**space.parameters, "candidates": N_CANDIDATES, "one_to_one": one_to_one}
        found, choice = _search(space, forward, source, target, one_to_one)
        _add_chosen(back, *_search(swapped_space(space), back, target, source, one_to_one))
        seconds["neighbours"] = time.perf_counter() - started
        if method.mix is None:
            _add_chosen(forward, found, choice)
        else:
            parameters |= method.mix(forward, inputs, found)

    # 4. All other rows, and the reverse direction: the best target token of each source token.
    started = time.perf_counter()
    report = part(progress, 0.85, 1.0)
    report(0.0, "making the lexicon")
    parameters |= method.fill(forward, replace(inputs, progress=report))
    if method.two_way:
        method.fill(back, inputs.swapped())
        reverse = make_reverse(back.source_id, back.score, back.origin)
    else:
        reverse = reverse_of(forward, source.size)
    lexicon = _lexicon(pair, forward, reverse, recipe, seed, parameters)
    seconds["lexicon"] = time.perf_counter() - started
    progress(1.0, "aligned")
    if space is None:
        return Alignment(lexicon, seconds=seconds)
    return Alignment(lexicon, space.source, space.target, seconds)


def _search(
    space: Space, rows: LexiconRows, source: Vocabulary, target: Vocabulary, strict: bool
) -> tuple[Candidates, NDArray[np.int64]]:
    """Return the candidates of open tokens, and the index of each token's choice, int64 (n,), -1 for none."""
    queried = open_ids(rows, target)
    queried = queried[~target.is_control[queried]]
    if not strict:
        found = find_candidates(space, queried, source.is_control)
        return found, np.zeros(len(found), np.int64)
    excluded = source.is_control.copy()
    excluded[rows.source_id[rows.source_id >= 0]] = True  # copied rows are used already
    if excluded[space.source.ids].all():
        return Candidates(queried[:0], np.zeros((0, 1), np.int64), np.zeros((0, 1), np.float32)), queried[:0]
    found = find_candidates(space, queried, excluded, _ASSIGNMENT_CANDIDATES)
    return found, assign(found)


def _add_chosen(rows: LexiconRows, found: Candidates, choice: NDArray[np.int64]) -> None:
    """Copy the rows of chosen candidates."""
    for i in np.flatnonzero(choice >= 0).tolist():
        target_id, place = int(found.target_ids[i]), int(choice[i])
        ids, scores = found.candidate_ids[i], found.scores[i]
        rows.candidates(target_id, ids[:N_CANDIDATES], scores[:N_CANDIDATES])
        rows.mix(target_id, [int(ids[place])], [1.0], "aligned")
        if place:  # the best candidate is assigned to another token
            rows.score[target_id] = scores[place]
            rows.margin[target_id] = scores[place] - scores[0]


def _lexicon(
    pair: TokenizedPair, rows: LexiconRows, reverse: pd.DataFrame, recipe: str, seed: int, parameters: dict[str, Any]
) -> Lexicon:
    source, target = pair.source, pair.target
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
    return Lexicon(rows.to_table(source, target, *counts), reverse, provenance)
