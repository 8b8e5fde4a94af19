"""Several processes that tune one model together, as `accelerate launch` starts them.

Each has the environment variables that torch's launcher sets. Only the first one reports; all of them must stop at the
same step, or the others would wait forever.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from accelerate import PartialState


class StoppedTogether(BaseException):
    """Raised in a process because another one is to stop."""


class Processes:
    """The processes of this run; one, if it was started without a launcher."""

    def __init__(self, device: torch.device) -> None:
        self._state = PartialState(cpu=device.type == "cpu")
        self.count: int = self._state.num_processes
        self.is_first: bool = self._state.is_main_process
        self.device: torch.device = device if self.count == 1 else self._state.device

    def wait(self) -> None:
        """Wait until every process has arrived."""
        self._state.wait_for_everyone()

    def first_goes_first(self) -> AbstractContextManager[None]:
        """Let the first process do a block before the others do it."""
        return self._state.main_process_first()

    def agree(self, stop: BaseException | None) -> BaseException | None:
        """Return a reason to stop if any process has one: this process's own reason, else `StoppedTogether`."""
        if self.count == 1:
            return stop
        flag = torch.tensor([stop is not None], dtype=torch.int32, device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return StoppedTogether() if stop is None and flag.item() else stop

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes; every process must call this."""
        if self.count == 1:
            return values
        values = values.to(self.device, copy=True)
        dist.all_reduce(values)
        return values


def is_sharded() -> bool:
    """Return whether accelerate shards the model over the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
