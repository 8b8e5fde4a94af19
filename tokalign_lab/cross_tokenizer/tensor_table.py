"""Tensors with one row per item, as columns of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class TensorTable:
    """Base of dataclasses whose fields are all tensors of n rows."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self, chosen: torch.Tensor) -> Self:
        """Return some of the rows, given as a mask or as indices."""
        return type(self)(*(column[chosen] for column in vars(self).values()))

    def on(self, device: torch.device) -> Self:
        """Return the same table on a device."""
        return type(self)(*(column.to(device) for column in vars(self).values()))
