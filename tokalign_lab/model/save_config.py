"""Write a model's `config.json` so that transformers 4.57 reads the same model out of it as transformers 5.

transformers 5 stores the settings of rotary positions under `rope_parameters`. transformers 4.57 does not know that
name and uses its defaults without a warning: a base of 10,000 instead of the model's 100,000. Mixture models now call
the number of experts `num_local_experts`, before it was `num_experts`. Both versions read the older names, so these are
written as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokalign_lab.files import write_json

# type of model -> name in transformers 4.57 of the base of each kind of layer, and of the rotated share of each head
_BASES = {
    "gemma3": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
    "olmo3": {"full_attention": "rope_theta"},  # one base for both kinds
    "gpt_neox": {"": "rotary_emb_base"},
}
_SHARES = {"gpt_neox": "rotary_pct", "gpt_neox_japanese": "rotary_pct"}
_NOT_SCALING = ("rope_theta", "partial_rotary_factor")


def add_older_names(folder: Path) -> None:
    """Add the names of transformers 4.57 to a folder's `config.json`, and those of its parts."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    _add(config)
    config.pop("auto_map", None)  # code of the source's folder; transformers' own classes wrote this one
    write_json(path, config)


def _add(config: dict[str, Any]) -> None:
    for part in list(config.values()):
        if isinstance(part, dict):
            _add(part)
    if "num_local_experts" in config:
        config.setdefault("num_experts", config["num_local_experts"])
    parameters, names = config.get("rope_parameters") or {}, _names(config)
    if not parameters or names is None:
        return
    kinds = parameters if _is_nested(parameters) else {"": parameters}
    for kind, values in kinds.items():
        if kind not in names or not values:
            continue
        config.setdefault(names[kind], values.get("rope_theta"))
        if "partial_rotary_factor" in values:
            share = _SHARES.get(config.get("model_type", ""), "partial_rotary_factor")
            config.setdefault(share, values["partial_rotary_factor"])
        if values.get("rope_type", "default") != "default" and kind in ("", "full_attention"):
            scaling = {name: value for name, value in values.items() if name not in _NOT_SCALING}
            if values["rope_type"] == "longrope" and config.get("model_type") == "phi3":  # it refuses other entries
                scaling = {"type": "longrope", **{name: values[name] for name in ("short_factor", "long_factor")}}
            config["rope_scaling"] = scaling


def _names(config: dict[str, Any]) -> dict[str, str] | None:
    """Return the name in 4.57 of the base of each kind of layer; None if it has no names for these kinds."""
    kind = str(config.get("model_type", ""))
    nested = _is_nested(config.get("rope_parameters") or {})
    named = next((names for start, names in _BASES.items() if kind.startswith(start)), None)
    if named is not None and nested == ("" not in named):
        return named
    return None if nested else {"": "rope_theta"}


def _is_nested(parameters: dict[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in parameters.values())
