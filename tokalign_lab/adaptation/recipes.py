"""Recovery recipes: named settings of what is trained, at which rates and in which stages.

The defaults of `AdaptSettings` are those of `recover`; a recipe has only the settings that differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokalign_lab.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """One way to recover a converted model.

    Attributes
    ----------
    title : what it does, in one sentence
    settings : settings that differ from the defaults of `AdaptSettings`
    losses : losses from the source model and their weights, if the settings name none
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)


DEFAULT = "recover"
RECIPES: dict[str, Recipe] = {
    DEFAULT: Recipe(
        "Train rows and body together at rates for little text, on the text and on what the source model predicts of "
        "it; keep the best step. Where the source model is not known, on the text alone.",
        losses={"prefix": 1.0, "branches": 1.0},
    ),
    "text": Recipe("As recover, on the text alone."),
    "alm": Recipe(
        "As recover, with approximate likelihood matching from the source model (arXiv 2503.20083).",
        losses={"likelihood": 1.0},
    ),
    "states": Recipe(
        "As recover, with the source's hidden states after a third of the layers as targets.",
        losses={"states": 1.0},
    ),
    "papers": Recipe(
        "TokAlign: half of the steps on rows and head at 6.4e-4, then the whole model at 5e-5; keep the last step.",
        {
            "steps": 100,
            "batch_size": 4,
            "save_every": 100,
            "stage1_share": 0.5,
            "learning_rate_stage1": 6.4e-4,
            "learning_rate_stage2": 5e-5,
            "head_floor": False,
            "warmup_ratio": 0.03,
            "gradient_clip": 0.3,
            "evaluate_every": 0,
            "patience": 0,
        },
    ),
}


def settings_of(recipe: str) -> dict[str, Any]:
    """Return the settings of a recipe, including its name. Raises `InputError` if there is no such recipe."""
    if recipe not in tuple(RECIPES):  # a list, which a dictionary cannot look up, is refused too
        raise InputError(f"There is no recovery recipe {recipe!r}; choose one of {', '.join(RECIPES)}.")
    return {"recipe": recipe, **RECIPES[recipe].settings}
