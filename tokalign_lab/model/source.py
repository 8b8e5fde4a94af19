"""The model that a converted model was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tokalign_lab.errors import InputError
from tokalign_lab.model.load import files_of, load_model
from tokalign_lab.model.save import read_record
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def source_name(moved: str) -> str:
    """Return the name of the model that a converted (or tuned) model was made from; "" where its folder names none.

    Raises InputError when there is no converted model of that name.
    """
    return str(read_record(files_of(moved)).get("model", ""))


def load_source(moved: str, device: torch.device | str = "cpu") -> tuple[PreTrainedModel, Vocabulary]:
    """Load the model that a converted (or tuned) model was made from, in float32, and its tokenizer.

    Parameters
    ----------
    moved : the folder that `rearrange` or `adapt` wrote
    device : where to put the model

    Raises
    ------
    InputError
        If the folder does not name the source, or the source cannot be loaded.
    """
    from tokalign_lab.catalog import load_vocabulary

    name = source_name(moved)
    if not name:
        raise InputError(
            f"{Path(moved) / 'tokalign.json'} does not name the model that was converted, so there is no source to "
            "learn from; write the folder with `tokalign-lab rearrange`, or train on the next token alone."
        )
    return load_model(name, device), load_vocabulary(name)
