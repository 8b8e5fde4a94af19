"""Every recipe in one table: how tokens are compared, and how each row is made.

`recipes.align` is the one algorithm; a recipe is an entry of `RECIPES`. Where a paper leaves something open, the recipe
does what the paper's script does, or else what the paper before it did, and the description says so.
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
    description : str
        One line for lists and help.
    fill : callable
        Makes the rows that are still open after copies and candidates, and returns parameters for the provenance.
    space : callable, optional
        Makes the vectors that tokens are compared by (`methods.spaces`); None compares none.
    mix : callable, optional
        Makes rows of several candidates; None copies the row of the best one.
    two_way : bool
        Whether `fill` can make the source-to-target direction too; otherwise that direction is read off the rows.
    overlap : str
        How shared tokens are found unless the caller says so: "bytes", or "raw" (by string, as in the papers).
    trains : str
        Which vectors are trained on the text: "anchored", "glove", "fasttext", or "" for none. It decides the cost.
    needs_model, needs_donor : bool
        Whether the source model, or a donor model with the target tokenizer, has to be given.
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
        "GloVe, cosines to 300 shared pivots by dot product; copy of the best source row; a random source row where "
        "there is no vector; shared by string (the paper's script)",
        baselines.permuted,
        spaces.relative,
        overlap="raw",
        trains="glove",
    ),
    "tokalign-normalised": Recipe(
        "as tokalign, but descriptions scaled to length 1, shared by bytes, pieces where there is no vector",
        baselines.pieces,
        partial(spaces.relative, scaled=True),
        trains="glove",
    ),
    "tokalign-vanilla": Recipe(
        "as tokalign, but the plain cosine of two GloVe spaces that were trained apart",
        baselines.permuted,
        spaces.glove,
        overlap="raw",
        trains="glove",
    ),
    "tokalign++": Recipe(
        "GloVe, VecMap from identical tokens, CSLS; copy of the best source row; a random one where there is no "
        "vector, as tokalign (the second paper)",
        baselines.permuted,
        spaces.mapped,
        overlap="raw",
        trains="glove",
    ),
    "tokalign++-hidden": Recipe(
        "last hidden states of the source model, CSLS; copy of the best source row; a random one where there is no "
        "text; needs the model",
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
    "mean": Recipe("the mean of all source rows for every token that is not shared", baselines.mean),
    "multivariate": Recipe(
        "a draw from the source rows' normal distribution with full covariance for every token that is not shared",
        baselines.multivariate,
    ),
    "random": Recipe("a random row for every token that is not shared", baselines.random),
    "random-permutation": Recipe("the source rows shuffled, for every token that is not shared", baselines.permutation),
}
"""Every recipe by its name."""
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
