"""Convert GGUF files (llama.cpp's format) to Hugging Face folders.

transformers converts the quantised blocks of a GGUF to float32 at every load, which takes a minute, and refuses to save
such a model. So the converted weights are saved once, as bfloat16 safetensors, with the tokenizer and the special token
ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.errors import InputError, plain_read_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def read_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer inside a GGUF file.

    Raises `InputError` if the file is not a GGUF that transformers can read.
    """
    from transformers import AutoTokenizer

    _check_magic(path)
    with plain_read_errors(lambda reason: f"The tokenizer in {path} cannot be read: {reason}."):
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        if _pre_tokenizer_name(path) == "smollm":
            _split_digits(tokenizer)
    return tokenizer


def convert(path: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`, weights as bfloat16 safetensors.

    Raises `InputError` if the file is not a GGUF of an architecture that transformers can read.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = read_tokenizer(path)
    with plain_read_errors(lambda reason: f"The model in {path} cannot be read: {reason}."):
        model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    # The tensors are no longer quantised; save_pretrained refuses as long as these three attributes mark them so.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._name_or_path = path.stem
    for config in (model.config, model.generation_config):
        for role in ("bos", "eos", "pad"):
            setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _check_magic(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path} is not a GGUF file; its first four bytes are not 'GGUF'.")


def _pre_tokenizer_name(path: Path) -> str:
    from gguf import GGUFReader

    field = GGUFReader(path).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field is not None else ""


def _split_digits(tokenizer: Any) -> None:
    # SmolLM splits numbers into digits first; transformers' GGUF reader drops that step.
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
