"""Load a causal language model by name: a catalogue name, a folder, a GGUF file or a hub id.

`load_outline` loads it without weights, on torch's meta device: parts, names, shapes and configurations, for work on
the files themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError, first_line, plain_read_errors
from tokalign_lab.model.quantised import dequantize_options, forget_if_plain, quantization_of, scales_among, settings_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# the files that transformers would fetch, without weights in several files (see `_further_weights`)
_FILES = ["*.json", "*.jinja", "tokenizer.model", "model.safetensors"]


def load_model(
    name: str, device: torch.device | str | None = None, dtype: torch.dtype | str = torch.float32
) -> PreTrainedModel:
    """Load a model in evaluation mode.

    Raises `InputError` if there is no such model, it is not a causal language model, weights are missing or have
    another shape than in the configuration, or it is quantised by a method that transformers does not apply.

    Parameters
    ----------
    name
        Catalogue name, model folder, GGUF file or hub id. Code in a repository is never run.
    device
        The device to load it on; by default the best one of this machine.
    dtype
        A torch dtype, or "auto" for the one the weights were saved in.
    """
    place = device if isinstance(device, torch.device) else pick_device(device)
    return _complete(name, dtype=dtype).to(place).eval()


def load_dequantized(name: str) -> PreTrainedModel:
    """Load a quantised model with plain weights, in bfloat16 on the CPU; other models are loaded unchanged.

    Raises `InputError` as `load_model`, or when dequantizing needs the method's own package and a GPU.
    """
    quantization = quantization_of(files_of(name))
    if quantization is None:
        return load_model(name, device="cpu", dtype="auto")
    model = _complete(name, **dequantize_options(quantization)).eval()
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model


def load_outline(name: str) -> PreTrainedModel:
    """Load a model without its weights: parameters on the meta device, in the dtype they were saved in.

    Raises `InputError` as `load_model`.
    """
    return _complete(name, dtype="auto", device_map="meta")


def read_model(name: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a model with transformers, even if weights are missing.

    Returns the model and a report with `missing_keys`, `unexpected_keys` and `mismatched_keys`. Raises `InputError`
    when there is no such model or it is not a causal language model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tokalign_lab.catalog import model_folder
    from tokalign_lab.catalog.resolve import ADAPTER, adapter_error, file_of

    logging.disable_progress_bar()  # the engine itself prints nothing
    folder = str(model_folder(str(name)))
    quantised = quantization_of(Path(folder)) is not None
    with plain_read_errors(lambda reason: f"The model {name!r} cannot be loaded: {reason}."):
        if file_of(folder, ADAPTER) is not None:
            raise adapter_error(folder)
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, trust_remote_code=False, output_loading_info=True, **options
        )
    if quantised:
        forget_if_plain(model)
    _read_further_generation_settings(model, folder)
    return model, report


def _read_further_generation_settings(model: PreTrainedModel, folder: str) -> None:
    """Add what transformers leaves out of a file with `_from_model_config`: settings that it does not declare."""
    from tokalign_lab.catalog.resolve import file_of

    file = None if model.generation_config is None else file_of(folder, "generation_config.json")
    if file is not None:
        settings = settings_in(file)
        for name in settings.keys() - vars(model.generation_config):
            setattr(model.generation_config, name, settings[name])


def files_of(name: str) -> Path:
    """Return the folder with a model's files; for a hub id the copy in the cache, fetched if needed.

    Raises `InputError` when there is no such model, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    from tokalign_lab.catalog import model_folder

    place = model_folder(str(name))
    if isinstance(place, Path):
        return place
    try:
        folder = Path(snapshot_download(place, allow_patterns=_FILES))
        further = _further_weights(folder)
        return Path(snapshot_download(place, allow_patterns=further)) if further else folder
    except Exception as error:  # huggingface_hub and its network each raise their own kinds
        raise InputError(f"The files of {name!r} cannot be fetched: {first_line(error)}.") from error


def _further_weights(folder: Path) -> list[str]:
    """Return the files of weights that transformers would read if there is no `model.safetensors`, of any names."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME

    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return []
    for index in (folder / SAFE_WEIGHTS_INDEX_NAME, folder / WEIGHTS_INDEX_NAME):
        if index.is_file():
            return indexed_files(index)
    return [WEIGHTS_NAME]


def indexed_files(index: Path) -> list[str]:
    """Return the names of the files that an index of weights lists, each once, sorted."""
    return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings while a model is examined."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _complete(name: str, **options: Any) -> PreTrainedModel:
    """Load a model that has all of its weights."""
    model, report = read_model(name, ignore_mismatched_sizes=True, **options)
    for weight, there, here in sorted(report["mismatched_keys"]):
        raise InputError(
            f"The model {name!r} has {weight} of shape {tuple(there)} in its files and {tuple(here)} by its "
            "configuration; correct the configuration or use another model."
        )
    scales = scales_among(report["unexpected_keys"])
    if scales:  # transformers reads quantised values as if they were the weights
        raise InputError(
            f"The model {name!r} is quantised by a method that transformers does not apply, so it would leave out "
            f"{len(scales)} scales (the first is {scales[0]}); use the model it was made from."
        )
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would fill them with random numbers, and every measurement would be of those
        raise InputError(
            f"The model {name!r} lacks {len(missing)} of its weights (the first is {missing[0]}); "
            "use a complete causal language model."
        )
    return model
