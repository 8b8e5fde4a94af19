"""P@1 on held-out shared tokens: whether an alignment finds twins that it was not told about.

Tokens that both vocabularies have are a lexicon with known answers. Hide a tenth of them (they serve as no pivot and
no anchor, and are not copied), align, and count how often the best candidate of a hidden token is its twin. It needs
no model and tells good vectors from bad in seconds. Bilingual lexicon induction is judged the same way (Conneau et
al. 2018, section 3.1).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tokalign_lab.alignment.recipes import check_recipe, text_tokens_shared
from tokalign_lab.alignment.spaces import find_candidates, make_space
from tokalign_lab.corpus import TokenizedPair
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, part
from tokalign_lab.vocabulary import SharedTokens

MIN_COUNT = 5  # of both vectors' settings: rarer tokens have no vector to be found by


@dataclass(frozen=True)
class HeldOutPrecision:
    """Share of hidden shared tokens whose twin is the best, or among the ten best, of the candidates.

    `n` tokens were hidden; `chance` is the P@1 of guessing among the source tokens that have a vector.
    """

    p_at_1: float
    p_at_10: float
    n: int
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def held_out_precision(
    pair: TokenizedPair,
    recipe: str = "anchored",
    seed: int = 0,
    share: float = 0.1,
    max_tokens: int = 1000,
    overlap: str = "bytes",
    progress: Progress | None = None,
) -> HeldOutPrecision:
    """Hide shared tokens, align by `recipe`, and see whether each finds its twin.

    Parameters
    ----------
    pair
        The text in both tokenisations.
    recipe
        "anchored" or "tokalign"; the others rank no candidates. GloVe vectors come from the cache if `align` made
        them already, since they do not depend on what is hidden.
    seed
        Draws the hidden tokens, and is the seed of the recipe.
    share
        Share of the eligible tokens to hide.
    max_tokens
        At most this many.
    overlap
        As for `align`.

    Raises
    ------
    InputError
        If the recipe ranks no candidates, or no shared token is frequent enough to be hidden.
    """
    check_recipe(recipe)
    if not 0 < share < 1:
        raise InputError(f"The share of tokens to hide must lie between 0 and 1, but is {share}.")
    shared = text_tokens_shared(pair.source, pair.target, overlap)
    hidden = _hide(pair, shared, share, max_tokens, seed)
    kept = text_tokens_shared(pair.source, pair.target, overlap, hidden.target_ids)
    space = make_space(pair, recipe, kept, seed, part(progress, 0.0, 0.9))
    if space is None:
        raise InputError(f"The recipe '{recipe}' ranks no candidates, so it has no P@1; choose anchored or tokalign.")
    found = find_candidates(space, hidden.target_ids, pair.source.is_control)
    if progress is not None:
        progress(1.0, "tested on hidden tokens")
    twin = hidden.source_ids[np.searchsorted(hidden.target_ids, found.target_ids)]
    hit = found.candidate_ids == twin[:, None]
    n = len(hidden)
    return HeldOutPrecision(float(hit[:, 0].sum() / n), float(hit.any(axis=1).sum() / n), n, 1 / len(space.source))


def _hide(pair: TokenizedPair, shared: SharedTokens, share: float, max_tokens: int, seed: int) -> SharedTokens:
    """Draw hidden tokens among the shared ones that have one twin only and are frequent enough on both sides."""
    source_counts = pair.source_corpus.counts(pair.source.size)[shared.source_ids]
    target_counts = pair.target_corpus.counts(pair.target.size)[shared.target_ids]
    _, place, times = np.unique(shared.source_ids, return_inverse=True, return_counts=True)
    eligible = np.flatnonzero((np.minimum(source_counts, target_counts) >= MIN_COUNT) & (times[place] == 1))
    n = min(max_tokens, round(share * len(eligible)))
    if n < 1:
        raise InputError(
            f"Only {len(eligible)} shared tokens occur {MIN_COUNT} times in the text on both sides, too few to hide "
            "some of them; give more text."
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(eligible)[:n])
    return SharedTokens(source_ids=shared.source_ids[drawn], target_ids=shared.target_ids[drawn])
