"""OMP (Goddard and Fernandes Neto 2025): approximate a new token by shared tokens in a donor model; copy the weights.

    x = orthogonal matching pursuit of the donor row of t in the donor rows of shared tokens, at most k of them
    row of t = sum_i x_i * source row of shared token i

Unlike the other recipes it needs no text but a second model, the donor, whose tokenizer is the target. The donor's rows
describe a token better than vectors of a few megabytes of text, if the geometries of the two models agree. The pursuit
(Pati et al. 1993) is greedy: it selects the shared token whose row has the largest inner product with the residual
(rows are not scaled, so long rows are preferred), fits all selected tokens by least squares, and repeats with the new
residual. Coefficients may be negative and need not sum to 1. If the donor's head is untied, output rows have separate
coefficients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokalign_lab.alignment.lexicon.rows import LexiconRows
from tokalign_lab.alignment.methods.copies import open_ids
from tokalign_lab.alignment.methods.inputs import Inputs
from tokalign_lab.device import pick_device
from tokalign_lab.errors import InputError
from tokalign_lab.progress import Progress, part, silent

if TYPE_CHECKING:
    import torch

_BATCH = 256  # tokens at a time: about 50 MB of bases at k = 64 and 640 dimensions
_SHORTLIST = 8  # atoms whose bfloat16 products are computed again in float32
_EXPLAINED = 1e-6  # relative to the row: a smaller residual, or new part of a row, is rounding error


def omp_rows(rows: LexiconRows, inputs: Inputs, k: int = 64) -> dict[str, Any]:
    """Make the open rows from at most `k` shared tokens each; shared and special tokens must be copied already.

    Of the source model only the number of rows is used. Raises InputError if the donor's tokenizer is not the target,
    `k` is below 1, or no token is shared.
    """
    assert inputs.donor is not None  # check_recipe has checked both
    assert inputs.model is not None
    source, target, progress = inputs.source, inputs.target, inputs.progress
    donor_model, vocabulary = inputs.donor
    if vocabulary.fingerprint != target.fingerprint:
        raise InputError(
            f"The donor's tokenizer {vocabulary.name} is not the target {target.name}; OMP needs a donor model that "
            "reads the target's tokens."
        )
    if k < 1:
        raise InputError(f"OMP needs at least one token a row, but got k={k}.")
    matrix, head = donor_model.get_input_embeddings().weight, donor_model.get_output_embeddings().weight
    # A tokenizer may have a few more ids than its model has rows.
    shared = np.flatnonzero(rows.origin == "identical")
    kept = (shared < len(matrix)) & (rows.source_id[shared] < len(inputs.model.get_input_embeddings().weight))
    shared = shared[kept]
    if not len(shared):
        raise InputError(f"{source.name} and {target.name} share no token, so OMP has nothing to describe others by.")
    new = open_ids(rows, target)
    new = new[new < len(matrix)]
    source_ids = rows.source_id[shared]
    untied = head is not matrix
    chosen, weights = _describe(matrix, new, shared, k, part(progress, 0.0, 0.5 if untied else 1.0))
    if untied:
        out_chosen, out_weights = _describe(head, new, shared, k, part(progress, 0.5, 1.0))
    for i, target_id in enumerate(new.tolist()):
        used = np.flatnonzero(weights[i])
        if not len(used):  # a row of zeros, which the donor never trained
            continue
        rows.mix(target_id, source_ids[chosen[i, used]].tolist(), weights[i, used].tolist(), "aligned", scale=False)
        if untied:
            used = np.flatnonzero(out_weights[i])
            rows.mix_output(target_id, source_ids[out_chosen[i, used]].tolist(), out_weights[i, used].tolist())
    rows.fill(open_ids(rows, target), "mean")
    return {}


def pursue(
    vectors: torch.Tensor, atoms: torch.Tensor, k: int, progress: Progress = silent
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Orthogonal matching pursuit of many vectors in one batch.

    A Gram-Schmidt basis keeps the residual orthogonal to the selected atoms (applied twice, because once loses
    orthogonality to rounding), so only one triangular system is solved at the end.

    Returns rows of `atoms` in the order of selection, int64 (n, min(k, m, d)), and their weights, float32, the same
    shape; 0 for an atom that is not needed. Reproducible on one machine; another machine or a GPU may round differently
    and select another atom of a near tie.

    Parameters
    ----------
    vectors : float32 (n, d), the vectors to approximate
    atoms : float32 (m, d), the vectors to combine
    k : maximum number of atoms per vector
    progress : called with the share of the vectors that are done
    """
    k = min(k, *atoms.shape)
    rough = atoms.bfloat16() if _multiplies_bfloat16(atoms) else atoms
    chosen, weights = np.zeros((len(vectors), k), np.int64), np.zeros((len(vectors), k), np.float32)
    for first in range(0, len(vectors), _BATCH):
        here = slice(first, first + _BATCH)
        taken, coefficients = _pursue_batch(vectors[here], atoms, rough, k)
        chosen[here], weights[here] = taken.cpu().numpy(), coefficients.cpu().numpy()
        progress(min(first + _BATCH, len(vectors)) / len(vectors), "describing tokens by the donor's rows")
    return chosen, weights


