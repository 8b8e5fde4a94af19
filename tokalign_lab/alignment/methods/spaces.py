"""Vectors of two vocabularies that can be compared with each other, and the search in them.

From the papers' first attempt to ours, each by what it changes:

- `glove`: two GloVe spaces, trained apart and compared as they are (TokAlign's headline; only chance relates them).
- `relative`: each token by its cosines to 300 shared pivots, compared by dot product as upstream's script does.
- `relative-normalised`: those descriptions scaled to length 1 first (`relative.py`).
- `vecmap`: the GloVe spaces mapped into one (`vecmap.py`), compared by CSLS (TokAlign++).
- `hidden`: what the source model itself makes of either side's tokens, one space from the start, CSLS (TokAlign++).
- `anchored`: both sides counted against the same shared tokens, one space from the start, CSLS (ours).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.methods.pieces import spell
from tokalign_lab.alignment.methods.relative import N_PIVOTS, as_cosines, choose_pivots, relative_vectors
from tokalign_lab.alignment.registry import check_recipe
from tokalign_lab.alignment.search.neighbours import Candidates, density, nearest, nearest_csls
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, part
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vectors.token_vectors import TokenVectors
from tokalign_lab.vocabulary import SharedTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

N_CANDIDATES = 10


@dataclass
class Space:
    """Vectors of two vocabularies that can be compared with each other.

    `densities` holds r of CSLS for target and source vectors; None compares by cosine, or by the plain dot product.
    """

    source: TokenVectors
    target: TokenVectors
    densities: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    parameters: dict[str, Any]
    by_dot_product: bool = False


def make_space(
    pair: TokenizedPair,
    recipe: str,
    shared: SharedTokens,
    seed: int,
    progress: Progress | None = None,
    model: PreTrainedModel | None = None,
) -> Space | None:
    """Vectors of both vocabularies as `recipe` makes them comparable; None for a recipe without vectors.

    GloVe vectors come from the cache where the same text was trained on before: they do not depend on `shared`.

    Parameters
    ----------
    pair
        The text in both tokenisations.
    recipe
        A name of `RECIPES`.
    shared
        Tokens that may serve as pivots, anchors or seed pairs.
    seed
        Of everything that is drawn.
    progress
        Told about each step.
    model
        The source model, for `tokalign++-hidden`.

    Raises
    ------
    InputError
        If the recipe needs shared tokens, text or a model that is not there.
    """
    kind = check_recipe(recipe, model=model).space
    ids = (shared.source_ids, shared.target_ids)
    if kind == "anchored":
        from tokalign_lab.vectors.anchored import anchored_vectors  # each way brings numba, which takes a while

        settings = AnchoredSettings()
        vectors = anchored_vectors(
            pair.source_corpus, pair.target_corpus, ids, (pair.source.size, pair.target.size), settings, seed, progress
        )
        return _by_csls(vectors, asdict(settings))
    if kind == "hidden":
        assert model is not None  # check_recipe saw to it
        return _by_csls(_hidden(pair, model, progress), {"pooling": "last"})
    if kind is None:
        return None

    if kind != "glove" and not len(shared):
        raise InputError(
            f"The two vocabularies share no token, and the recipe '{recipe}' compares tokens through shared ones; "
            "use the recipe 'pieces', or overlap='bytes'."
        )
    from tokalign_lab.alignment.methods.vecmap import vecmap
    from tokalign_lab.vectors.glove import GloveSettings

    trained, parameters = _glove(pair, seed, part(progress, 0.0, 0.5)), asdict(GloveSettings())
    parameters["trained_on"] = trained[0].provenance.get("trained_on", "cpu")
    if kind == "glove":
        return Space(*trained, None, parameters)
    if kind == "vecmap":
        mapped = vecmap(*trained, ids, seed, progress=part(progress, 0.5, 1.0))
        names = ("mapping", "start", "start_pairs", "turns", "objective")
        return _by_csls(mapped, parameters | {name: mapped[0].provenance[name] for name in names})
    pivots = choose_pivots(*trained, ids, N_PIVOTS, seed)
    scaled = kind == "relative-normalised"
    source, target = (relative_vectors(*side, scaled) for side in zip(trained, pivots, strict=True))
    parameters |= {"pivots": len(pivots[0]), "pivots_asked_for": N_PIVOTS, "descriptions_scaled": scaled}
    return Space(source, target, None, parameters, by_dot_product=not scaled)


def find_candidates(
    space: Space, target_ids: NDArray[np.int64], barred: NDArray[np.bool_], k: int = N_CANDIDATES
) -> Candidates:
    """Rank the source tokens most similar to each of `target_ids`; tokens without a vector are left out.

    Parameters
    ----------
    space
        Comparable vectors.
    target_ids
        int64 (n,).
    barred
        bool (source size,), tokens that are never candidates: special ones, `<unk>` among them.
    k
        Candidates a token.

    Returns
    -------
    Candidates
        At most n rows.
    """
    allowed = np.flatnonzero(~barred[space.source.ids])
    asking = space.target.positions_of(target_ids)
    asking = asking[asking >= 0]
    queries, keys = space.target.rows[asking], space.source.rows[allowed]
    if space.densities is not None:
        of_target, of_source = space.densities
        positions, scores = nearest_csls(queries, keys, k, (of_target[asking], of_source[allowed]))
    elif space.by_dot_product:
        positions, scores = nearest(*as_cosines(queries, keys), k)
    else:
        positions, scores = nearest(queries, keys, k)
    return Candidates(space.target.ids[asking], space.source.ids[allowed][positions], scores)


def turned_space(space: Space) -> Space:
    """Return the same vectors with source and target exchanged, for the other direction."""
    densities = None if space.densities is None else (space.densities[1], space.densities[0])
    return Space(space.target, space.source, densities, space.parameters, space.by_dot_product)


def _by_csls(vectors: tuple[TokenVectors, TokenVectors], parameters: dict[str, Any]) -> Space:
    source, target = vectors
    return Space(source, target, density(target.rows, source.rows), parameters | {"retrieval": "csls"})


def _glove(pair: TokenizedPair, seed: int, progress: Progress | None) -> tuple[TokenVectors, TokenVectors]:
    from tokalign_lab.vectors.glove import GloveSettings, glove_vectors

    settings = GloveSettings()
    return (
        glove_vectors(pair.source_corpus, pair.source.size, settings, seed, part(progress, 0.0, 0.5)),
        glove_vectors(pair.target_corpus, pair.target.size, settings, seed, part(progress, 0.5, 1.0)),
    )


def _hidden(
    pair: TokenizedPair, model: PreTrainedModel, progress: Progress | None
) -> tuple[TokenVectors, TokenVectors]:
    """Hidden states of both sides' tokens; no mapping, since one model makes both.

    A token that both vocabularies have gets one vector twice, so held-out P@1 says nothing about this space.
    """
    from tokalign_lab.vectors.hidden_states import hidden_state_vectors

    counts = pair.source_corpus.counts(pair.source.size), pair.target_corpus.counts(pair.target.size)
    source, target = (
        hidden_state_vectors(model, pair.source, of, count, progress=part(progress, start, start + 0.5), spell=spell)
        for of, count, start in ((pair.source, counts[0], 0.0), (pair.target, counts[1], 0.5))
    )
    return source, target
