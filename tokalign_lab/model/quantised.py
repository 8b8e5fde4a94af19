"""Quantised models: most have a plain embedding and head, and only these are rearranged.

FP8, GPTQ, AWQ, bitsandbytes, compressed-tensors and MXFP4 each store the layers' matrices in their own form, with
scales and zero points, and name the method in `config.json`. Some programs name it in a separate file, which
transformers does not read. None of that depends on the vocabulary. So a quantised model is rearranged through its
files, without loading it, and everything but the rows is kept bit for bit.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tokalign_lab.errors import InputError, plain_read_errors
from tokalign_lab.files import write_json

_KEYS = ("quantization_config", "compression_config")
SETTINGS_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
"""Where ModelOpt, AutoGPTQ and AutoAWQ write their settings."""
_NOT_QUANTISED = ("ignore", "modules_to_not_convert", "llm_int8_skip_modules", "exclude_modules")
_SCALE = re.compile(r"(weight_scale|input_scale|scale_inv|qzeros|qweight|weight_packed|absmax|SCB)$")
_WIDENED = ("fp8", "mxfp4")  # methods that transformers turns back into plain weights without a GPU


def config_of(folder: Path) -> dict[str, Any]:
    """Return a folder's `config.json`; empty if it cannot be read, which loading the model reports."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """Return the quantization settings in a model folder's `config.json` or next to it; None without any."""
    for part in _parts(config_of(folder)):
        for key in _KEYS:
            if isinstance(part.get(key), dict):
                return part[key]
    file = next((folder / name for name in SETTINGS_FILES if (folder / name).is_file()), None)
    return None if file is None else settings_in(file)


def settings_in(file: Path) -> dict[str, Any]:
    """Read a JSON file of settings. Raises `InputError` when it is damaged."""
    with plain_read_errors(lambda reason: f"{file} is damaged ({reason}); fetch it again."):
        return dict(json.loads(file.read_text(encoding="utf-8")))


def keep_settings(old: Path, new: Path, plain_head: str | None) -> None:
    """Copy the quantization settings of the old model folder to the new one, in the file where the old one has them.

    `plain_head` names a head that was untied; it is added to the modules that are not quantised.
    """
    before, config = config_of(old), config_of(new)
    for place, part in {"": before, **before}.items():
        for key in _KEYS if isinstance(part, dict) else ():
            if isinstance(part.get(key), dict):
                settings = copy.deepcopy(part[key])
                _except_head(settings, plain_head)
                (config.setdefault(place, {}) if place else config)[key] = settings
    write_json(new / "config.json", config)
    for name in SETTINGS_FILES:
        if (old / name).is_file():
            settings = settings_in(old / name)
            for part in _parts(settings):
                _except_head(part, plain_head)
            write_json(new / name, settings)


def scales_among(names: Iterable[str]) -> list[str]:
    """Names of tensors that hold quantised weights or their scales, sorted."""
    return sorted(name for name in names if _SCALE.search(name))


def _except_head(settings: dict[str, Any], head: str | None) -> None:
    for key in _NOT_QUANTISED:
        if head and isinstance(settings.get(key), list) and head not in settings[key]:
            settings[key].append(head)


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [config, *(part for part in config.values() if isinstance(part, dict))]


def method_of(quantization: dict[str, Any]) -> str:
    """Return the method's name, such as "gptq"."""
    producer = quantization.get("producer")
    named = producer.get("name") if isinstance(producer, dict) else None
    return str(quantization.get("quant_method") or named or "a method of its own")


def plain_config(folder: Path) -> Any:
    """Read a quantised model's configuration as that of a model with plain weights.

    Raises `InputError` when it cannot be read.
    """
    from transformers import AutoConfig

    with plain_read_errors(lambda reason: f"The model {str(folder)!r} cannot be loaded: {reason}."):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    for part in (config, config.get_text_config()):
        for key in _KEYS:
            if hasattr(part, key):
                delattr(part, key)
    return config


def check_rows_are_plain(names: dict[str, list[str]], dtypes: dict[str, str], method: str) -> None:
    """Refuse a model whose embedding or head is quantised too.

    Raises `InputError` when one has no plain form, or has scales.

    Parameters
    ----------
    names : as `Shards.names`
    dtypes : name of each tensor in the files -> its dtype there, as safetensors writes it
    method : for the error
    """
    for part, held in names.items():
        places = {name.rpartition(".")[0] for name in held}
        scales = [name for name in dtypes if name.rpartition(".")[0] in places and name not in held]
        scales = [name for name in scales if not name.endswith((".weight", ".bias"))]
        plain = ("F64", "F32", "F16", "BF16", *(() if part in ("input", "output") else ("I64", "I32")))
        if not held or scales or not all(dtypes[name] in plain for name in held):
            raise InputError(
                f"The model is quantised ({method}) and its {part} too, so it has no rows to rearrange; "
                "dequantize it, or use the model it was made from."
            )


def forget_if_plain(model: Any) -> None:
    """Make sure that a model that was dequantized during loading is saved with plain weights.

    transformers 5 records how the weights were read and reverses it when it saves: it writes FP8 and scales again,
    but without their configuration, so a model loaded from that is wrong by the scales.
    """
    conversions = getattr(model, "_weight_conversions", None)
    if getattr(model, "hf_quantizer", None) is None and conversions:
        model._weight_conversions = [
            conversion
            for conversion in conversions
            if not any("scale" in pattern for pattern in getattr(conversion, "source_patterns", ()))
        ]


def dequantize_options(quantization: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `from_pretrained` that load a quantised model with plain weights.

    Raises `InputError` when transformers cannot do that without the method's own package and a GPU.
    """
    from transformers import FineGrainedFP8Config, Mxfp4Config

    method = method_of(quantization)
    if method not in _WIDENED:
        raise InputError(
            f"A model quantised by {method} cannot be dequantized here, only {' and '.join(_WIDENED)}; "
            "use the model it was made from."
        )
    return {
        "quantization_config": (FineGrainedFP8Config if method == "fp8" else Mxfp4Config)(dequantize=True),
        "dtype": torch.bfloat16,
    }
