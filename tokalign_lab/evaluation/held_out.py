"""P@1 on held-out shared tokens: whether an alignment finds partners that it was not given.

Shared tokens are a lexicon with known answers. A tenth of them is held out (not used as pivots or anchors and not
copied). Then P@1 is the share of held-out tokens whose best candidate is their partner, in both directions. It needs no
model (except for recipes that use one) and distinguishes good vectors from bad ones in seconds. Bilingual lexicon
induction is evaluated in the same way (Conneau et al. 2018, section 3.1).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.methods.copies import text_tokens_shared
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.spaces import Space, find_candidates, swapped_space
from tokalign_lab.alignment.registry import check_recipe
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.evaluation.interval import Interval, of_share
from tokalign_lab.files import plain
from tokalign_lab.progress import Progress, part, silent
from tokalign_lab.vectors.anchored_settings import AnchoredSettings
from tokalign_lab.vocabulary import SharedTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tokalign_lab.vectors.token_vectors import TokenVectors

MIN_COUNT = AnchoredSettings.min_count  # rarer tokens have no vector
SHARE = 0.1  # of the shared tokens with one partner
WITHIN = {"p_at_1": 1, "p_at_10": 10}


@dataclass(frozen=True)
class HeldOutTokens:
    """The held-out tokens, and the rank of each partner among the candidates.

    Attributes
    ----------
    target_ids, source_ids : int64 (n,), partners, in order of the target id
    target_ranks : int64 (n,): rank of the source token among the candidates of the target token, from 1; 0 if not in
        the top ten
    source_ranks : the same in the other direction
    """

    target_ids: NDArray[np.int64]
    source_ids: NDArray[np.int64]
    target_ranks: NDArray[np.int64]
    source_ranks: NDArray[np.int64]


@dataclass(frozen=True)
class HeldOutPrecision:
    """Share of held-out shared tokens whose partner is the best candidate, or among the ten best.

    `p_at_1` and `p_at_10` are for the direction target to source, over `n` held-out tokens; `chance` is the P@1 of
    guessing among the source tokens that have a vector. `intervals` has both shares with 95 % bounds, by measure and
    direction; `hidden` has the held-out tokens.
    """

    p_at_1: float
    p_at_10: float
    n: int
    chance: float
    intervals: dict[str, dict[str, Interval]]
    hidden: HeldOutTokens = field(compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the tokens."""
        values: dict[str, Any] = plain({name: value for name, value in asdict(self).items() if name != "hidden"})
        return values


def held_out_precision(
    pair: TokenizedPair,
    recipe: str = "anchored",
    seed: int = 0,
    max_tokens: int = 1000,
    overlap: str = "bytes",
    progress: Progress = silent,
    model: PreTrainedModel | None = None,
    vectors: tuple[TokenVectors, TokenVectors] | None = None,
) -> HeldOutPrecision:
    """Hold out shared tokens, align by `recipe`, and measure the share that finds its partner.

    Raises `InputError` if the recipe does not rank candidates, or no shared token is frequent enough to be held out.

    Parameters
    ----------
    pair
        The text in both tokenizations.
    recipe
        One that compares vectors, such as "anchored" or "tokalign". GloVe vectors are read from the cache if `align`
        has trained them, since they do not depend on the held-out tokens.
    seed
        Seed of the choice of held-out tokens, of the recipe and of the bootstrap.
    max_tokens
        Maximum number of tokens to hold out, besides the limit of `SHARE` of the eligible ones.
    overlap
        How shared tokens are found, "bytes" or "raw"; "bytes" gives all recipes the same tokens.
    model
        The source model, for recipes whose vectors are its hidden states.
    vectors
        Source and target vectors to use instead of training GloVe.
    """
    make_space = check_recipe(recipe, model).space
    if make_space is None:
        raise InputError(
            f"The recipe '{recipe}' ranks no candidates, so it has no P@1; choose one that compares vectors, such as "
            "anchored or tokalign."
        )
    shared = text_tokens_shared(pair.source, pair.target, overlap)
    hidden = _hold_out(pair, shared, max_tokens, seed)
    kept = text_tokens_shared(pair.source, pair.target, overlap, hidden.target_ids)
    space = make_space(Inputs(pair, seed, part(progress, 0.0, 0.9), model, vectors=vectors), kept)
    target_ranks = _ranks(space, hidden.target_ids, hidden.source_ids, pair.source.is_control)
    source_ranks = _ranks(swapped_space(space), hidden.source_ids, hidden.target_ids, pair.target.is_control)
    progress(1.0, "tested on held-out tokens")
    n = len(hidden)
    sides = (("target_to_source", target_ranks), ("source_to_target", source_ranks))
    intervals = {
        measure: {name: of_share(int(((ranks > 0) & (ranks <= k)).sum()), n, seed) for name, ranks in sides}
        for measure, k in WITHIN.items()
    }
    return HeldOutPrecision(
        p_at_1=intervals["p_at_1"]["target_to_source"].mean,
        p_at_10=intervals["p_at_10"]["target_to_source"].mean,
        n=n,
        chance=1 / len(space.source),
        intervals=intervals,
        hidden=HeldOutTokens(hidden.target_ids, hidden.source_ids, target_ranks, source_ranks),
    )


def _ranks(
    space: Space, queried: NDArray[np.int64], partners: NDArray[np.int64], is_control: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the rank of each query token's partner among its ten candidates, from 1; 0 if it is not among them."""
    order = np.argsort(queried)
    found = find_candidates(space, queried[order], is_control)
    place = order[np.searchsorted(queried[order], found.target_ids)]
    hit = found.candidate_ids == partners[place][:, None]
    ranks = np.zeros(len(queried), np.int64)
    ranks[place] = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    return ranks


def _hold_out(pair: TokenizedPair, shared: SharedTokens, max_tokens: int, seed: int) -> SharedTokens:
    """Sample tokens to hold out from those with one partner that are frequent enough on both sides."""
    source_counts = pair.source_corpus.counts(pair.source.size)[shared.source_ids]
    target_counts = pair.target_corpus.counts(pair.target.size)[shared.target_ids]
    _, place, times = np.unique(shared.source_ids, return_inverse=True, return_counts=True)
    eligible = np.flatnonzero((np.minimum(source_counts, target_counts) >= MIN_COUNT) & (times[place] == 1))
    n = min(max_tokens, round(SHARE * len(eligible)))
    if n < 1:
        raise InputError(
            f"Only {len(eligible)} shared tokens occur {MIN_COUNT} times in the text on both sides, too few to hide "
            "some of them; give more text."
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(eligible)[:n])
    return SharedTokens(source_ids=shared.source_ids[drawn], target_ids=shared.target_ids[drawn])
