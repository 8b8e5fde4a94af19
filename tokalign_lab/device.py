"""The default device: the first CUDA device if there is one, else the CPU; whether to compute in small sizes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tokalign_lab.errors import InputError

if TYPE_CHECKING:
    import torch


def fast() -> bool:
    """Whether $TOKALIGN_FAST asks for the small sizes that tests use."""
    return os.environ.get("TOKALIGN_FAST", "") not in ("", "0")


def pick_device(name: str | None = None) -> torch.device:
    """Return the device called `name` ("cpu", "cuda", "cuda:1"), or the default one.

    Raises InputError if the name is no CPU or CUDA device, or this machine has no such CUDA device.
    """
    import torch  # takes a second, and some panels do not need it

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"{name!r} is not a device that can be used here; use cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("CUDA was requested, but torch finds no CUDA device here; use cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{name} was requested, but the number of CUDA devices here is {torch.cuda.device_count()}.")
    return device


def describe_device(device: torch.device | None = None) -> str:
    """Describe a device, such as "CPU (2 threads)" or "NVIDIA H200 (140 GiB, bfloat16)"."""
    import torch

    device = pick_device() if device is None else device
    if device.type != "cuda":
        threads = torch.get_num_threads()
        return f"CPU ({threads} thread{'' if threads == 1 else 's'})"
    properties = torch.cuda.get_device_properties(device)
    number_format = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB, {number_format})"
