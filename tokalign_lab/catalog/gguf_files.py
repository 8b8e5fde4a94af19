"""Convert GGUF files (llama.cpp's format) to Hugging Face folders.

transformers converts the quantised blocks of a GGUF to float32 at every load, which takes a minute, and refuses to save
such a model. So the converted weights are saved once, as bfloat16 safetensors, with the tokenizer and the special token
ids.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.errors import InputError, plain_read_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger("tokalign_lab")
# llama.cpp's names of byte-level pre-tokenizers that transformers' GGUF reader takes for GPT-2's
_SPLIT_DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_LIKE_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "gigachat"}


def read_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer inside a GGUF file.

    A warning names a pre-tokenizer that is not known, so that text is split as by GPT-2. Raises `InputError` if the
    file is not a GGUF that transformers can read.
    """
    from transformers import AutoTokenizer

    _check_magic(path)
    with plain_read_errors(lambda reason: f"The tokenizer in {path} cannot be read: {reason}."):
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        name = _pre_tokenizer_name(path)
        if name in _SPLIT_DIGITS:
            _split_digits(tokenizer)
        elif name not in _LIKE_GPT2 and type(tokenizer.backend_tokenizer.pre_tokenizer).__name__ == "ByteLevel":
            _log.warning(
                "%s: its pre-tokenizer %r is not known here, so text is split as by GPT-2, and numbers may get other "
                "ids; use the tokenizer.json of its model",
                path,
                name,
            )
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
    # these split numbers into digits first; transformers' GGUF reader drops that step
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
