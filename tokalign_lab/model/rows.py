"""The rows of a new matrix, made from the rows of the old one by a lexicon.

TokAlign step 4 copies one source row into each new row, and draws a random row for a token without a source. Here a row
may also be a weighted sum; all of these are one sparse product. A row without a source becomes the mean row, or a
random one if the lexicon requests it. Rows of the source model after its tokenizer's ids (padding) are never used.

Rows that no target token has (holes in its ids, padding to a multiple) become the mean of the new rows, in both
matrices and in a head's bias. Their logit is then the mean of all real logits, so it is never the largest. By Jensen's
inequality exp(mean logit) <= mean exp(logit), so such a row gets at most 1/n of the probability of n real tokens, and
in practice far less. A zero row has neither property: a logit of 0 is the largest if the real ones are negative.

Columns are processed in blocks, so that no float32 copy of a large matrix exists as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokalign_lab.errors import InputError
from tokalign_lab.token_table import MOST_HOLES
from tokalign_lab.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokalign_lab.alignment.lexicon import Lexicon

_MISSING_SHARE = 0.01  # a tokenizer may know a few ids more than its model has rows (Gemma 3's image token)
_BLOCK_NUMBERS = 1 << 24  # of the old matrix at a time, 64 MB in float32


@dataclass(frozen=True)
class RowPlan:
    """How each row of a new matrix is made from the rows of the old.

    Attributes
    ----------
    size : rows of the new matrix, with padding
    copies : (target ids, source ids), int64: rows that are copied bit for bit
    mixes : (target ids, source ids, weights): entries of the sparse product
    mean_weight : float32 (size,), weight of the mean row in each row that is neither copied nor random; 1 for rows
        without sources
    random, multivariate : target ids drawn from a normal distribution of the source rows, dimension by dimension or
        with their full covariance
    real : source ids of real tokens, for mean and covariance
    unused : bool (size,), rows that no target token has: holes and padding
    """

    size: int
    copies: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
    mixes: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
    mean_weight: np.ndarray[Any, Any]
    random: np.ndarray[Any, Any]
    multivariate: np.ndarray[Any, Any]
    real: np.ndarray[Any, Any]
    unused: np.ndarray[Any, Any]


def padded_size(size: int, multiple: int | None) -> int:
    """Round a number of rows up to a multiple; None does not round.

    Raises `InputError` when the multiple is not a positive number, or larger than any vocabulary.
    """
    if multiple is None:
        return size
    if not 1 <= multiple <= MOST_HOLES:
        raise InputError(
            f"Rows cannot be padded to a multiple of {multiple}; use a number from 1 to {MOST_HOLES:,}, such as 64."
        )
    return -(-size // multiple) * multiple


def plan_rows(
    lexicon: Lexicon,
    source: Vocabulary,
    target: Vocabulary,
    rows: int,
    size: int,
    side: str = "input",
    beyond: int | None = None,
) -> RowPlan:
    """Turn a lexicon into copies, mixes and fills for a source matrix with `rows` rows.

    Raises `InputError` when the lexicon's size is not the target's, or the source tokenizer has far more ids than the
    model rows.

    Parameters
    ----------
    lexicon, source, target : as for `rearrange`
    rows : rows of the old matrix
    size : rows of the new one, at least `target.size`
    side : "input" or "output"; both give the same unless the lexicon has separate output rows
    beyond : the row to use for source ids without one; None for the mean row
    """
    table = lexicon.table
    if len(table) != target.size:
        raise InputError(
            f"The lexicon has {len(table)} rows, but the target vocabulary {target.name} has {target.size} ids."
        )
    if beyond is None and source.size - rows > _MISSING_SHARE * rows:
        raise InputError(
            f"The tokenizer {source.name} has ids up to {source.size - 1}, but the model only {rows} rows; "
            "give the model's own tokenizer as source."
        )
    real = np.flatnonzero(~source.is_hole[: min(source.size, rows)])
    prefix = "output_" if side == "output" and lexicon.has_output else ""
    target_ids, source_ids, weights, lost = _entries(table, rows, prefix, beyond)
    mean_weight = table[f"{prefix}mean_weight"].to_numpy(np.float32) + lost
    number_of_sources = np.bincount(target_ids, minlength=target.size)
    copied = (number_of_sources[target_ids] == 1) & (weights == 1) & (mean_weight[target_ids] == 0)
    origins, bare = table["origin"].to_numpy(), (number_of_sources == 0) & (mean_weight == 0)
    drawn = {name: np.flatnonzero(bare & (origins == name)) for name in ("random", "multivariate")}
    mean_weight[bare] = 1.0
    padding = size - target.size
    return RowPlan(
        size=size,
        copies=(target_ids[copied], source_ids[copied]),
        mixes=(target_ids[~copied], source_ids[~copied], weights[~copied]),
        mean_weight=np.concatenate([mean_weight, np.ones(padding, np.float32)]),
        real=real,
        unused=np.concatenate([target.is_hole, np.ones(padding, bool)]),
        **drawn,
    )


def new_rows(matrix: torch.Tensor, plan: RowPlan, seed: int) -> torch.Tensor:
    """Build the new matrix: shape (plan.size, d) from `matrix` of shape (rows, d), same dtype and device.

    Raises `InputError` if a row of a real token has NaN or infinite values.
    """
    old = matrix.detach()
    new = torch.empty((plan.size, old.shape[1]), dtype=old.dtype, device=old.device)
    mixes = _product(plan, old)
    for columns in _blocks(old):
        new[:, columns] = _without_draws(old[:, columns], plan, mixes)
    if len(plan.random) or len(plan.multivariate):
        _draw(new, old[_on(old, plan.real)].float(), plan, seed)
    if plan.unused.any():
        unused, used = (_on(old, np.flatnonzero(mask)) for mask in (plan.unused, ~plan.unused))
        for columns in _blocks(old):
            new[unused, columns] = new[:, columns][used].float().mean(dim=0).to(new.dtype)
    return new


def picked_rows(table: torch.Tensor, lexicon: Lexicon, size: int, without: int) -> torch.Tensor:
    """Build a table of integers, which cannot be mixed: each row is that of the token's best source.

    Parameters
    ----------
    table : shape (rows, ...), any dtype
    lexicon : names the best sources
    size : rows of the new table, at least one for each target id
    without : the source id whose row is used for tokens without a source and for padding
    """
    best = np.full(size, without, np.int64)
    found = lexicon.source_of()
    best[: len(found)] = np.where((found >= 0) & (found < len(table)), found, without)
    return table[_on(table, best)]


def _product(plan: RowPlan, old: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of the mixed rows, (n,), and the sparse (n, rows) matrix that makes them."""
    target_ids, source_ids, weights = plan.mixes
    mixed, place = np.unique(target_ids, return_inverse=True)
    product = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([place, source_ids])),
        torch.from_numpy(weights.astype(np.float32)),
        (len(mixed), old.shape[0]),
        check_invariants=False,
    )
    return _on(old, mixed), product.coalesce().to(old.device)