def _describe(
    matrix: torch.Tensor, new: NDArray[np.int64], shared: NDArray[np.int64], k: int, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    import torch

    device = pick_device()
    vectors, atoms = (matrix.detach()[torch.from_numpy(ids).to(matrix.device)] for ids in (new, shared))
    return pursue(vectors.to(device, torch.float32), atoms.to(device, torch.float32), k, progress)


def _pursue_batch(
    vectors: torch.Tensor, atoms: torch.Tensor, rough: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    n, d = vectors.shape
    basis = vectors.new_zeros(n, k, d)
    triangle, along = vectors.new_zeros(n, k, k), vectors.new_zeros(n, k)  # coordinates of atoms and vectors in it
    chosen = torch.zeros(n, k, dtype=torch.long, device=vectors.device)
    residual, enough = vectors.clone(), _EXPLAINED * vectors.norm(dim=1)
    for step in range(k):
        chosen[:, step] = _largest_product(residual, atoms, rough, chosen[:, :step])
        atom = atoms[chosen[:, step]]
        fresh = atom
        for _ in range(2):
            known = torch.einsum("ntd,nd->nt", basis[:, :step], fresh)
            fresh = fresh - torch.einsum("ntd,nt->nd", basis[:, :step], known)
            triangle[:, :step, step] += known
        length = fresh.norm(dim=1)
        needed = (length > _EXPLAINED * atom.norm(dim=1)) & (residual.norm(dim=1) > enough)
        triangle[:, step, step] = torch.where(needed, length, 1.0)  # with 1, the weight becomes 0
        basis[:, step] = torch.where(needed[:, None], fresh / length[:, None], 0.0)
        along[:, step] = (basis[:, step] * residual).sum(dim=1)
        residual = residual - along[:, step, None] * basis[:, step]
    return chosen, torch.linalg.solve_triangular(triangle, along[:, :, None], upper=True)[:, :, 0]


def _largest_product(
    residual: torch.Tensor, atoms: torch.Tensor, rough: torch.Tensor, taken: torch.Tensor
) -> torch.Tensor:
    """Return, for each residual, the unused atom with the largest absolute inner product.

    This takes nearly all of the time. If the CPU multiplies bfloat16, which is four times as fast, bfloat16 products
    give a shortlist and float32 products select the atom.
    """
    import torch

    products = (residual.to(rough.dtype) @ rough.T).abs_()
    products[torch.arange(len(taken), device=taken.device)[:, None], taken] = -1.0  # scatter_ would copy the tensor
    if rough is atoms:
        return products.argmax(dim=1)
    best, short = products.topk(min(_SHORTLIST, len(atoms)), dim=1)
    exact = torch.einsum("nd,njd->nj", residual, atoms[short]).abs().masked_fill(best < 0, -1.0)
    return short.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0]


def _multiplies_bfloat16(tensor: torch.Tensor) -> bool:
    """Whether the CPU has bfloat16 instructions; without them bfloat16 is far slower than float32."""
    import torch

    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return tensor.device.type == "cpu" and supported is not None and bool(supported())
