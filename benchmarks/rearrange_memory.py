"""Memory of rearranging a model's files shard by shard, compared with rearranging the model in memory.

    python benchmarks/rearrange_memory.py --out benchmarks/results/rearrange_memory.jsonl

This writes a LLaMA model with random bfloat16 weights and the widths of LLaMA 7B, with as many layers as `--gigabytes`
needs, to about `--shards` safetensors files. Each way gives it another vocabulary in a separate process: from SmolLM2's
49,152 tokens to a SentencePiece vocabulary of 32,000; shared tokens copied, every other row a mixture of two, output
rows separate. Peak memory is that of the process; `of which before` is its memory after loading libraries, vocabularies
and lexicon. The tensors in both folders must be equal.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import limit_threads, measured, parser, peak, report

SOURCE, TARGET = "smollm2-135m", "sp32k"
WIDTHS = {"hidden_size": 4096, "intermediate_size": 11_008, "num_attention_heads": 32}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--gigabytes", type=float, default=4.0, help="size of the model's files")
    options.add_argument("--shards", type=int, default=8)
    options.add_argument("--no-memory", action="store_true", help="skip the way in memory, for models that do not fit")
    chosen = options.parse_args()
    limit_threads(chosen.threads)
    gigabytes = 1.5 if chosen.quick else chosen.gigabytes
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "source"
        made = measured(write_model, str(folder), gigabytes, chosen.shards)
        rows = [{"way": "shard by shard", **measured(stream, str(folder), f"{work}/streamed")}]
        if not chosen.no_memory:
            rows.append({"way": "in memory", **measured(in_memory, str(folder), f"{work}/memory")})
            measured(compare, f"{work}/streamed", f"{work}/memory")
    shown = [
        {
            "way": row["way"],
            "seconds": row["seconds"],
            "peak GB": row["peak"],
            "of which before": row["before"],
            "added GB": row["peak"] - row["before"],
            "added over model": (row["peak"] - row["before"]) / made["model GB"],
        }
        for row in rows
    ]
    sizes = {name: value for name, value in made.items() if name != "peak"}
    notes = [
        "Mapped pages of the files that are read count as memory here, though the system takes them back when it must.",
        "Sizes in the first table are of files and tensors, in GB of 10^9 bytes; one shard and the two new matrices "
        f"are {made['largest shard GB'] + made['new matrices GB']:.2f}.",
    ]
    if not chosen.no_memory:
        notes.append("Both folders hold the same tensors, bit for bit.")
    report("Memory of rearranging", [("The model", [sizes]), ("Rearranging it", shown)], notes, chosen.out)


def write_model(folder: str, gigabytes: float, n_shards: int) -> dict[str, Any]:
    """Write shards of about equal size, tensor by tensor, with index, configuration and tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tokalign_lab import catalog
    from tokalign_lab.files import write_json

    size, width = catalog.load_vocabulary(SOURCE).size, WIDTHS["hidden_size"]
    layer = 2 * (4 * width * width + 3 * width * WIDTHS["intermediate_size"])
    layers = max(1, round((gigabytes * 1e9 - 4 * size * width) / layer))
    config = LlamaConfig(
        vocab_size=size, num_hidden_layers=layers, tie_word_embeddings=False, dtype="bfloat16", **WIDTHS
    )
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    shapes = {name: parameter.shape for name, parameter in outline.named_parameters()}
    total = sum(shape.numel() * 2 for shape in shapes.values())
    drawn = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    shards: list[dict[str, Any]] = [{}]
    held, weight_map, sizes = 0, {}, []
    for number, (name, shape) in enumerate(shapes.items()):
        numel = shape.numel()
        shards[-1][name] = drawn.roll(number).repeat(-(-numel // len(drawn)))[:numel].reshape(shape).contiguous()
        held += 2 * numel
        if held >= total / n_shards or number == len(shapes) - 1:
            file = f"model-{len(sizes) + 1:05d}-of-{n_shards:05d}.safetensors"
            Path(folder).mkdir(exist_ok=True)
            save_file(shards[-1], Path(folder) / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(shards[-1], file)
            sizes.append(held)
            shards, held = [{}], 0
    write_json(
        Path(folder) / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    catalog.load_vocabulary(SOURCE).tokenizer.save_pretrained(folder)
    return {
        "layers": layers,
        "shards": len(sizes),
        "model GB": total / 1e9,
        "largest shard GB": max(sizes) / 1e9,
        "old matrices GB": 4 * size * width / 1e9,
        "new matrices GB": 4 * catalog.load_vocabulary(TARGET).size * width / 1e9,
    }


def lexicon() -> tuple[Any, Any, Any]:
    from tokalign_lab import catalog
    from tokalign_lab.alignment.lexicon import Lexicon, make_provenance
    from tokalign_lab.alignment.lexicon.rows import LexiconRows, reverse_of
    from tokalign_lab.vocabulary import shared_tokens

    source, target = catalog.load_vocabulary(SOURCE), catalog.load_vocabulary(TARGET)
    rows, random = LexiconRows(target.size), np.random.default_rng(0)
    for token_id in range(target.size):
        rows.mix(token_id, random.choice(source.size, 2, replace=False).tolist(), [0.75, 0.25], "pieces")
        rows.mix_output(token_id, [int(rows.source_id[token_id])], [0.5], mean_weight=0.5)
    shared = shared_tokens(source, target)
    for source_id, target_id in zip(shared.source_ids, shared.target_ids, strict=True):
        rows.copy(int(target_id), int(source_id), "identical")
        rows.mix_output(int(target_id), [int(source_id)], [1.0])
    table = rows.to_table(source, target, np.zeros(source.size), np.zeros(target.size))
    provenance = make_provenance(source, target, recipe="made up", parameters={}, seed=0)
    return Lexicon(table, reverse_of(rows, source.size), provenance), source, target


def stream(folder: str, out: str) -> dict[str, Any]:
    from tokalign_lab.model.shards import Shards
    from tokalign_lab.model.stream import rearrange_files

    made, source, target = lexicon()
    before, started = peak(), time.perf_counter()
    shards = Shards.open(Path(folder))
    assert shards is not None
    rearrange_files(shards, made, source, target, Path(out))
    return {"seconds": time.perf_counter() - started, "before": before}


def in_memory(folder: str, out: str) -> dict[str, Any]:
    from tokalign_lab.model.load import load_model
    from tokalign_lab.model.rearrange import rearrange
    from tokalign_lab.model.save import save_model

    made, source, target = lexicon()
    before, started = peak(), time.perf_counter()
    converted = rearrange(load_model(folder, device="cpu", dtype="auto"), made, source, target)
    save_model(converted, target, out, source=source)
    return {"seconds": time.perf_counter() - started, "before": before}


def compare(one: str, other: str) -> dict[str, Any]:
    import torch

    from tokalign_lab.model.shards import Shards

    first, second = (Shards.open(Path(folder)) for folder in (one, other))
    assert first is not None
    assert second is not None
    assert first.file_of.keys() == second.file_of.keys()
    for name in first.file_of:
        assert torch.equal(first.read(name), second.read(name)), name
    return {}


if __name__ == "__main__":
    main()
