"""Memory of tuning, estimated from the model's configuration before its weights are read.

Every term is a number of values times their size. Activations are the values that a decoder layer keeps for its
backward pass: about 16 vectors of the hidden size (inputs and results of norms, queries, keys, values, residuals) and 4
of the feed-forward size. With smollm2-135m on a CPU, the estimate is 12 to 19 % above what
`benchmarks/tuning_memory.py` measured. With gradient checkpointing, which keeps the values and gradients of one layer
at a time, it is 7 % below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from tokalign_lab.adaptation.settings import AdaptSettings
from tokalign_lab.errors import InputError, first_line

if TYPE_CHECKING:
    import torch

GB = 1e9
_PROCESS_BYTES = 0.9 * GB
"""Python, torch, a tokenizer and the text: 0.7 to 1.1 GB before the first step with 2 MB of text."""
_HIDDEN_VECTORS, _INNER_VECTORS = 16, 4
_CHUNK_BYTES = {"cpu": 2 * (1 << 27), "cuda": 2 * (1 << 30)}
"""A chunk of logits (`adaptation.loss`) and its gradient."""
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a causal language model that determine its memory.

    Attributes
    ----------
    weights : number of all weights; tied matrices count once
    row_weights : number of weights in the input embedding and the output head
    layers, hidden, inner : layers, hidden size, and the size inside the feed-forward part (of all experts that read a
        token)
    """

    weights: int
    row_weights: int
    layers: int
    hidden: int
    inner: int

    @classmethod
    def of(cls, name: str) -> ModelSize:
        """Read the size of a model from its configuration; no weight is read or fetched.

        Raises `InputError` if there is no such model, or it is not a causal language model.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from tokalign_lab.catalog import model_folder

        try:
            config = AutoConfig.from_pretrained(str(model_folder(name)), trust_remote_code=False)
            config._attn_implementation = "eager"  # shapes alone matter, and this one needs no package
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"The model {name!r} cannot be loaded: {first_line(error)}.") from error
        rows = {id(one): one for one in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
        text = config.get_text_config()
        hidden = text.hidden_size
        inner = getattr(text, "moe_intermediate_size", None) or getattr(text, "intermediate_size", None) or 4 * hidden
        experts = getattr(text, "num_experts_per_tok", None) or 1
        return cls(
            sum(one.numel() for one in model.parameters()),
            sum(one.numel() for one in rows.values()),
            text.num_hidden_layers,
            hidden,
            inner * experts,
        )


@dataclass(frozen=True)
class TuningMemory:
    """Peak memory of one process of a tuning run in bytes, on the device where it computes.

    Attributes
    ----------
    fixed : independent of the batch: the process, weights, gradients, optimiser, source or teacher, a chunk of logits
    per_sequence : activations of one sequence
    batch : sequences that go through the model at once
    """

    fixed: float
    per_sequence: float
    batch: int

    @property
    def bytes(self) -> float:
        """All of it."""
        return self.fixed + self.batch * self.per_sequence


def tuning_memory(
    size: ModelSize,
    settings: AdaptSettings,
    device: str = "cpu",
    helper_weights: int = 0,
    sharded: bool = False,
    bf16: bool = False,
) -> TuningMemory:
    """Estimate the memory of tuning.

    Parameters
    ----------
    size : of the model to tune
    settings : of tuning; the settings of batch, stages and checkpointing are read
    device : "cpu" or "cuda"; on "cuda", memory outside the GPU does not count
    helper_weights : number of weights of a teacher or of the source, if the run uses one
    sharded : whether weights, gradients and optimiser may be spread over processes; they do not count then
    bf16 : whether the model computes in bfloat16
    """
    trained = size.row_weights if settings.stage1_share == 1 else size.weights
    number = 2 if bf16 else 4
    states = 0 if sharded else 4 * size.weights + 12 * trained + 4 * helper_weights  # gradient and two moments
    if bf16 and not sharded:
        states += 2 * size.weights  # the copy that computes
    layer = _HIDDEN_VECTORS * size.hidden + _INNER_VECTORS * size.inner
    kept = size.layers * size.hidden + 2 * layer if settings.gradient_checkpointing else size.layers * layer
    fixed = states + _CHUNK_BYTES[device] + (_PROCESS_BYTES if device == "cpu" else 0)
    return TuningMemory(fixed, float(number * kept * settings.sequence_length), settings.batch_size)


def device_memory(device: torch.device) -> int:
    """Memory of a device in bytes: that of the GPU, else that of the machine, or the limit of the container."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return min([psutil.virtual_memory().total, *_cgroup_limits()])


