"""The losses of a recovery run: the next-token loss, and losses from the source's predictions on the same text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokalign_lab.adaptation.settings import SOURCE_LOSSES, DistillationSettings
from tokalign_lab.errors import InputError

WEIGHTS = ("next_token", *SOURCE_LOSSES)


@dataclass(frozen=True)
class Objective:
    """The losses and their weights; 0 excludes a loss.

    Attributes
    ----------
    next_token : of the text itself
    likelihood : ALM (see `likelihood`), with temperature `tau`, and debiased if `debias` is set
    shared : KL at strict 1:1 positions, with `kl`'s temperature and direction
    prefix : divergence of predictions mapped to the student's tokens (`next_token.Expected`), per predicted position
    branches : the same for second pieces (`branches`), per predicted position
    states : squared difference of the states after each of `state_layers`, mean over these layers; if balanced, each
        layer has this weight
    values : MATT's loss in `value_layer`
    balanced : weights are relative to the gradient of the next-token loss
    """

    next_token: float = 1.0
    likelihood: float = 0.0
    tau: float = 5.0
    debias: bool = False
    shared: float = 0.0
    prefix: float = 0.0
    branches: float = 0.0
    kl: DistillationSettings = dataclasses.field(default_factory=DistillationSettings)
    states: float = 0.0
    state_layers: tuple[int, ...] = ()
    values: float = 0.0
    value_layer: int = 0
    balanced: bool = False

    @classmethod
    def of(cls, losses: Mapping[str, float], n_layers: int) -> Objective:
        """Add losses from the source to the next-token loss.

        If all losses are in nats per predicted token, they are added unscaled. Else the units differ, and all losses
        are balanced.

        Parameters
        ----------
        losses : weights by name (`SOURCE_LOSSES`)
        n_layers : layers of the model; states and values are compared after a third of them (as MATT does)
        """
        third = max(1, round(n_layers / 3))
        balanced = not losses.keys() <= {"shared", "prefix", "branches"}
        options: dict[str, Any] = {"state_layers": (third,), "value_layer": third, "balanced": balanced}
        return cls(**options | dict(losses))

    def __post_init__(self) -> None:
        """Raise `InputError` for invalid values."""
        weights = {name: getattr(self, name) for name in WEIGHTS}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"The weight of {name!r} is {weight}, but it must be a number of at least 0.")
        if not any(weights.values()):
            raise InputError(f"Every loss has the weight 0; give one of {', '.join(WEIGHTS)} a weight.")
        if not (math.isfinite(self.tau) and self.tau > 0):
            raise InputError(f"The temperature tau is {self.tau}, but it must be a number above 0.")
        if self.balanced and not self.next_token:
            raise InputError("Balanced weights are relative to the next-token loss; give next_token a weight.")
        if self.states and not self.state_layers:
            raise InputError("States are to be compared, but state_layers names no layer.")
        if self.values and not self.value_layer:
            raise InputError("Values are to be compared, but value_layer names no layer.")

    @property
    def needs_head(self) -> bool:
        """Whether the source's predictions are needed."""
        return bool(self.likelihood or self.shared or self.prefix or self.branches)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose states are compared."""
        return tuple(sorted(set(self.state_layers))) if self.states else ()

    @property
    def source_layers(self) -> tuple[int, ...]:
        """Layers of the source whose outputs are needed, ascending."""
        return tuple(sorted({*self.layers, *([self.value_layer] if self.values else [])}))
