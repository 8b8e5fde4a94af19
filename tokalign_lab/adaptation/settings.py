"""What a person can set about tuning, checked once, at the edge.

Defaults are the papers': two stages of equal length, learning rates 6.4e-4 and 5e-5 (TokAlign's released code),
warm-up 3 %, gradients clipped at 0.3, no weight decay (upstream passes one but never uses it). Batch and sequence
are sized for a processor; on a GPU take more. Of distillation the papers state neither direction, nor weight, nor
temperature, nor share; the defaults are the plain ones (forward, 1, 1, all).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tokalign_lab.errors import InputError

Direction = Literal["forward", "reverse"]


@dataclass(frozen=True)
class DistillationSettings:
    """How much of the loss is the teacher's, and how it is compared.

    Attributes
    ----------
    weight : float
        Of the divergence beside the next-token loss, at least 0.
    temperature : float
        Both distributions are softened by it, above 0.
    direction : {"forward", "reverse"}
        KL(teacher || student): cover all that the teacher holds possible; or KL(student || teacher): say nothing that
        the teacher holds impossible.
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


@dataclass(frozen=True)
class AdaptSettings:
    """Settings of a tuning run.

    Attributes
    ----------
    steps : int
        Optimiser steps of both stages together.
    stage1_share : float
        Share of the steps that train only the embeddings and the head, 0 to 1.
    learning_rate_stage1, learning_rate_stage2 : float
        Peak learning rates; each stage has its own cosine schedule.
    warmup_ratio : float
        Share of each stage's steps in which the rate rises, 0 to 1.
    batch_size : int
        Sequences that go through the model at once, on each process.
    gradient_accumulation_steps : int
        Batches a step, on each process: a step reads batch_size * gradient_accumulation_steps * processes sequences.
    sequence_length : int
        Tokens a sequence.
    cross_documents : bool
        Whether attention and loss go across the documents of a sequence, as in the papers. Without it each document
        is read as if it stood alone.
    mix : dict of str to float
        A factor by slice ("de": 2.0) on how often its text comes; 1 for a slice that is not named, 0 leaves it out.
    temperature : float
        1 takes slices as often as they are large; more takes the small ones more often, a slice's share being
        proportional to its size to the power of 1 / temperature.
    gradient_clip : float
        Largest norm of the gradient.
    weight_decay : float
        AdamW's; frozen weights are never decayed.
    bf16 : bool or None
        Compute in bfloat16 (weights and optimiser stay float32); where the GPU can when not given.
    gradient_checkpointing : bool
        Keep only each layer's input for the backward pass and compute the rest again: less memory, a third more work.
    seed : int
        Seed of the order of the data, of the mix and of dropout.
    evaluate_every : int
        Steps between measurements of bits per byte; 0 for only at the beginning and after each stage.
    evaluate_bytes : int
        How much held-out text a measurement reads.
    held_out_share : float
        Share of the text that is never trained on, where the text does not say so itself.
    prompts : tuple of str
        Prompts that are continued, greedily, at each measurement.
    sample_tokens : int
        Tokens of such a continuation.
    save_every : int
        Steps between checkpoints; there is always one at the end of a stage.
    teacher : str
        A model with the same tokenizer (folder, name or hub id) whose predictions are learnt from too; "" for none.
    distillation_weight, distillation_temperature, distillation_direction : float, float, str
        How the teacher's predictions enter the loss: `DistillationSettings`.
    distillation_share : float
        Share of the sequences that the teacher is asked about, 0 to 1, drawn by the seed; the others keep the
        next-token loss.
    distillation_top_k : int
        0 lets the teacher read along, step by step. k > 0 lets it read the sequences once, before the first step, and
        keeps its k best tokens at each position in the cache.
    """

    steps: int = 100
    stage1_share: float = 0.5
    learning_rate_stage1: float = 6.4e-4
    learning_rate_stage2: float = 5e-5
    warmup_ratio: float = 0.03
    batch_size: int = 4
    gradient_accumulation_steps: int = 1
    sequence_length: int = 128
    cross_documents: bool = True
    mix: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    gradient_clip: float = 0.3
    weight_decay: float = 0.0
    bf16: bool | None = None
    gradient_checkpointing: bool = False
    seed: int = 0
    evaluate_every: int = 0
    evaluate_bytes: int = 20_000
    held_out_share: float = 0.05
    prompts: tuple[str, ...] = ("The capital of France is", "def add(a, b):\n    return")
    sample_tokens: int = 24
    save_every: int = 100
    teacher: str = ""
    distillation_weight: float = 1.0
    distillation_temperature: float = 1.0
    distillation_direction: Direction = "forward"
    distillation_share: float = 1.0
    distillation_top_k: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense, in one sentence."""
        for name in (
            "steps", "batch_size", "gradient_accumulation_steps", "sample_tokens", "save_every", "evaluate_bytes"
        ):  # fmt: skip
            _require(getattr(self, name) >= 1, name, getattr(self, name), "a whole number of at least 1")
        _require(self.sequence_length >= 2, "sequence_length", self.sequence_length, "a whole number of at least 2")
        for name in ("seed", "evaluate_every", "distillation_top_k"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "a whole number of at least 0")
        for name in ("stage1_share", "warmup_ratio", "distillation_share"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        _require(0 < self.held_out_share < 1, "held_out_share", self.held_out_share, "between 0 and 1")
        for name in ("learning_rate_stage1", "learning_rate_stage2", "gradient_clip"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, name, value, "a number above 0")
        _require(
            math.isfinite(self.temperature) and self.temperature >= 1, "temperature", self.temperature, "at least 1"
        )
        for name, weight in self.mix.items():
            _require(math.isfinite(weight) and weight >= 0, f"mix of {name!r}", weight, "a number of at least 0")
        _require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            "weight_decay",
            self.weight_decay,
            "at least 0",
        )
        _ = self.distillation  # refuses what makes no sense
        for name, of in self.of_distillation().items():
            default = self.__dataclass_fields__[name].default
            if not self.teacher and of != default:
                raise InputError(f"The setting {name} is {of}, but there is no teacher; name one, or leave it out.")

    @property
    def distillation(self) -> DistillationSettings:
        """How the teacher's predictions enter the loss."""
        return DistillationSettings(
            self.distillation_weight, self.distillation_temperature, self.distillation_direction
        )

    def of_distillation(self) -> dict[str, Any]:
        """Return the settings that have no meaning without a teacher."""
        return {name: value for name, value in vars(self).items() if name.startswith("distillation_")}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AdaptSettings:
        """Make settings from plain JSON values; what is not given keeps its default.

        Raises
        ------
        InputError
            For an unknown name, a value of the wrong type, or one out of range.
        """
        hints = get_type_hints(cls)
        unknown = sorted(values.keys() - hints.keys())
        if unknown:
            raise InputError(f"Tuning has no setting {unknown[0]!r}; it takes {', '.join(hints)}.")
        return cls(**{name: _convert(name, value, hints[name]) for name, value in values.items()})

    def sequences(self, processes: int = 1) -> int:
        """How many sequences a step reads, on all processes together."""
        return self.batch_size * self.gradient_accumulation_steps * processes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "prompts": list(self.prompts)}


def _convert(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InputError(f"The setting {name} must be a list of texts, not {value!r}.")
    if get_origin(kind) is dict:
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: _convert(f"{name} of {key!r}", weight, float) for key, weight in value.items()}
        raise InputError(f"The setting {name} must be numbers by slice, not {value!r}.")
    if bool in (kind, *get_args(kind)):
        if isinstance(value, bool) or (value is None and kind is not bool):
            return value
        raise InputError(f"The setting {name} must be true or false, not {value!r}.")
    if kind is str or get_origin(kind) is Literal:
        if isinstance(value, str):
            return value
        raise InputError(f"The setting {name} must be a text, not {value!r}.")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and whole:
        return value
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    raise InputError(f"The setting {name} must be a {'whole number' if kind is int else 'number'}, not {value!r}.")


def _require(holds: bool, name: str, value: Any, what: str) -> None:
    if not holds:
        raise InputError(f"The setting {name} is {value}, but it must be {what}.")