def check_memory(
    model: str,
    settings: AdaptSettings,
    device: torch.device,
    limit: float | None = None,
    processes: int = 1,
    sharded: bool = False,
) -> None:
    """Make sure that tuning fits in memory, before anything is read.

    Raises `InputError` if it does not fit; the message names settings that do.

    Parameters
    ----------
    model : as for `model.load.load_model`
    settings : of tuning
    device : where it computes
    limit : gigabytes (1e9 bytes) that the run may take on the device; by default all of its memory
    processes : how many processes share the memory (on GPUs, each has its own)
    sharded : as for `tuning_memory`
    """
    from tokalign_lab.adaptation.recovery.branches import SHARE
    from tokalign_lab.adaptation.trainer import computes_in_bf16
    from tokalign_lab.model.save import source_name

    size = ModelSize.of(model)
    helper = ModelSize.of(settings.teacher).weights if settings.teacher and not settings.distillation_top_k else 0
    losses = settings.source_losses if source_name(model) else {}
    helper = size.weights if losses else helper  # the source is about as large
    longer = 1 + SHARE if "branches" in losses else 1.0
    sharing = processes if device.type == "cpu" else 1
    bound = device_memory(device) if limit is None else limit * GB

    def need(changed: AdaptSettings) -> TuningMemory:
        bf16 = computes_in_bf16(changed, device)
        one = tuning_memory(size, changed, device.type, helper, sharded, bf16)
        return replace(one, fixed=sharing * one.fixed, per_sequence=sharing * longer * one.per_sequence)

    asked = need(settings)
    if asked.bytes <= bound:
        return
    has = "the bound is" if limit is not None else "the GPU has" if device.type == "cuda" else "this machine has"
    raise InputError(
        f"Tuning with batch_size {settings.batch_size} and sequence_length {settings.sequence_length} needs about "
        f"{_gigabytes(asked.bytes)} of memory, but {has} {_gigabytes(bound)}; {_what_fits(settings, need, bound)}"
    )


def _what_fits(settings: AdaptSettings, need: Any, bound: float) -> str:
    """Name settings with the same steps that fit within the limit or, if there are none, what would help."""
    for changed in _smaller(settings):
        found = need(changed)
        if found.bytes <= bound:
            newly = changed.gradient_checkpointing and not settings.gradient_checkpointing
            also = ", gradient_checkpointing" if newly else ""
            return (
                f"batch_size {changed.batch_size}{also} and gradient_accumulation_steps "
                f"{changed.gradient_accumulation_steps} take the same steps in about {_gigabytes(found.bytes)}."
            )
    least = need(replace(settings, batch_size=1, gradient_checkpointing=True))
    longest = math.floor(settings.sequence_length * (bound - least.fixed) / least.per_sequence)
    if longest < 2:
        return (
            f"without any text it needs {_gigabytes(least.fixed)} (weights, gradients, optimiser, the process): use a "
            "larger machine, a smaller model, or shards on several GPUs (docs/scale.md)."
        )
    return f"batch_size 1, gradient_checkpointing and a sequence_length of at most {longest} would fit."


def _smaller(settings: AdaptSettings) -> Iterator[AdaptSettings]:
    """Yield settings with the same sequences per step but smaller batches, the largest first."""
    for checkpointing in sorted({settings.gradient_checkpointing, True}):
        for batch in range(settings.batch_size, 0, -1):
            if settings.batch_size % batch == 0:
                more = settings.gradient_accumulation_steps * (settings.batch_size // batch)
                yield replace(
                    settings, batch_size=batch, gradient_accumulation_steps=more, gradient_checkpointing=checkpointing
                )


def _cgroup_limits() -> Iterator[int]:
    """Memory limits of this process's control groups in bytes; cgroup versions 1 and 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers in ("", "memory"):
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            own = Path(inside.lstrip("/"))
            for place in (own, *own.parents):
                file = _CGROUPS / controllers / place / name
                text = file.read_text().strip() if file.is_file() else ""
                if text.isdigit():
                    yield int(text)


def _gigabytes(count: float) -> str:
    return f"{count / GB:.{0 if count >= 10 * GB else 1}f} GB"
