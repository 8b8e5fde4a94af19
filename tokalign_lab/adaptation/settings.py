"""Settings of tuning, checked once, when they are made.

Defaults are those of the recipe `recover` (docs/decisions/0016-recovery-defaults.md). The recipe `papers` sets the
papers': two stages of equal length, learning rates 6.4e-4 and 5e-5 (TokAlign's released code), warm-up 3 %, gradients
clipped at 0.3, no weight decay (the papers' code passes one but never uses it). Batch and sequence are sized for a CPU;
use larger ones on a GPU. For distillation, the papers state neither direction, nor weight, nor temperature, nor share;
the defaults are forward, 1, 1 and all sequences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from tokalign_lab.adaptation.recipes import DEFAULT, RECIPES, settings_of
from tokalign_lab.errors import InputError
from tokalign_lab.settings.fields import option, required
from tokalign_lab.settings.kinds import MeasuredSettings, MeasuredTextSettings

Direction = Literal["forward", "reverse"]
# The Hugging Face trainer's names of trackers, and for each the packages of which it needs one.
TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}
RATE_ROWS, RATE_BODY = 3e-4, 1e-4  # peaks for 128 tokens per step and at most `RATE_TOKENS` tokens in a run
RATE_TOKENS = 30_000
SOURCE_LOSSES = ("likelihood", "shared", "prefix", "branches", "states", "values")  # see `Objective`


@dataclass(frozen=True)
class DistillationSettings:
    """The teacher's part of the loss.

    Attributes
    ----------
    weight : weight of the divergence, relative to the next-token loss, at least 0
    temperature : temperature of both distributions, above 0
    direction : {"forward", "reverse"}
        KL(teacher || student), which covers everything that the teacher considers possible; or KL(student || teacher),
        which avoids what the teacher considers impossible.
    """

    weight: float = 1.0
    temperature: float = 1.0
    direction: Direction = "forward"

    def __post_init__(self) -> None:
        """Refuse values that make no sense, in one sentence."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise InputError(f"The distillation weight is {self.weight}, but it must be a number of at least 0.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"The distillation temperature is {self.temperature}, but it must be a number above 0.")
        if self.direction not in get_args(Direction):
            raise InputError(f"There is no direction {self.direction!r} of distillation; choose forward or reverse.")


