"""The losses of a recovery run: the next-token loss, and losses from the source's predictions on the same text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokalign_lab.adaptation.settings import SOURCE_LOSSES

WEIGHTS = ("next_token", *SOURCE_LOSSES)


@dataclass(frozen=True)
class Objective:
    """The losses and their weights; 0 excludes a loss.

    Attributes
    ----------
    next_token : of the text itself
    likelihood : ALM (see `likelihood`)
    shared : KL over shared tokens at strict 1:1 positions (`next_token.SharedTokens`)
    prefix : divergence of predictions mapped to the student's tokens (`next_token.Expected`), per predicted position
    branches : the same for second pieces (`branches`), per predicted position
    states : squared difference of the states after `layer`
    values : MATT's loss in `layer`
    layer : counted from 1
    balanced : weights are relative to the gradient of the next-token loss
    """

    next_token: float = 1.0
    likelihood: float = 0.0
    shared: float = 0.0
    prefix: float = 0.0
    branches: float = 0.0
    states: float = 0.0
    values: float = 0.0
    layer: int = 1
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
        balanced = not losses.keys() <= {"shared", "prefix", "branches"}
        return cls(**losses, layer=max(1, round(n_layers / 3)), balanced=balanced)

    @property
    def needs_head(self) -> bool:
        """Whether the source's predictions are needed."""
        return bool(self.likelihood or self.shared or self.prefix or self.branches)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer of the source whose output is needed, if one is."""
        return (self.layer,) if self.states or self.values else ()
