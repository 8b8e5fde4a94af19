"""Give a model the rows its new vocabulary asks for.

TokAlign step 4: the embedding row and the head row of each new token are built from the source rows that the
lexicon names. The paper copies one row into both matrices and draws a random one where it has none; here a row may be
a weighted sum, computed for all such rows at once as one sparse product, the two matrices may be made by different
weights, and rows without any source become the mean row (or a random one, where the lexicon says so, to compare).
A model whose matrices are tied is untied where the lexicon makes them apart. Nothing else in the model changes. Rows
that the source model has beyond its tokenizer (padding) are never used.
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
        (target ids, source ids, weights): entries of the sparse product.
    mean_weight : np.ndarray
        float32 (size,), weight of the mean row in each row that is neither copied nor random; 1 for rows without
        sources.
    random, multivariate : np.ndarray
        Target ids drawn from a normal distribution of the source rows, dimension by dimension or with their full
        covariance.
    real : np.ndarray
        Source ids of real tokens; mean and covariance are taken over these.
    """

    size: int
    copies: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
    mixes: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
    mean_weight: np.ndarray[Any, Any]
    random: np.ndarray[Any, Any]
    multivariate: np.ndarray[Any, Any]
    real: np.ndarray[Any, Any]


def rearrange(
    model: PreTrainedModel,
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    seed: int = 0,
    keep_tied: bool = False,
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
    keep_tied
        Leave tied matrices tied where the lexicon makes output rows apart: its input rows serve both. A model with a
        large vocabulary stays much smaller, and begins worse.

    Returns
    -------
    PreTrainedModel
        Its matrices have exactly `target.size` rows. Tied matrices stay tied unless the lexicon makes output rows
        apart. The dtype is kept, copied rows and every other tensor are bit-equal to the source's, and the ids in
        its configurations are the target's.

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
    output_plan = plan_rows(lexicon, source, target, rows=int(old_output.weight.shape[0]), side="output")
    tied = old_output.weight is old_input.weight and (keep_tied or not lexicon.has_output)
    input_rows = new_rows(old_input.weight, plan, seed)
    output_rows = None if tied else new_rows(old_output.weight, output_plan, seed + 1)
    bias = getattr(old_output, "bias", None)
    new_bias = None if bias is None else new_rows(bias.unsqueeze(1), output_plan, seed + 2).squeeze(1)

    new = copy.deepcopy(model)
    if not tied:
        untie(new)
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


def plan_rows(lexicon: Lexicon, source: Vocabulary, target: Vocabulary, rows: int, side: str = "input") -> RowPlan:
    """Turn a lexicon into copies, mixes and fills for a source matrix with `rows` rows.

    Parameters
    ----------
    lexicon, source, target
        As for `rearrange`.
    rows
        Rows of the old matrix.
    side
        "input" or "output"; the same unless the lexicon makes output rows apart.

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
    prefix = "output_" if side == "output" and lexicon.has_output else ""
    target_ids, source_ids, weights, lost = _entries(table, rows, prefix)
    mean_weight = table[f"{prefix}mean_weight"].to_numpy(np.float32) + lost
    number_of_sources = np.bincount(target_ids, minlength=target.size)
    copied = (number_of_sources[target_ids] == 1) & (weights == 1) & (mean_weight[target_ids] == 0)
    origins, bare = table["origin"].to_numpy(), (number_of_sources == 0) & (mean_weight == 0)
    drawn = {name: np.flatnonzero(bare & (origins == name)) for name in ("random", "multivariate")}
    mean_weight[bare] = 1.0
    return RowPlan(
        size=target.size,
        copies=(target_ids[copied], source_ids[copied]),
        mixes=(target_ids[~copied], source_ids[~copied], weights[~copied]),
        mean_weight=mean_weight,
        real=real,
        **drawn,
    )


def new_rows(matrix: torch.Tensor, plan: RowPlan, seed: int) -> torch.Tensor:
    """Build the new matrix: shape (plan.size, d) from `matrix` of shape (rows, d), same dtype and device."""
    old = matrix.detach()
    real = old[torch.from_numpy(plan.real).to(old.device)].float()
    mean = real.mean(dim=0)
    new = mean.to(old.dtype).repeat(plan.size, 1)
    for ids, spread in ((plan.random, _diagonal), (plan.multivariate, _root_of_covariance)):
        if len(ids):
            noise = np.random.default_rng(seed).standard_normal((len(ids), old.shape[1])).astype(np.float32)
            drawn = mean + torch.from_numpy(noise).to(old.device) @ spread(real)
            new[torch.from_numpy(ids).to(old.device)] = drawn.to(old.dtype)
    target_ids, source_ids, weights = plan.mixes
    if len(target_ids):
        mixed, place = np.unique(target_ids, return_inverse=True)
        product = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([place, source_ids])),
            torch.from_numpy(weights.astype(np.float32)),
            (len(mixed), old.shape[0]),
            check_invariants=False,
        ).to(old.device)
        rows = torch.sparse.mm(product, old.float())
        rows += torch.from_numpy(plan.mean_weight[mixed]).to(old.device)[:, None] * mean
        new[torch.from_numpy(mixed).to(old.device)] = rows.to(old.dtype)
    copied_to, copied_from = (torch.from_numpy(ids).to(old.device) for ids in plan.copies)
    new[copied_to] = old[copied_from]
    return new


def _diagonal(real: torch.Tensor) -> torch.Tensor:
    return torch.diag(real.std(dim=0))


def _root_of_covariance(real: torch.Tensor) -> torch.Tensor:
    """Symmetric root of the rows' covariance, (d, d); float64 inside, since small eigenvalues may round below zero."""
    values, vectors = torch.linalg.eigh(torch.cov(real.double().T))
    return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).float()


def _entries(
    table: Any, rows: int, prefix: str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All (target id, source id, weight), and of each target the weight of sources that have no row."""
    sources, weights = table[f"{prefix}sources"].to_list(), table[f"{prefix}weights"].to_list()
    counts = np.array([len(ids) for ids in sources])
    target_ids = np.repeat(np.arange(len(table)), counts)
    empty = np.zeros(0)
    source_ids = np.concatenate([empty, *sources]).astype(np.int64)
    values = np.concatenate([empty, *weights]).astype(np.float32)
    there = (source_ids >= 0) & (source_ids < rows)
    lost = np.bincount(target_ids[~there], weights=values[~there], minlength=len(table)).astype(np.float32)
    kept = there & (values != 0)
    return target_ids[kept], source_ids[kept], values[kept], lost


def untie(model: PreTrainedModel) -> None:
    """Give the head a matrix of its own and say so in the configuration, so that it is saved and loaded apart."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False


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
