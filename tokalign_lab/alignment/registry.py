"""The table of recipes: how tokens are compared, and how each row is made.

`recipes.align` is the algorithm; a recipe is an entry of `RECIPES`. Where a paper leaves something open, the recipe
follows the paper's script, or else the earlier paper; the description names the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods import baselines, spaces
from tokalign_lab.alignment.methods.focus import focus_rows
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.alignment.methods.mixture import add_mixtures
from tokalign_lab.alignment.methods.omp import omp_rows
from tokalign_lab.alignment.methods.wechsel import wechsel_rows
from tokalign_lab.alignment.search.neighbours import Candidates
from tokalign_lab.errors import InputError
from tokalign_lab.vocabulary import SharedTokens


@dataclass(frozen=True)
class Recipe:
    """One way to align.

    Attributes
    ----------
    description : one line for lists and help
    fill : makes the rows that are open after copies and candidates; returns parameters for the provenance
    space : makes the vectors by which tokens are compared (`methods.spaces`); None if no tokens are compared
    mix : makes rows from several candidates; None copies the row of the best one
    two_way : whether `fill` can also make the source-to-target direction; otherwise the rows are reversed
    overlap : default way to find shared tokens, which are copied: "bytes", "raw" (by string, as in the papers) or
        "none"
    trains : vectors that are trained on the text, which decide the cost: "anchored", "glove", "fasttext", or "" for
        none
    needs_model, needs_donor : whether the source model, or a donor model with the target tokenizer, is required
    """

    description: str
    fill: Callable[[LexiconRows, Inputs], dict[str, Any]]
    space: Callable[[Inputs, SharedTokens], spaces.Space] | None = None
    mix: Callable[[LexiconRows, Inputs, Candidates], dict[str, Any]] | None = None
    two_way: bool = True
    overlap: str = "bytes"
    trains: str = ""
    needs_model: bool = False
    needs_donor: bool = False


RECIPES = {
    "anchored": Recipe(
        "PMI vectors over shared tokens; ten CSLS candidates mixed with the token's source pieces (our best)",
        baselines.pieces,
        spaces.anchored,
        add_mixtures,
        trains="anchored",
    ),
    "tokalign": Recipe(
        "GloVe, cosines to 300 shared pivots, dot product; copy of the best source row; a random source row without "
        "a vector; shared by string (the paper's script)",
        baselines.permuted,
        spaces.relative,
        overlap="raw",
        trains="glove",
    ),
    "tokalign-normalised": Recipe(
        "as tokalign, but descriptions scaled to length 1, shared by bytes, pieces without a vector",
        baselines.pieces,
        partial(spaces.relative, scaled=True),
        trains="glove",
    ),
    "tokalign-vanilla": Recipe(
        "as tokalign, but the plain cosine of two GloVe spaces that were trained separately",
        baselines.permuted,
        spaces.glove,
        overlap="raw",
        trains="glove",
    ),
    "tokalign++": Recipe(
        "GloVe, VecMap from identical tokens, CSLS; copy of the best source row; a random source row without a "
        "vector, as tokalign (the second paper)",
        baselines.permuted,
        spaces.mapped,
        overlap="raw",
        trains="glove",
    ),
    "tokalign++-hidden": Recipe(
        "last hidden states of the source model, CSLS; copy of the best source row; a random source row for a token "
        "without text; needs the model",
        baselines.permuted,
        spaces.hidden,
        overlap="raw",
        needs_model=True,
    ),
    "focus": Recipe(
        "FOCUS: sparse mixtures of shared tokens by fastText similarity in the target text",
        focus_rows,
        two_way=False,
        trains="fasttext",
    ),
    "wechsel": Recipe(
        "WECHSEL: mixtures of the ten nearest source tokens by fastText subword vectors; copies nothing",
        wechsel_rows,
        two_way=False,
        overlap="none",
        trains="fasttext",
    ),
    "omp": Recipe(
        "orthogonal matching pursuit: a donor model's row as a sum of shared rows; needs the model and a donor",
        omp_rows,
        two_way=False,
        needs_model=True,
        needs_donor=True,
    ),
    "pieces": Recipe("the mean of the source tokens that spell the token (FVT); needs no vectors", baselines.pieces),
    "last-in-mean-out": Recipe(
        "input: the last source token of those that spell the token; output: the mean row", baselines.last_in_mean_out
    ),
    "mean": Recipe("the mean of all source rows for every token that is not shared", baselines.filled),
    "multivariate": Recipe(
        "a draw from the source rows' normal distribution with full covariance for every token that is not shared",
        partial(baselines.filled, origin="multivariate"),
    ),
    "random": Recipe("a random row for every token that is not shared", partial(baselines.filled, origin="random")),
    "random-permutation": Recipe(
        "the source rows shuffled, for every token that is not shared", partial(baselines.permuted, once=True)
    ),
}
"""Every recipe by its name."""
OVERLAPS = ("bytes", "raw", "none")  # see vocabulary.shared_tokens


def check_recipe(
    name: str, model: Any = True, donor: Any = True, one_to_one: bool = False, overlap: str | None = None
) -> Recipe:
    """Return a recipe of `RECIPES` after checking the options of `align`; `model` and `donor` are None if not given.

    Raises InputError for an unknown recipe or overlap, or if the recipe lacks its model or donor, or cannot be
    one-to-one.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe '{name}'; choose one of {', '.join(RECIPES)}.")
    recipe = RECIPES[name]
    if recipe.needs_model and model is None:
        raise InputError(f"The recipe '{name}' reads the source model; give it (model=, or --model NAME).")
    if recipe.needs_donor and donor is None:
        raise InputError(
            f"The recipe '{name}' needs a donor, a model whose tokenizer is the target; give it (donor=, or --donor "
            "NAME)."
        )
    if one_to_one and (recipe.space is None or recipe.mix is not None):
        raise InputError(
            f"The recipe '{name}' does not choose one source token for each target token, so it cannot be one-to-one; "
            "use tokalign, tokalign++ or another that does."
        )
    if overlap not in (None, *OVERLAPS):
        raise InputError(f"There is no overlap '{overlap}'; choose 'bytes', 'raw' or 'none'.")
    return recipe
