"""The stages of a run: first the rows of the new vocabulary (if the recipe has this stage), then the whole model.

TokAlign step 5. The weights of stage 1 are selected by module (input embedding and output head), not by name: the
papers' code selects names that contain "embed", so LLaMA's `lm_head` stays frozen. Frozen weights have `requires_grad`
False, so no gradient is computed for them, and weight decay does not change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokalign_lab.adaptation.settings import AdaptSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes
    ----------
    number : 1 or 2
    first_step : steps of the run before this stage
    steps : steps of this stage
    learning_rate : its peak
    """

    number: int
    first_step: int
    steps: int
    learning_rate: float


def plan_stages(settings: AdaptSettings, processes: int = 1) -> list[Stage]:
    """List the stages that have steps, in order; `processes` share the work."""
    first = round(settings.steps * settings.stage1_share)
    stages = [
        Stage(1, 0, first, settings.learning_rate_stage1),
        Stage(2, first, settings.steps - first, settings.rates(processes)[1]),
    ]
    return [stage for stage in stages if stage.steps]


def row_modules(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the modules that have a row per token: the input embedding and the output head."""
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def set_trainable(model: PreTrainedModel, stage: int) -> list[str]:
    """Freeze or unfreeze the model's weights for a stage; returns the names of the trained weights.

    Tied matrices are one weight and have one name.
    """
    for weight in model.parameters():
        weight.requires_grad_(stage == 2)
    if stage == 1:
        for module in row_modules(model):
            for weight in module.parameters():
                weight.requires_grad_(True)
    return [name for name, weight in model.named_parameters() if weight.requires_grad]
