"""A model's folder for the checks: its tokenizer, its model, and what transformers reported while loading them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokalign_lab.errors import InputError
from tokalign_lab.model.load import files_of, quiet, read_model
from tokalign_lab.model.shards import Shards
from tokalign_lab.model.vocabulary_tensors import names_in_model, vocabulary_parameters

if TYPE_CHECKING:
    import torch


class FolderCase:
    """One model folder.

    Raises `InputError` when there is no such model.

    Parameters
    ----------
    name : model folder, catalogue name, GGUF file or hub id

    Attributes
    ----------
    folder : its path
    vocabulary, tokenizer_error : the tokenizer, or why it could not be loaded; one of them is None
    model, model_error : the same for the model; on the CPU, in the dtype of its files
    missing, unexpected : weights that the files lack, and tensors that no weight uses
    misfits : weights whose tensor in the files has another shape: name -> (shape in the files, shape in the model)
    """

    def __init__(self, name: str) -> None:
        from tokalign_lab.catalog import load_vocabulary

        self.folder: Path = files_of(name)
        self.vocabulary: Any = None  # not typed: the checks after `loads` can rely on it
        self.model: Any = None
        self.tokenizer_error: Exception | None = None
        self.model_error: Exception | None = None
        try:
            self.vocabulary = load_vocabulary(str(self.folder))
        except InputError as error:
            self.tokenizer_error = error
        report: dict[str, Any] = {"missing_keys": (), "unexpected_keys": (), "mismatched_keys": ()}
        try:
            with quiet():  # the checks report what it warns about
                self.model, report = read_model(str(self.folder), dtype="auto", ignore_mismatched_sizes=True)
            self.model.eval()
        except Exception as error:  # a damaged file may fail in any way, and that is a finding
            self.model_error = error
        self.missing, self.unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
        self.misfits = {key: (tuple(there), tuple(here)) for key, there, here in report["mismatched_keys"]}

    @cached_property
    def matrices(self) -> dict[str, torch.nn.Parameter]:
        """Input embedding, head and the head's bias, as `vocabulary_parameters`."""
        return vocabulary_parameters(self.model)

    @cached_property
    def vocabulary_names(self) -> set[str]:
        """Names of these parameters."""
        return {name for parameter in self.matrices.values() for name in names_in_model(self.model, parameter)}

    @cached_property
    def head_names(self) -> set[str]:
        """Names of the head's matrix."""
        return set(names_in_model(self.model, self.matrices["output"])) if "output" in self.matrices else set()

    @cached_property
    def shards(self) -> Shards | None:
        """The files; None if they are not safetensors."""
        return Shards.open(self.folder)

    @property
    def rows(self) -> int:
        """Rows of the input embedding."""
        return int(self.matrices["input"].shape[0])
