"""Check which architectures have the same logits after the ids of the vocabulary are renumbered.

    python benchmarks/architectures.py --out docs/architectures.md

For each causal language model of transformers, this makes a small random model, converts it to the same tokenizer with
randomly renumbered ids, and compares the logits of 30 tokens. They must be equal, or `rearrange` must refuse the model.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from test_cases_models import BIG, FURTHER, RENUMBERED, randomised, renumbering, same_logits

from tokalign_lab.errors import InputError, first_line
from tokalign_lab.model.load import quiet
from tokalign_lab.model.rearrange import rearrange

MOST_WEIGHTS = 20_000_000
# Small values for names of sizes in configurations; a configuration gets those that it has.
SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim_model", "emb_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "dim_ff", "n_inner", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads"),
        4,
    ),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k", "num_key_value_heads"), 2),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("rotary_dim", "state_size", "mamba_d_state", "time_step_rank", "conv_kernel"), 4),
    **dict.fromkeys(("mamba_n_heads", "mamba_d_head"), 8),
    "word_embed_proj_dim": 32,
    "sliding_window": 16,
    "is_decoder": True,
    "attention_types": [[["global", "local"], 1]],
}
# Further values that single architectures need: sizes that depend on each other, kinds of layers under another name.
OWN: dict[str, dict[str, Any]] = {
    "mamba2": {"expand": 1, "n_groups": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "n_mamba_heads": 8, "num_mem_blocks": 1},
    "xmod": {"default_language": "en_XX"},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8], "is_decoder": True},
    "zaya": {"num_experts_per_tok": 1},
}
_IDS = {"bos_token_id": BIG.roles["bos"], "eos_token_id": BIG.roles["eos"], "pad_token_id": BIG.roles["pad"]}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--only", help="names of architectures, separated by commas")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    names = given.only.split(",") if given.only else sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    begin, results = time.process_time(), {}
    for name in names:
        results[name] = result_of(name)
        print(f"{name}: {results[name]}", flush=True)
    page = page_of(results, time.process_time() - begin)
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


def result_of(name: str) -> str:
    """Return "equal", "differs", "refused: ..." or "not tried: ..."."""
    try:
        model = small_model(name)
    except Exception as error:  # a small configuration may break any architecture in its own way
        return f"not tried: {type(error).__name__}: {first_line(error)[:90]}"
    try:
        with quiet():
            converted = rearrange(model, renumbering(), BIG, RENUMBERED)
    except InputError as error:
        return f"refused: {error}"
    try:
        return "equal" if same_logits(model, converted) else "differs"
    except Exception as error:  # as above
        return f"not tried: {type(error).__name__}: {first_line(error)[:90]}"


def small_model(name: str) -> Any:
    """Make a small random model of an architecture."""
    made = {"gemma4_text": "gemma4", "gemma3n_text": "gemma3n", "deepseek_v4": "deepseek_v4"}.get(name)
    if made is not None:
        return randomised(FURTHER[made]())
    kind = CONFIG_MAPPING[name]
    try:
        return _random_model(kind(**sizes_for(kind()) | OWN.get(name, {})))
    except Exception:  # a small configuration may break any architecture in its own way
        return _random_model(kind(**sizes_for(kind(), also_unset=True) | OWN.get(name, {})))


def _random_model(config: Any) -> Any:
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(config).num_parameters()
    if weights > MOST_WEIGHTS:
        raise ValueError(f"{weights:,} weights with the sizes that are known here")
    model = randomised(config)
    with torch.no_grad():
        model(torch.tensor([[3, 4, 5]]), use_cache=False)
    return model


def sizes_for(config: Any, also_unset: bool = False) -> dict[str, Any]:
    """Choose small values for the sizes of a configuration and of its nested configurations.

    A size that is None by default stays None, unless `also_unset`.
    """
    computed = {key for key in SMALL if isinstance(getattr(type(config), key, None), property)}
    names = {
        key for key in SMALL.keys() - computed if _size(config, key) is not None or (also_unset and key in vars(config))
    }
    chosen = {key: SMALL[key] for key in names}
    if "kv_lora_rank" in chosen:  # multi-head latent attention has no groups of heads
        chosen["num_key_value_heads"] = 4
    if "vocab_size" in vars(config):
        chosen |= {"vocab_size": BIG.size, **_IDS}
        layers = vars(config).get("layer_types")
        if isinstance(layers, list):
            chosen["layer_types"] = layers[:1] + layers[-1:] if also_unset else layers[:2]
        elif also_unset and "layer_types" in vars(config):
            chosen["layer_types"] = ["full_attention"] * 2
    for part in config.sub_configs:
        if getattr(config, part, None) is not None:
            chosen[part] = sizes_for(getattr(config, part), also_unset)
    return chosen


def _size(config: Any, name: str) -> Any:
    """Return a size; None if the configuration does not have it, or has one for each layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers' own kind, which may differ between layers
        return vars(config).get(name)


def page_of(results: dict[str, str], seconds: float) -> str:
    """Return the page as Markdown, with the architectures that do not work first."""
    parts: dict[str, list[tuple[str, str]]] = {"differs": [], "refused": [], "not tried": [], "equal": []}
    for name, found in results.items():
        kind, _, why = found.partition(": ")
        parts[kind].append((name, why))
    words = {"differs": "differ", "equal": "have equal logits", "refused": "are refused", "not tried": "were not tried"}
    counts = ", ".join(f"{len(parts[kind])} {verb}" for kind, verb in words.items())
    lines = [
        "# Architectures",
        "",
        "For each causal language model of transformers, a small random model was converted to the same tokenizer with",
        "its ids renumbered at random. Its logits for 30 tokens must be equal, or `rearrange` must refuse it.",
        "",
        "```sh",
        "python benchmarks/architectures.py --out docs/architectures.md",
        "```",
        "",
        f"transformers {transformers.__version__} has {len(results)} of them: {counts}.",
        f"It took {seconds:.0f} CPU seconds. Not tried: this program makes no small configuration that works.",
    ]
    for kind in ("differs", "refused", "not tried"):
        if parts[kind]:
            lines += ["", f"## {kind.capitalize()}", "", "| architecture | reason |", "|---|---|"]
            lines += [f"| {name} | {why.replace('|', ' ')} |" for name, why in parts[kind]]
    lines += ["", "## Equal logits", "", ", ".join(name for name, _ in parts["equal"]) + ".", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
