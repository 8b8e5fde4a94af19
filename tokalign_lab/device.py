"""Which device the work runs on: the first CUDA device where there is one, else the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokalign_lab.errors import InputError

if TYPE_CHECKING:
    import torch


def pick_device(name: str | None = None) -> torch.device:
    """Return the device called `name` ("cpu", "cuda", "cuda:1"), or the best one here without a name.

    Raises
    ------
    InputError
        When the name is not a device, or CUDA is asked for and there is none.
    """
    import torch  # a second, and a panel that only reads a recipe's description needs none of it

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"{name!r} is not a device; use cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("CUDA was asked for, but torch finds no CUDA device here; use cpu.")
    return device


def describe_device(device: torch.device | None = None) -> str:
    """Say what a device is, such as "CPU (2 threads)" or "NVIDIA H200 (140 GiB, bfloat16)"."""
    import torch

    device = pick_device() if device is None else device
    if device.type != "cuda":
        threads = torch.get_num_threads()
        return f"CPU ({threads} thread{'' if threads == 1 else 's'})"
    properties = torch.cuda.get_device_properties(device)
    number_format = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB, {number_format})"