class AdaptSettings(MeasuredSettings):
    """Settings of tuning."""

    subject = "Tuning"

    recipe: str = option(
        DEFAULT, "Recipe: recover, text (without the source), alm, states, or papers (two stages, the papers' rates)."
    )
    steps: int = option(400, "Optimiser steps, both stages together.", least=1)
    stage1_share: float = option(
        0.0, "Share of the steps (stage 1) that train only embeddings and head.", least=0, most=1
    )
    learning_rate_stage1: float = option(6.4e-4, "Peak learning rate of stage 1, on a cosine schedule.", above=0)
    learning_rate_stage2: float | None = option(
        None,
        "Peak learning rate of stage 2. Default: 1e-4 * sqrt(tokens per step / 128), lower above 30,000 tokens in all.",
        above=0,
    )
    learning_rate_rows: float | None = option(
        None,
        "Peak rate of embeddings and head in stage 2. Default: learning_rate_stage2, else 3 times its default.",
        above=0,
    )
    head_floor: bool = option(
        True,
        "In stage 2, give small updates to head rows of tokens that the text rarely predicts. Not in a sharded model.",
        flag="--head-floor/--no-head-floor",
    )
    freeze_shared_rows: bool = option(
        False,
        "Do not train embedding and head rows of tokens that the source has too; with stage1_share 1, "
        "only new rows train.",
    )
    warmup_ratio: float = option(
        0.1, "Warm-up: share of each stage's steps in which the learning rate rises.", least=0, most=1
    )
    batch_size: int = option(1, "Sequences per batch, on each process.", least=1)
    gradient_accumulation_steps: int = option(1, "Batches per step, on each process.", least=1)
    sequence_length: int = option(128, "Tokens per sequence.", least=2)
    cross_documents: bool = option(
        True,
        "Let attention and loss cross document boundaries in a sequence, as in the papers.",
        flag="--cross-documents/--documents-apart",
    )
    mix: dict[str, float] = option(
        {}, "Sampling factor of a slice of the text, such as de=2; 0 omits the slice. May be repeated.", least=0
    )
    temperature: float = option(
        1.0, "Above 1, small slices are sampled more often: shares are proportional to size^(1 / temperature).", least=1
    )
    gradient_clip: float = option(1.0, "Maximum gradient norm (clipping).", above=0)
    weight_decay: float = option(0.0, "Weight decay of AdamW; frozen weights are never decayed.", least=0)
    bf16: bool | None = option(
        None, "Compute in bfloat16 (weights and optimiser stay float32); by default if the GPU supports it."
    )
    gradient_checkpointing: bool = option(
        False, "Recompute activations instead of storing them: less memory, a third more work."
    )
    evaluate_every: int = option(
        50, "Steps between measurements of bits per byte; 0: only at the beginning and after each stage.", least=0
    )
    patience: int = option(
        4,
        "Stop after this many measurements without improvement, or if the model forgets; keep the best step. "
        "0: keep the last.",
        least=0,
    )
    prompts: tuple[str, ...] = option(
        ("The capital of France is", "def add(a, b):\n    return"),
        "A prompt to continue greedily at each measurement. May be repeated.",
    )
    sample_tokens: int = option(24, "Tokens of each continuation.", least=1)
    save_every: int = option(200, "Steps between checkpoints; each stage also ends with one.", least=1)
    report_to: str = option("", "Also report to tensorboard, wandb or trackio; separate several by commas.")
    teacher: str = option(
        "", "Teacher to distil from; it must have the same tokenizer (otherwise, see `generate`).", path=True
    )
    losses: dict[str, float] = option(
        {},
        "Loss from the source model and its weight, as states=1; also likelihood, shared, prefix, branches, values.",
        least=0,
    )
    distillation_weight: float = option(
        1.0, "Weight of the divergence from the teacher; the weight of the next-token loss is 1."
    )
    distillation_temperature: float = option(
        1.0, "Divides the logits of both models; above 1, both distributions are softer."
    )
    distillation_direction: Direction = option(
        "forward", "forward: KL(teacher || student); reverse: KL(student || teacher)."
    )
    distillation_share: float = option(
        1.0, "Share of the sequences with the distillation loss, chosen by the seed.", least=0, most=1
    )
    distillation_top_k: int = option(
        0,
        "Store this many of the teacher's best tokens per position before step 1; 0: run the teacher at each step.",
        least=0,
    )

    def __post_init__(self) -> None:
        """Refuse values that are out of bounds or do not go together, in one sentence."""
        super().__post_init__()
        settings_of(self.recipe)  # refuses a name that there is none of
        unknown = sorted(self.losses.keys() - set(SOURCE_LOSSES))
        if unknown:
            raise InputError(f"There is no loss {unknown[0]!r} from the source; choose of {', '.join(SOURCE_LOSSES)}.")
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown:
            raise InputError(f"There is no tracker {unknown[0]!r} to report to; choose of {', '.join(TRACKERS)}.")
        if self.needs_source and self.teacher:
            raise InputError("Losses from the source and a teacher do not go together; leave one out.")
        if self.freeze_shared_rows and self.weight_decay:
            raise InputError("Weight decay would change frozen rows; leave out weight_decay or freeze_shared_rows.")
        if self.needs_source and not self.cross_documents:
            raise InputError("Losses from the source need sequences that cross documents; leave cross_documents on.")
        _ = self.distillation  # refuses what makes no sense
        for one in self.options():
            value = getattr(self, one.name)
            if one.name.startswith("distillation_") and not self.teacher and value != one.default:
                raise InputError(
                    f"The setting {one.name} is {value}, but there is no teacher; name one, or leave it out."
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from plain JSON values; a missing setting has the recipe's value, else the default.

        Raises `InputError` for an unknown name or recipe, and for a value of the wrong type or out of range.
        """
        return super().from_dict({**settings_of(values.get("recipe", DEFAULT)), **values})

    def rates(self, processes: int = 1) -> tuple[float, float]:
        """Return the peak learning rates of stage 2: of embeddings and head, and of the body.

        Unless they are set, they grow with the square root of the tokens per step, because Adam's steps then have less
        noise (Malladi et al. 2022). Above `RATE_TOKENS` tokens in a run, they fall with the square root of the run's
        tokens, because the model forgets more when it reads more text at the same rates. Measured with 128 and 512
        tokens per step, and with 10,000 to 100,000 tokens (docs/decisions/0016-recovery-defaults.md).
        """
        per_step = self.sequences(processes) * self.sequence_length
        scale = math.sqrt(per_step / 128 * min(1.0, RATE_TOKENS / (per_step * self.steps)))
        body = self.learning_rate_stage2 or RATE_BODY * scale
        return self.learning_rate_rows or self.learning_rate_stage2 or RATE_ROWS * scale, body

    @property
    def source_losses(self) -> dict[str, float]:
        """Losses from the source model and their weights: the given ones, else the recipe's."""
        if self.losses or self.teacher or not self.cross_documents:
            return self.losses
        return RECIPES[self.recipe].losses

    @property
    def needs_source(self) -> bool:
        """Whether losses from the source were requested; the default recipe drops those that cannot be computed."""
        return bool(self.losses or (self.recipe != DEFAULT and RECIPES[self.recipe].losses))

    @property
    def distillation(self) -> DistillationSettings:
        """Settings of the teacher's part of the loss."""
        return DistillationSettings(
            self.distillation_weight, self.distillation_temperature, self.distillation_direction
        )

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of the trackers that `report_to` lists, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.report_to.split(",") if name.strip()))

    def sequences(self, processes: int = 1) -> int:
        """Return the number of sequences per step, on all processes together."""
        return self.batch_size * self.gradient_accumulation_steps * processes


class AdaptRunSettings(AdaptSettings, MeasuredTextSettings):
    """Settings of a tuning run: those of tuning, the model, the text, and the machine."""

    subject = "Tuning"

    model: str = required("The rearranged model: a folder, a name or a hub id.", path=True)
    device: str | None = option(None, "cpu or cuda; the best one here by default.")
    memory: float | None = option(
        None,
        "Memory limit in GB; a run that is estimated to need more does not start. Default: the available memory.",
        above=0,
    )
    processes: int | None = option(None, "Processes on this machine, one per GPU.", least=1)
    accelerate_config: str | None = option(
        None, "Start with accelerate launch and this configuration (docs/scale.md).", path=True
    )

    @property
    def tuning(self) -> AdaptSettings:
        """Those of tuning alone."""
        return AdaptSettings(**{name: getattr(self, name) for name in AdaptSettings.names()})
