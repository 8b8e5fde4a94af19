"""Every recipe as data: which vectors, which shared tokens, and what becomes of the rest.

`recipes.align` is the one algorithm; a recipe is a line of this table. What a paper leaves open is filled in as its
script does, or as the paper before it did, and said in the description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokalign_lab.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """One way to align.

    Attributes
    ----------
    description : str
        One line for lists and help.
    rest : str
        What makes the rows that are neither copied nor found by vectors: "pieces", "last-in-mean-out", "mean",
        "random", "multivariate", "permuted" (a source row at random), "permutation"; or a method of its own: "focus",
        "wechsel", "omp", and "mixture", which makes those found by vectors too.
    space : str, optional
        The vectors that tokens are compared by, a name that `spaces.make_space` knows; None compares none.
    overlap : str
        How shared tokens are found unless the caller says so: "bytes", or "raw" as in the papers.
    needs_model, needs_donor : bool
        Whether the source model, or a donor model with the target tokenizer, has to be given.
    """

    description: str
    rest: str
    space: str | None = None
    overlap: str = "bytes"
    needs_model: bool = False
    needs_donor: bool = False


METHODS = {
    "anchored": Recipe(
        "PMI vectors over shared tokens; ten CSLS candidates mixed with the token's source pieces (our best)",
        rest="mixture",
        space="anchored",
    ),
    "tokalign": Recipe(
        "GloVe, cosines to 300 shared pivots by dot product; copy of the best source row; a random source row where "
        "there is no vector; shared by string (the paper's script)",
        rest="permuted",
        space="relative",
        overlap="raw",
    ),
    "tokalign-normalised": Recipe(
        "as tokalign, but descriptions scaled to length 1, shared by bytes, pieces where there is no vector",
        rest="pieces",
        space="relative-normalised",
    ),
    "tokalign-vanilla": Recipe(
        "as tokalign, but the plain cosine of two GloVe spaces that were trained apart",
        rest="permuted",
        space="glove",
        overlap="raw",
    ),
    "tokalign++": Recipe(
        "GloVe, VecMap from identical tokens, CSLS; copy of the best source row; a random one where there is no "
        "vector, as tokalign (the second paper)",
        rest="permuted",
        space="vecmap",
        overlap="raw",
    ),
    "tokalign++-hidden": Recipe(
        "last hidden states of the source model, CSLS; copy of the best source row; a random one where there is no "
        "text; needs the model",
        rest="permuted",
        space="hidden",
        overlap="raw",
        needs_model=True,
    ),
    "focus": Recipe(
        "FOCUS: sparse mixtures of shared tokens by fastText similarity in the target text",
        rest="focus",
    ),
    "wechsel": Recipe(
        "WECHSEL: mixtures of the ten nearest source tokens by fastText subword vectors; copies nothing",
        rest="wechsel",
    ),
    "omp": Recipe(
        "orthogonal matching pursuit: a donor model's row as a sum of shared rows; needs the model and a donor",
        rest="omp",
        needs_model=True,
        needs_donor=True,
    ),
    "pieces": Recipe("the mean of the source tokens that spell the token (FVT); needs no vectors", rest="pieces"),
    "last-in-mean-out": Recipe(
        "input: the last source token of those that spell the token; output: the mean row", rest="last-in-mean-out"
    ),
    "mean": Recipe("the mean of all source rows for every token that is not shared", rest="mean"),
    "multivariate": Recipe(
        "a draw from the source rows' normal distribution with full covariance for every token that is not shared",
        rest="multivariate",
    ),
    "random": Recipe("a random row for every token that is not shared", rest="random"),
    "random-permutation": Recipe("the source rows shuffled, for every token that is not shared", rest="permutation"),
}
RECIPES = {name: recipe.description for name, recipe in METHODS.items()}
"""The name of each recipe and what it does."""
OVERLAPS = ("bytes", "raw", "none")  # see vocabulary.shared_tokens


def check_recipe(
    name: str, model: Any = True, donor: Any = True, one_to_one: bool = False, overlap: str | None = None
) -> Recipe:
    """Find a recipe and make sure that it has what it needs.

    Parameters
    ----------
    name
        A name of `RECIPES`.
    model, donor
        Whatever will be given as such; None where nothing will.
    one_to_one
        Whether each source row may be given away only once.
    overlap
        As for `align`.

    Raises
    ------
    InputError
        For an unknown recipe or overlap, or a recipe that lacks something or cannot be one-to-one.
    """
    if name not in METHODS:
        raise InputError(f"There is no recipe '{name}'; choose one of {', '.join(METHODS)}.")
    recipe = METHODS[name]
    if recipe.needs_model and model is None:
        raise InputError(f"The recipe '{name}' reads the source model; give it (model=, or --model NAME).")
    if recipe.needs_donor and donor is None:
        raise InputError(
            f"The recipe '{name}' needs a donor, a model whose tokenizer is the target; give it (donor=, or --donor "
            "NAME)."
        )
    if one_to_one and (recipe.space is None or recipe.rest == "mixture"):
        raise InputError(
            f"The recipe '{name}' does not choose one source token for each target token, so it cannot be one-to-one; "
            "use tokalign, tokalign++ or another that does."
        )
    if overlap not in (None, *OVERLAPS):
        raise InputError(f"There is no overlap '{overlap}'; choose 'bytes', 'raw' or 'none'.")
    return recipe
