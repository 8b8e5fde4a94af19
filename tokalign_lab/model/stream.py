"""Rearrange a model's files shard by shard, without loading the model.

Only the tensors with one row per token change (two in most models), so a 7B model does not have to fit into memory. A
shard (a safetensors file) without such a tensor is copied. A shard with one is rewritten, with its other tensors copied
bit for bit. A process holds at most one shard and the matrices. `shards` finds these tensors. mergekit's tokensurgeon
also reads lazily; the papers' `convert.py` loads the whole model.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from tokalign_lab.files import atomic_folder, write_json
from tokalign_lab.model.load import load_outline
from tokalign_lab.model.quantised import keep_settings
from tokalign_lab.model.rearrange import NewMatrices
from tokalign_lab.model.save import is_saved_model, save_other_files
from tokalign_lab.model.shards import Shards
from tokalign_lab.model.vocabulary_tensors import names_in_model, vocabulary_parameters
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tokalign_lab.alignment.lexicon import Lexicon


def rearrange_files(
    shards: Shards,
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    out: Path,
    seed: int = 0,
    keep_tied: bool = False,
    pad_to_multiple_of: int | None = None,
    card: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> int:
    """Write the same folder as `rearrange` and `save_model`, directly from the source's folder.

    Returns the number of rows of the new matrices. Raises `InputError` as `rearrange` and `save_model`.

    Parameters
    ----------
    shards : the source model's files
    lexicon, source, target, seed, keep_tied, pad_to_multiple_of : as for `rearrange`
    out : the new folder; see `save_model`
    card : as for `save_model`
    progress : called with each shard
    """
    folder, outline = shards.folder, shards.outline
    made = NewMatrices(outline, lexicon, source, target, seed, keep_tied, pad_to_multiple_of)
    stale = {name for names in shards.names.values() for name in names}
    was_tied = set(shards.names["input"]) & set(shards.names["output"])
    made.fit(outline)
    fresh: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)  # file -> new name -> part, old name
    for part, names in shards.names.items():
        if part == "output" and made.tied:
            continue
        old = new = names[0]
        if part == "output" and was_tied:  # the files have no name for a head that was tied
            new = names_in_model(outline, vocabulary_parameters(outline)["output"])[0]
        fresh[shards.file_of[old]][new] = (part, old)
    files = sorted(set(shards.file_of.values()))
    names = files
    if files != [SAFE_WEIGHTS_NAME]:  # the usual names, by which `is_saved_model` knows the shards
        names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    with atomic_folder(out, is_saved_model) as temporary:
        for number, (file, new_file) in enumerate(zip(files, names, strict=True)):
            progress(number / len(files), f"file {number + 1} of {len(files)}")
            if any(shards.file_of[name] == file for name in stale):
                tensors = {new: made.part(part, shards.read(old)) for new, (part, old) in fresh[file].items()}
                _rewrite(folder / file, temporary / new_file, stale, tensors)
            else:
                shutil.copyfile(folder / file, temporary / new_file)
        if names != [SAFE_WEIGHTS_NAME]:
            _write_index(temporary, names, outline)
        outline.config.save_pretrained(temporary)
        if outline.generation_config is not None:
            outline.generation_config.save_pretrained(temporary)
        if shards.quantization is not None:
            untied = was_tied and not made.tied
            head = names_in_model(outline, vocabulary_parameters(outline)["output"])[0].removesuffix(".weight")
            keep_settings(folder, temporary, head if untied else None)
        save_other_files(temporary, out.name, target, card, source)
        if shards.quantization is None:  # else the method's own package would be needed
            load_outline(str(temporary))
    progress(1.0, "saved")
    return made.size


def _rewrite(old: Path, new: Path, stale: set[str], fresh: dict[str, torch.Tensor]) -> None:
    with safe_open(old, "pt") as shard:
        kept = {name: shard.get_tensor(name) for name in shard.keys() if name not in stale}  # noqa: SIM118 (no dict)
        save_file(kept | fresh, new, metadata=shard.metadata())


def _write_index(folder: Path, files: list[str], outline: PreTrainedModel) -> None:
    weight_map: dict[str, str] = {}
    total_size = 0
    for file in files:
        with safe_open(folder / file, "pt") as shard:
            weight_map |= dict.fromkeys(shard.keys(), file)
        with open(folder / file, "rb") as opened:  # eight bytes of length, a header of that length, then the tensors
            total_size += (folder / file).stat().st_size - 8 - int.from_bytes(opened.read(8), "little")
    metadata = {"total_parameters": outline.num_parameters(), "total_size": total_size}
    write_json(folder / SAFE_WEIGHTS_INDEX_NAME, {"metadata": metadata, "weight_map": weight_map})
