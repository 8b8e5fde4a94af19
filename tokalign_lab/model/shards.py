"""A model's safetensors files, and their tensors with one row per token.

The names in the files are not always the names in the model: GPT-2's files leave out `transformer.`, GPT-NeoX's
`embed_out` is called `lm_head` today, and tied rows are stored under either name or both. Only transformers knows all
of these rules. So a model without weights is loaded from one tensor of the right shape, and the parameters that are
then not missing are the ones that this tensor fills.
"""

from __future__ import annotations

import copy
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from tokalign_lab.errors import InputError, plain_read_errors
from tokalign_lab.files import hash_of
from tokalign_lab.model.load import indexed_files, load_outline, quiet
from tokalign_lab.model.quantised import (
    check_rows_are_plain,
    config_of,
    method_of,
    plain_config,
    quantization_of,
    scales_among,
)
from tokalign_lab.model.rearrange import mark_untied
from tokalign_lab.model.vocabulary_tensors import further_tables, names_in_model, vocabulary_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HASHED_ROWS = 16


@dataclass(frozen=True)
class Shards:
    """A folder with a model in safetensors files.

    Attributes
    ----------
    folder : where they are
    file_of : tensor name -> name of its file
    outline : the model on the meta device, tied as the loaded model would be
    names : "input", "output", "bias" (if the head has one) and the name of each of the `further_tables` -> names of the
        tensors that fill it, at least one each; tied matrices have the same ones. A matrix of the files that has one
        row per token and fills no parameter (of a head that predicts further tokens, for example) is "input NAME" or
        "output NAME", depending on the matrix whose recipe it gets.
    quantization : the entry in `config.json`; `outline` is then the same model with plain weights
    """

    folder: Path
    file_of: dict[str, str]
    outline: PreTrainedModel
    names: dict[str, list[str]]
    quantization: dict[str, Any] | None = None

    @classmethod
    def open(cls, folder: Path) -> Shards | None:
        """Read the names of a folder's tensors; None if its weights are not safetensors.

        Raises `InputError` as `load_outline`, `further_tables` and `check_rows_are_plain`, or when the files hold a
        tensor of unknown use with the size of the vocabulary.
        """
        file_of = files_of_tensors(folder)
        if file_of is None:
            return None
        quantization = quantization_of(folder)
        outline = load_outline(str(folder)) if quantization is None else _outline_of_quantised(folder)
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        for file in sorted(set(file_of.values())):
            with opened(folder / file) as shard:
                slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118
                shapes |= {name: tuple(piece.get_shape()) for name, piece in slices.items()}
                dtypes |= {name: piece.get_dtype() for name, piece in slices.items()}
        for name in () if quantization is None else scales_among(shapes):
            del shapes[name]  # their shapes depend on the method
        found = cls(folder, file_of, outline, _names_in_files(outline, shapes), quantization)
        found._tie()
        if quantization is not None:
            check_rows_are_plain(found.names, dtypes, method_of(quantization))
        return found if all(found.names.values()) else None

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor."""
        with opened(self.folder / self.file_of[name]) as shard:
            return shard.get_tensor(name)

    def _tie(self) -> None:
        """Tie as transformers does: two equal copies in the files are tied, which takes reading both."""
        model, names = self.outline, self.names
        if names["input"] and names.get("output") and model.config.get_text_config().tie_word_embeddings:
            first, second = (self.read(names[part][0]) for part in ("input", "output"))
            if torch.equal(first, second):
                model.tie_weights()
        parts = vocabulary_parameters(model)
        if parts["input"] is parts.get("output"):
            names["input"] = names["output"] = list(dict.fromkeys(names["input"] + names["output"]))


def files_of_tensors(folder: Path) -> dict[str, str] | None:
    """Return the file that each tensor of a model is in; None without safetensors files."""
    index, single = folder / SAFE_WEIGHTS_INDEX_NAME, folder / SAFE_WEIGHTS_NAME
    if single.is_file():  # transformers looks for it first
        with opened(single) as shard:
            return dict.fromkeys(shard.keys(), single.name)
    if not index.is_file():
        return None
    with plain_read_errors(lambda reason: f"{index} is damaged ({reason}); fetch it again."):
        files = indexed_files(index)
        for file in files:
            if Path(file).name != file or not (folder / file).is_file():  # it must not lead out of the folder
                raise ValueError(f"it names the file {file!r}, which is not in its folder")
    file_of: dict[str, str] = {}
    for file in files:  # what is loaded depends on the files, not on the names in the index
        with opened(folder / file) as shard:
            file_of |= dict.fromkeys(shard.keys(), file)
    return file_of


def weights_hash(folder: Path) -> str | None:
    """SHA-256 of the first rows of all tensors of a model, as hex; None without safetensors files.

    It does not depend on names, files, copies of tied matrices, or on whether a half is stored as float32.
    """
    rows = set()
    for file in sorted(set((files_of_tensors(folder) or {}).values())):
        with opened(folder / file) as shard:
            for name in shard.keys():  # noqa: SIM118
                part = shard.get_slice(name)
                tensor = part[:_HASHED_ROWS] if part.get_shape() else shard.get_tensor(name)
                tensor = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
                rows.add(hash_of([tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()]))
    return hash_of(row.encode() for row in sorted(rows)) if rows else None


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a safetensors file to read names and tensors from; raises InputError if it is damaged."""
    with plain_read_errors(lambda reason: f"{file} is not a readable safetensors file ({reason}); fetch it again."):
        shard = safe_open(file, "pt")
    with shard:
        yield shard


