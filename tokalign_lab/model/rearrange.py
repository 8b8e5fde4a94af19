"""Give a model the rows its new vocabulary asks for.

TokAlign step 4: the embedding row and the head row of each new token are built from the source rows that the
lexicon names, by the same weights for both matrices. The paper copies one row and draws a random one where it has
none; here a row may be a weighted mix, computed for all mixed rows at once as one sparse product, and rows without
any source become the mean row (or a random one, where the lexicon says so, to compare). Nothing else in the model
changes. Rows that the source model has beyond its tokenizer (padding) are never used.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tokalign_lab.errors import InputError
from tokalign_lab.model.special_ids import move_special_ids
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tokalign_lab.alignment.lexicon import Lexicon

_MISSING_SHARE = 0.01  # a tokenizer may know a few ids more than its model has rows (Gemma 3's image token)


@dataclass(frozen=True)
class RowPlan:
    """How each row of a new matrix is made from the rows of the old.

    Attributes
    ----------
    size : int
        Rows of the new matrix.
    copies : tuple of np.ndarray
        (target ids, source ids), int64: rows taken over bit for bit.
    mixes : tuple of np.ndarray
        (target ids, source ids, weights): entries of the sparse product; weights of a target sum to 1.
    random : np.ndarray
        Target ids drawn from the normal distribution of the source rows, dimension by dimension.
    real : np.ndarray
        Source ids of real tokens; mean and spread are taken over these. Every other row is their mean.
    """

    size: int
    copies: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
    mixes: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
    random: np.ndarray[Any, Any]
    real: np.ndarray[Any, Any]


def rearrange(
    model: PreTrainedModel, lexicon: Lexicon, source: Vocabulary, target: Vocabulary, seed: int = 0
) -> PreTrainedModel:
    """Make a new model that reads and writes the target vocabulary.

    Parameters
    ----------
    model
        A causal language model whose tokenizer is `source`; it is not changed.
    lexicon
        What each target token inherits from.
    source, target
        The two vocabularies.
    seed
        Seed of the random rows, where the lexicon asks for any.

    Returns
    -------
    PreTrainedModel
        Its matrices have exactly `target.size` rows. Tied matrices stay tied, the dtype is kept, copied rows and
        every other tensor are bit-equal to the source's, and the ids in its configurations are the target's.

    Raises
    ------
    InputError
        When the lexicon belongs to other tokenizers, the model has no output head, or the source tokenizer is not
        the model's.
    """
    lexicon.check(source, target)
    old_input, old_output = model.get_input_embeddings(), model.get_output_embeddings()
    if old_output is None:
        raise InputError(
            f"A model of type {model.config.model_type!r} has no output head; use a causal language model."
        )
    plan = plan_rows(lexicon, source, target, rows=int(old_input.weight.shape[0]))
    tied = old_output.weight is old_input.weight
    input_rows = new_rows(old_input.weight, plan, seed)
    output_rows = None if tied else new_rows(old_output.weight, plan, seed + 1)
    bias = getattr(old_output, "bias", None)
    new_bias = None if bias is None else new_rows(bias.unsqueeze(1), plan, seed + 2).squeeze(1)

    new = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):  # resizing initialises rows that are overwritten below
        new.resize_token_embeddings(plan.size, mean_resizing=False)
    _install(new.get_input_embeddings(), input_rows, None)
    head = new.get_output_embeddings()
    if tied:
        head.weight = new.get_input_embeddings().weight
        _install(head, None, new_bias)
    else:
        _install(head, output_rows, new_bias)
    head.out_features = plan.size
    move_special_ids(new, source, target)
    _move_padding_index(new, target)
    return new


def plan_rows(lexicon: Lexicon, source: Vocabulary, target: Vocabulary, rows: int) -> RowPlan:
    """Turn a lexicon into copies, mixes and fills for a source matrix with `rows` rows.

    Raises
    ------
    InputError
        When the lexicon's size is not the target's, or the source tokenizer has far more ids than the model rows.
    """
    table = lexicon.table
    if len(table) != target.size:
        raise InputError(
            f"The lexicon has {len(table)} rows, but the target vocabulary {target.name} {target.size} ids."
        )
    if source.size - rows > _MISSING_SHARE * rows:
        raise InputError(
            f"The tokenizer {source.name} has ids up to {source.size - 1}, but the model only {rows} rows; "
            "give the model's own tokenizer as source."
        )
    real = np.flatnonzero(~source.is_hole[: min(source.size, rows)])
    target_ids, source_ids, weights = _entries(table, rows)
    origins = table["origin"].to_numpy()
    number_of_sources = np.bincount(target_ids, minlength=target.size)
    single = number_of_sources[target_ids] == 1
    random = np.flatnonzero((number_of_sources == 0) & (origins == "random"))
    return RowPlan(
        size=target.size,
        copies=(target_ids[single], source_ids[single]),
        mixes=(target_ids[~single], source_ids[~single], weights[~single]),
        random=random,
        real=real,
    )


def new_rows(matrix: torch.Tensor, plan: RowPlan, seed: int) -> torch.Tensor:
    """Build the new matrix: shape (plan.size, d) from `matrix` of shape (rows, d), same dtype and device."""
    old = matrix.detach()
    real = old[torch.from_numpy(plan.real).to(old.device)].float()
    mean = real.mean(dim=0)
    new = mean.to(old.dtype).repeat(plan.size, 1)
    if len(plan.random):
        generator = np.random.default_rng(seed)
        noise = generator.standard_normal((len(plan.random), old.shape[1])).astype(np.float32)
        drawn = mean + torch.from_numpy(noise).to(old.device) * real.std(dim=0)
        new[torch.from_numpy(plan.random).to(old.device)] = drawn.to(old.dtype)
    target_ids, source_ids, weights = plan.mixes
    if len(target_ids):
        mixed, place = np.unique(target_ids, return_inverse=True)
        product = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([place, source_ids])),
            torch.from_numpy(weights.astype(np.float32)),
            (len(mixed), old.shape[0]),
            check_invariants=False,
        ).to(old.device)
        new[torch.from_numpy(mixed).to(old.device)] = torch.sparse.mm(product, old.float()).to(old.dtype)
    copied_to, copied_from = (torch.from_numpy(ids).to(old.device) for ids in plan.copies)
    new[copied_to] = old[copied_from]
    return new


def _entries(table: Any, rows: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All (target id, source id, weight), without sources that have no row; weights of a target sum to 1."""
    sources, weights = table["sources"].to_list(), table["weights"].to_list()
    counts = np.array([len(ids) for ids in sources])
    target_ids = np.repeat(np.arange(len(table)), counts)
    empty = np.zeros(0)
    source_ids = np.concatenate([empty, *sources]).astype(np.int64)
    values = np.concatenate([empty, *weights]).astype(np.float64)
    kept = (source_ids >= 0) & (source_ids < rows) & (values != 0)
    target_ids, source_ids, values = target_ids[kept], source_ids[kept], values[kept]
    total = np.bincount(target_ids, weights=values, minlength=len(table))
    return target_ids, source_ids, values / total[target_ids]


def _install(module: nn.Module, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            old = getattr(module, name)
            setattr(module, name, nn.Parameter(value, requires_grad=old.requires_grad))


def _move_padding_index(model: PreTrainedModel, target: Vocabulary) -> None:
    """Point `padding_idx`, whose row is never trained, at the new pad token or at nothing."""
    embedding = model.get_input_embeddings()
    if getattr(embedding, "padding_idx", None) is not None:
        embedding.padding_idx = target.roles.get("pad")
