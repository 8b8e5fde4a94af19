"""Which share of a machine's arithmetic does tuning use? Model FLOP utilisation of both stages.

    python benchmarks/utilisation.py [--model FOLDER] [--batch-size N] [--sequence-length N] [--gradient-checkpointing]

FLOPs are those that a stage needs by the convention of PaLM (Chowdhery et al. 2022, appendix B), not those that the
program computes. With B weights in the matrices of the body, V d in the head, L layers, attention of width h and
sequences of s tokens, these are:

    stage 2, per token     6 (B + V d) + 12 L h s
    stage 1, per token     4 B + 6 V d + 12 L h s      no gradients of the body's weights

This counts full attention; a causal kernel needs half of it, and the last column counts only that half. Work that
gradient checkpointing repeats is not counted, so it lowers the utilisation. The reference is the faster of two products
of large square matrices on the same device, in the same process and number format, one before and one after the run.

The default model is SmolLM2-135M converted to Gemma 3's vocabulary, as `tuning_speed.py` makes it. `--model` takes any
folder with model and tokenizer; the values of its weights do not matter here.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import limit_threads, measured, parser, report
from tuning_speed import ours, prepare, settings_of

from tokalign_lab.adaptation.trainer import computes_in_bf16
from tokalign_lab.device import describe_device, pick_device
from tokalign_lab.model.load import load_model

SIDES = {"cpu": 4096, "cuda": 16384}  # size of the square matrices of the reference
SECONDS = 2.0  # duration of measuring the reference


def flops_per_token(model: Any, stage: int, length: int) -> tuple[float, float]:
    """Return the FLOPs that a stage needs per token, as above: of products with weights, and of attention."""
    head = model.get_output_embeddings()
    body = sum(
        weight.numel()
        for module in model.modules()
        if module is not head and not isinstance(module, torch.nn.Embedding)
        for weight in module.parameters(recurse=False)
        if weight.ndim == 2
    )
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    wide = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    attention = 12 * config.num_hidden_layers * wide * length
    return float((4 if stage == 1 else 6) * body + 6 * head.weight.numel()), float(attention)


def bare_product(device: torch.device, dtype: torch.dtype) -> float:
    """Measure FLOPs per second of a product of two square matrices."""
    side = SIDES[device.type]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out, best, started = torch.empty_like(left), 0.0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        _wait(device)
        begun = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def utilisation(
    model_name: str, stage: int, steps: int, batch: int, length: int, checkpointing: bool, text: str = "default"
) -> dict[str, Any]:
    """Tune for some steps, and compare the speed of the median step with the reference."""
    device = pick_device()
    settings = settings_of(stage, steps, batch, length)
    dtype = torch.bfloat16 if computes_in_bf16(settings, device) else torch.float32
    weights, attention = flops_per_token(load_model(model_name, device=torch.device("cpu")), stage, length)
    before = bare_product(device, dtype)
    speeds = ours(model_name, stage, steps, batch, length, text, gradient_checkpointing=checkpointing)["speeds"]
    most = max(before, bare_product(device, dtype))
    speed = statistics.median(speeds[1:])  # the first step includes setup
    needed = weights + attention
    return {
        "stage": stage,
        "device": describe_device(device),
        "computed_in": str(dtype).removeprefix("torch."),
        "tokens_per_second": speed,
        "GFLOP_per_token": needed / 1e9,
        "TFLOP_per_second": needed * speed / 1e12,
        "bare_product_TFLOP_per_second": most / 1e12,
        "utilisation": needed * speed / most,
        "half_of_attention_counted": (needed - attention / 2) * speed / most,
        "peak_GPU_GB": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else "",
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--model", help="folder with model and tokenizer")
    options.add_argument("--steps", type=int, default=6)
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--sequence-length", type=int, default=2048)
    options.add_argument("--gradient-checkpointing", action="store_true")
    given = options.parse_args()
    limit_threads(given.threads, gpu=True)
    target = "sp32k" if given.quick else "gemma3"
    if given.quick:
        given.steps, given.sequence_length = 2, 64
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or str(Path(folder) / target)
        if given.model is None:
            measured(prepare, target, model)
        rows = []
        for stage in (1, 2):
            row = measured(
                utilisation, model, stage, given.steps, given.batch_size, given.sequence_length,
                given.gradient_checkpointing,
            )  # fmt: skip
            row.pop("peak")  # the model was loaded twice; tuning_speed.py measures memory
            rows.append(row)
    again = ", gradient checkpointing" if given.gradient_checkpointing else ""
    notes = [
        f"{given.steps} steps of {given.batch_size} sequences of {given.sequence_length} tokens{again}; on a processor "
        f"{given.threads} threads. Speed is the median step's, the first left out; the bare product is the best of "
        "two square matrices before and after.",
        "What a stage needs besides its matrix products (softmax, norms, AdamW) is not counted.",
    ]
    report("Model FLOP utilisation of tuning", [("Both stages", rows)], notes, given.out)


if __name__ == "__main__":
    main()