def further_heads(folder: Path) -> list[str]:
    """Names of tensors that predict more than the next token, which transformers leaves out when it loads a model.

    They are layers after the last one that `config.json` counts, or named after multi-token prediction (MTP), Medusa
    or Eagle.
    """
    config = config_of(folder)
    inner = config.get("text_config")
    number = {**config, **(inner if isinstance(inner, dict) else {})}.get("num_hidden_layers")
    found = []
    for name in files_of_tensors(folder) or _names_in_pickles(folder):
        layer = re.match(r"(?:model\.|language_model\.)*layers\.(\d+)\.", name)
        if re.search("mtp|medusa|eagle", name) or (layer and isinstance(number, int) and int(layer[1]) >= number):
            found.append(name)
    return sorted(found)


def _names_in_pickles(folder: Path) -> list[str]:
    """Names of the tensors in files that PyTorch wrote (`pytorch_model.bin`)."""
    names: list[str] = []
    with plain_read_errors(lambda reason: f"The weights in {folder} are damaged ({reason}); fetch them again."):
        for file in sorted(folder.glob("pytorch_model*.bin")):
            # a file that can be mapped is not read; PyTorch before 1.6 wrote none
            names += torch.load(file, map_location="meta", mmap=zipfile.is_zipfile(file), weights_only=True)
    return names


def check_further_heads(folder: Path, advice: str) -> None:
    """Refuse a model with `further_heads`, which would be lost; `advice` names an alternative.

    Raises `InputError` if it has any.
    """
    heads = further_heads(folder)
    if heads:
        raise InputError(
            f"The model has {len(heads)} tensors that predict further tokens (the first is {heads[0]}). transformers "
            f"does not load them, so the new model would lack them; {advice}."
        )


def _outline_of_quantised(folder: Path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"), quiet():
        return AutoModelForCausalLM.from_config(plain_config(folder), trust_remote_code=False)


def _names_in_files(outline: PreTrainedModel, shapes: dict[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Find the names of the tensors that fill each part, and add those of the vocabulary's size that fill none."""
    parts: dict[str, torch.Tensor] = {**vocabulary_parameters(outline), **further_tables(outline)}
    rows = {int(parts[part].shape[0]) for part in ("input", "output") if part in parts}
    own = {name for name, _ in chain(outline.named_parameters(), outline.named_buffers())}
    names: dict[str, list[str]] = {part: [] for part in parts}
    for name, shape in shapes.items():
        like = [part for part, tensor in parts.items() if tuple(tensor.shape) == shape]
        foreign = not like and not rows.isdisjoint(shape) and name not in own
        filled = _filled_by(outline, name, shape) if like or foreign else set()
        for part in like:
            if filled & set(names_in_model(outline, parts[part])):
                names[part].append(name)
        if not filled and (foreign or like):
            names[f"{_side_of(name, shape, rows)} {name}"] = [name]
    return names


def _side_of(name: str, shape: tuple[int, ...], rows: set[int]) -> str:
    """Return the matrix ("input" or "output") whose recipe is used for a tensor that transformers does not use."""
    for part, words in (("output", ("head",)), ("input", ("embed", "wte"))):
        if len(shape) == 2 and shape[0] in rows and any(word in name for word in words):
            return part
    raise InputError(
        f"The model's files hold {name}, of shape {shape}, which may have a value for each token and which "
        "transformers does not use; take it out of the files or use another model."
    )


def _filled_by(outline: PreTrainedModel, name: str, shape: tuple[int, ...]) -> set[str]:
    """Names of the parameters that a tensor of this name in a file fills, without those tied to them."""
    options: dict[str, Any] = {"device_map": "meta", "output_loading_info": True}
    config = copy.deepcopy(outline.config)
    mark_untied(config)
    tensors = {name: torch.empty(shape, device="meta")}
    with quiet():  # without warnings about the missing ones
        model, report = type(outline).from_pretrained(None, config=config, state_dict=tensors, **options)
    held = {name for name, _ in chain(model.named_parameters(remove_duplicate=False), model.named_buffers())}
    return held & model.state_dict().keys() - set(report["missing_keys"])
