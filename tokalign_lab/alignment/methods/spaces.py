"""Vectors of two vocabularies that can be compared with each other, and the search in them.

The methods, from the papers' first one to ours:

- `glove`: two GloVe spaces, trained separately and compared directly, although they are unrelated (TokAlign).
- `relative`: each token by its cosines to 300 shared pivots, compared by dot product as in upstream's script
  (`relative.py`); with `scaled`, the descriptions are scaled to length 1 first.
- `mapped`: the GloVe spaces mapped into one (`vecmap.py`), compared by CSLS (TokAlign++).
- `hidden`: the source model's hidden states of both sides' tokens, one space without a mapping, CSLS (TokAlign++).
- `anchored`: PMI of both sides' tokens with the same shared tokens, one space without a mapping, CSLS (ours).

Each gets the `Inputs` and the shared tokens, which serve as pivots, anchors or seed pairs. GloVe vectors do not depend
on the shared tokens and are cached.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.alignment.methods.relative import N_PIVOTS, as_cosines, choose_pivots, relative_vectors
from tokalign_lab.alignment.search.neighbours import Candidates, density, nearest, nearest_csls
from tokalign_lab.errors import InputError
from tokalign_lab.progress import part
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import SharedTokens

N_CANDIDATES = 10


@dataclass
class Space:
    """Vectors of two vocabularies that can be compared with each other.

    `densities` has r of CSLS for target and source vectors; None compares by cosine, or with `by_dot_product` by the
    plain dot product.
    """

    source: TokenVectors
    target: TokenVectors
    densities: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    parameters: dict[str, Any]
    by_dot_product: bool = False


def anchored(inputs: Inputs, shared: SharedTokens) -> Space:
    """Compute PMI vectors of both vocabularies over the same shared tokens.

    Raises InputError if no shared token is frequent enough.
    """
    from tokalign_lab.vectors.anchored import anchored_vectors  # importing numba is slow

    settings, pair = AnchoredSettings(), inputs.pair
    vectors = anchored_vectors(
        pair.source_corpus, pair.target_corpus, (shared.source_ids, shared.target_ids),
        (pair.source.size, pair.target.size), settings, inputs.seed, inputs.progress,
    )  # fmt: skip
    return _by_csls(vectors, asdict(settings))


def glove(inputs: Inputs, shared: SharedTokens) -> Space:
    """Train GloVe on each side separately, or use the vectors of `inputs`; `shared` is not used."""
    if inputs.vectors is not None:
        return Space(*inputs.vectors, None, {"vectors": [one.provenance for one in inputs.vectors]})
    from tokalign_lab.vectors.glove import GloveSettings, glove_vectors

    settings, pair, progress = GloveSettings(), inputs.pair, part(inputs.progress, 0.0, 0.5)
    source = glove_vectors(pair.source_corpus, pair.source.size, settings, inputs.seed, part(progress, 0.0, 0.5))
    target = glove_vectors(pair.target_corpus, pair.target.size, settings, inputs.seed, part(progress, 0.5, 1.0))
    trained_on = source.provenance.get("trained_on", "cpu")
    return Space(source, target, None, asdict(settings) | {"trained_on": trained_on})


def relative(inputs: Inputs, shared: SharedTokens, scaled: bool = False) -> Space:
    """Compute the cosines of GloVe vectors to shared pivots; `scaled` gives them length 1.

    Raises InputError if there are fewer than two pivots.
    """
    ids = _shared_ids(shared)
    trained = glove(inputs, shared)
    pivots = choose_pivots(trained.source, trained.target, ids, N_PIVOTS, inputs.seed)
    source, target = (
        relative_vectors(*side, scaled) for side in zip((trained.source, trained.target), pivots, strict=True)
    )
    pivot_parameters = {"pivots": len(pivots[0]), "pivots_asked_for": N_PIVOTS, "descriptions_scaled": scaled}
    return Space(source, target, None, trained.parameters | pivot_parameters, by_dot_product=not scaled)


def mapped(inputs: Inputs, shared: SharedTokens) -> Space:
    """Map GloVe vectors into one space by VecMap, starting from the shared tokens with vectors on both sides.

    Raises InputError if there are none.
    """
    from tokalign_lab.alignment.methods.vecmap import vecmap

    ids = _shared_ids(shared)
    trained = glove(inputs, shared)
    both = vecmap(trained.source, trained.target, ids, inputs.seed, progress=part(inputs.progress, 0.5, 1.0))
    names = ("mapping", "start_pairs", "turns", "objective")
    found = {name: both[0].provenance[name] for name in names}
    return _by_csls(both, trained.parameters | found | {"start": "identical tokens"})


def hidden(inputs: Inputs, shared: SharedTokens) -> Space:
    """Compute the source model's hidden states of both sides' tokens.

    A shared token has the same vector on both sides, so held-out P@1 is no measure of this space. Raises InputError if
    the model does not fit the source tokenizer.
    """
    from tokalign_lab.vectors.hidden_states import hidden_state_vectors

    assert inputs.model is not None  # check_recipe has checked it
    pair = inputs.pair
    sides = ((pair.source, pair.source_corpus, 0.0), (pair.target, pair.target_corpus, 0.5))
    source, target = (
        hidden_state_vectors(
            inputs.model, pair.source, of, corpus.counts(of.size), progress=part(inputs.progress, start, start + 0.5),
            spell=spell,
        )
        for of, corpus, start in sides
    )  # fmt: skip
    return _by_csls((source, target), {"pooling": "last"})


def find_candidates(
    space: Space, target_ids: NDArray[np.int64], excluded: NDArray[np.bool_], k: int = N_CANDIDATES
) -> Candidates:
    """Rank the k source tokens most similar to each of `target_ids`; target tokens without a vector are left out.

    `excluded`, bool (source size,), marks source tokens that are no candidates, such as special tokens.
    """
    allowed = np.flatnonzero(~excluded[space.source.ids])
    queried = space.target.positions_of(target_ids)
    queried = queried[queried >= 0]
    queries, keys = space.target.rows[queried], space.source.rows[allowed]
    if space.densities is not None:
        of_target, of_source = space.densities
        positions, scores = nearest_csls(queries, keys, k, (of_target[queried], of_source[allowed]))
    elif space.by_dot_product:
        positions, scores = nearest(*as_cosines(queries, keys), k)
    else:
        positions, scores = nearest(queries, keys, k)
    return Candidates(space.target.ids[queried], space.source.ids[allowed][positions], scores)


def swapped_space(space: Space) -> Space:
    """Return the same vectors with source and target swapped, for the other direction."""
    densities = None if space.densities is None else (space.densities[1], space.densities[0])
    return Space(space.target, space.source, densities, space.parameters, space.by_dot_product)


def _shared_ids(shared: SharedTokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not len(shared):
        raise InputError(
            "The two vocabularies share no token, and this recipe compares tokens through shared ones; use the recipe "
            "'pieces', or overlap='bytes'."
        )
    return shared.source_ids, shared.target_ids


def _by_csls(vectors: tuple[TokenVectors, TokenVectors], parameters: dict[str, Any]) -> Space:
    source, target = vectors
    return Space(source, target, density(target.rows, source.rows), parameters | {"retrieval": "csls"})