def _without_draws(old: torch.Tensor, plan: RowPlan, mixes: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Build some columns of all rows except the random ones."""
    wide = old.float()
    mean = wide[_on(old, plan.real)].mean(dim=0)
    if not torch.isfinite(mean).all():  # it would get into the rows of padding, and so into every prediction
        bad = plan.real[~torch.isfinite(wide[_on(old, plan.real)]).all(dim=1).cpu().numpy()]
        raise InputError(
            f"The model has NaN or infinite values in the rows of ids {', '.join(map(str, bad[:3]))}"
            f"{', ...' * (len(bad) > 3)}; replace them by the mean of the other rows and save the model again."
        )
    new = mean.to(old.dtype).repeat(plan.size, 1)
    mixed, product = mixes
    if len(mixed):
        rows = torch.sparse.mm(product, wide)
        rows += _on(old, plan.mean_weight)[mixed][:, None] * mean
        new[mixed] = rows.to(old.dtype)
    copied_to, copied_from = plan.copies
    new[_on(old, copied_to)] = old[_on(old, copied_from)]
    return new


def _draw(new: torch.Tensor, real: torch.Tensor, plan: RowPlan, seed: int) -> None:
    """Draw the random rows, in place."""
    mean = real.mean(dim=0)
    for ids, spread in (
        (plan.random, lambda rows: torch.diag(rows.std(dim=0))),
        (plan.multivariate, _root_of_covariance),
    ):
        if len(ids):
            noise = np.random.default_rng(seed).standard_normal((len(ids), real.shape[1])).astype(np.float32)
            drawn = mean + torch.from_numpy(noise).to(real.device) @ spread(real)
            new[_on(new, ids)] = drawn.to(new.dtype)


def _blocks(matrix: torch.Tensor) -> Iterator[slice]:
    """Yield the columns in blocks of at most `_BLOCK_NUMBERS` numbers."""
    width = max(1, _BLOCK_NUMBERS // len(matrix))
    for first in range(0, matrix.shape[1], width):
        yield slice(first, first + width)


def _on(matrix: torch.Tensor, values: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(values).to(matrix.device)


def _root_of_covariance(real: torch.Tensor) -> torch.Tensor:
    """Symmetric root of the rows' covariance, (d, d); float64 inside, since small eigenvalues may round below zero."""
    values, vectors = torch.linalg.eigh(torch.cov(real.double().T))
    return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).float()


def _entries(
    table: Any, rows: int, prefix: str, beyond: int | None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return all target ids, source ids and weights, and for each target the weight of its sources without a row."""
    sources, weights = table[f"{prefix}sources"].to_list(), table[f"{prefix}weights"].to_list()
    counts = np.array([len(ids) for ids in sources])
    target_ids = np.repeat(np.arange(len(table)), counts)
    empty = np.zeros(0)
    source_ids = np.concatenate([empty, *sources]).astype(np.int64)
    values = np.concatenate([empty, *weights]).astype(np.float32)
    if beyond is not None:
        source_ids[source_ids >= rows] = beyond
    there = (source_ids >= 0) & (source_ids < rows)
    lost = np.bincount(target_ids[~there], weights=values[~there], minlength=len(table)).astype(np.float32)
    kept = there & (values != 0)
    return target_ids[kept], source_ids[kept], values[kept], lost
