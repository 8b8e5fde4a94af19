"""A model's safetensors files, and which of their tensors follow the vocabulary.

The names in the files are not always the names in the model: GPT-2's were written without `transformer.`, GPT-NeoX's
`embed_out` is called `lm_head` today, and tied rows stand under either name or both. No pattern knows all of that, but
transformers does. So it is asked: a model without weights is loaded from one tensor of the right shape, and what it
does not miss then is what that tensor fills.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from tokalign_lab.model.load import load_outline, quiet
from tokalign_lab.model.rearrange import say_untied

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Shards:
    """A folder with a model in safetensors files.

    Attributes
    ----------
    folder : Path
        Where they are.
    file_of : dict
        Tensor name -> name of its file.
    outline : PreTrainedModel
        The model on the meta device, tied as the loaded model would be.
    names : dict
        "input", "output", "bias" (where the head has one) -> names of the tensors that fill it, at least one each;
        tied matrices have the same.
    """

    folder: Path
    file_of: dict[str, str]
    outline: PreTrainedModel
    names: dict[str, list[str]]

    @classmethod
    def open(cls, folder: Path) -> Shards | None:
        """Look into a folder; None where its weights are not safetensors.

        Raises
        ------
        InputError
            As `load_outline`.
        """
        file_of = files_of_tensors(folder)
        if file_of is None:
            return None
        outline = load_outline(str(folder))
        shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted(set(file_of.values())):
            with safe_open(folder / file, "pt") as shard:
                shapes |= {name: tuple(shard.get_slice(name).get_shape()) for name in shard.keys()}  # noqa: SIM118
        found = cls(folder, file_of, outline, _names_in_files(outline, shapes))
        found._tie()
        return found if all(found.names.values()) else None

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor."""
        with safe_open(self.folder / self.file_of[name], "pt") as shard:
            return shard.get_tensor(name)

    def _tie(self) -> None:
        """Tie as transformers does: a second copy in the files counts as tied if it is one, which takes its values."""
        model, names = self.outline, self.names
        if names["input"] and names.get("output") and model.config.get_text_config().tie_word_embeddings:
            first, second = (self.read(names[part][0]) for part in ("input", "output"))
            if torch.equal(first, second):
                model.tie_weights()
        parts = vocabulary_parameters(model)
        if parts["input"] is parts.get("output"):
            names["input"] = names["output"] = list(dict.fromkeys(names["input"] + names["output"]))


def files_of_tensors(folder: Path) -> dict[str, str] | None:
    """Say which file each tensor of a model is in; None where there are no safetensors files."""
    index, single = folder / SAFE_WEIGHTS_INDEX_NAME, folder / SAFE_WEIGHTS_NAME
    if single.is_file():  # transformers looks for it first
        with safe_open(single, "pt") as shard:
            return dict.fromkeys(shard.keys(), single.name)
    if index.is_file():
        file_of: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return file_of
    return None


def vocabulary_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters with a row a token: "input", "output" (the same where tied) and "bias" of the head."""
    head = model.get_output_embeddings()
    found = {"input": model.get_input_embeddings().weight}
    if head is not None:
        found["output"] = head.weight
        if getattr(head, "bias", None) is not None:
            found["bias"] = head.bias
    return found


def names_in_model(model: PreTrainedModel, parameter: torch.Tensor) -> list[str]:
    """All names of a parameter; tied ones have several."""
    return [name for name, held in model.named_parameters(remove_duplicate=False) if held is parameter]


def _names_in_files(outline: PreTrainedModel, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[str]]:
    parts = vocabulary_parameters(outline)
    names: dict[str, list[str]] = {part: [] for part in parts}
    for name, shape in shapes.items():
        like = [part for part, parameter in parts.items() if tuple(parameter.shape) == shape]
        filled = _filled_by(outline, name, shape) if like else set()
        for part in like:
            if filled & set(names_in_model(outline, parts[part])):
                names[part].append(name)
    return names


def _filled_by(outline: PreTrainedModel, name: str, shape: tuple[int, ...]) -> set[str]:
    """Names of the parameters that a tensor of this name in a file fills; its own one only, tied or not."""
    options: dict[str, Any] = {"device_map": "meta", "output_loading_info": True}
    config = copy.deepcopy(outline.config)
    say_untied(config)
    tensors = {name: torch.empty(shape, device="meta")}
    with quiet():  # all but one are missing, of course
        model, report = type(outline).from_pretrained(None, config=config, state_dict=tensors, **options)
    return {held for held, _ in model.named_parameters(remove_duplicate=False)} - set(report["missing_keys"])
