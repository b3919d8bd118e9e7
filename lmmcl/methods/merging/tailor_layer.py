"""Model Tailor on one linear layer (Zhu et al. 2024, arXiv 2402.12048, section 3): which entries stay, and what they make up for.

W0 and W1 (outputs × inputs) are the weights before and after fine-tuning, X (inputs × positions) calibration inputs,
H = (2/N)·X·Xᵀ. What is lost at the layer's output by a change Δ of W1 is ‖ΔX‖² = (N/2)·Σ_rows δ·H·δᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lmmcl.methods.merging.task_vectors import how_many

if TYPE_CHECKING:
    from torch import Tensor

Compensation = Literal["none", "obs", "exact"]
Granularity = Literal["row", "block128", "layer"]
BLOCK = 128


@dataclass(frozen=True)
class Tailored:
    """The patched weight (dtype and bits of W0 where `mask` is false), and losses δ·H·δᵀ summed over rows."""

    weight: Tensor
    mask: Tensor
    loss: float
    loss_mask_only: float
    scale: float
    """w1·H·w1ᵀ summed over rows: what the losses are relative to."""


def tailor(
    before: Tensor,
    after: Tensor,
    hessian: Tensor,
    *,
    keep: float,
    salience: float,
    damping: float,
    compensation: Compensation,
    granularity: Granularity,
) -> Tailored:
    """Keep the `keep` share of `after` (W1) that matters most and compensate it; all else is `before` (W0), bit by bit.

    `hessian` is H without damping, fp64. A row whose compensation loses more than the mask alone (a sweep cannot foresee
    which later entries are reset) goes without: no row's output is further from W1·X than with the mask alone.
    """
    import torch

    old, new = before.double(), after.double()
    damped = damp(hessian, damping)
    upper = inverse_factor(damped)
    mask = choose(old, new, upper.diagonal(), keep=keep, salience=salience, granularity=granularity)
    masked = torch.where(mask, after, before)
    patched = masked
    if compensation == "obs":
        patched = torch.where(mask, obs(old, new, mask, upper).to(before.dtype), before)
    elif compensation == "exact":
        patched = torch.where(mask, exact(old, new, mask, damped).to(before.dtype), before)
    lost_masked, lost = loss(masked.double() - new, hessian), loss(patched.double() - new, hessian)
    better = lost <= lost_masked
    weight = torch.where(better[:, None], patched, masked)
    least = torch.where(better, lost, lost_masked)
    return Tailored(weight, mask, least.sum().item(), lost_masked.sum().item(), loss(new, hessian).sum().item())


def damp(hessian: Tensor, damping: float) -> Tensor:
    """H with `damping` times its mean diagonal added to the diagonal; the identity where no input ever was non-zero."""
    import torch

    eye = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    mean = hessian.diagonal().mean()
    return hessian + damping * mean * eye if mean > 0 else eye


def inverse_factor(hessian: Tensor) -> Tensor:
    """U, upper triangular with H⁻¹ = Uᵀ·U: U_jj² is entry (j, j) of the inverse of H without the inputs before j."""
    import torch

    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    return torch.linalg.cholesky(inverse, upper=True)


def choose(
    old: Tensor, new: Tensor, factor: Tensor, *, keep: float, salience: float, granularity: Granularity
) -> Tensor:
    """True at the kept entries: in each region the ⌊keep·n⌋ highest of ω·z(|W1 − W0|) + (1 − ω)·z(W1² / U_jj²).

    `factor` is the diagonal of U, `salience` ω. A region is a row, a row within 128 columns
    (as in the authors' code), or the layer.
    """
    import torch

    moved, sensitive = (new - old).abs(), new.square() / factor.square()
    mask = torch.zeros_like(moved, dtype=torch.bool)
    width = {"row": moved.shape[1], "block128": BLOCK, "layer": moved.numel()}[granularity]
    shape = (1, -1) if granularity == "layer" else moved.shape
    views = [each.reshape(shape) for each in (moved, sensitive, mask)]
    for region_moved, region_sensitive, region_mask in zip(*(view.split(width, dim=1) for view in views), strict=True):
        score = salience * standardise(region_moved) + (1 - salience) * standardise(region_sensitive)
        count = how_many(keep, score.shape[1])
        region_mask.scatter_(1, score.sort(dim=1, descending=True, stable=True).indices[:, :count], True)
    return mask


def standardise(values: Tensor) -> Tensor:
    """Each row minus its mean, over its standard deviation; zeros where all are equal."""
    centred = values - values.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / spread.masked_fill(spread == 0, 1)


def obs(old: Tensor, new: Tensor, mask: Tensor, upper: Tensor) -> Tensor:
    """One sweep over the inputs, in the manner of the optimal brain surgeon: each reset entry is made up for by those after it.

    After the reset of input j by e = (w_j − w0_j) / U_jj, all later entries move by −e·U_j,: (entries that are reset
    later, too, and then from where they have been moved to). Done in blocks, so that most of it is matrix products.
    """
    import torch

    work = new.clone()
    for start in range(0, work.shape[1], BLOCK):
        end = min(start + BLOCK, work.shape[1])
        errors = torch.zeros_like(work[:, start:end])
        for j in range(start, end):
            error = torch.where(mask[:, j], 0.0, work[:, j] - old[:, j]) / upper[j, j]
            work[:, j:end] -= error[:, None] * upper[j, j:end]
            errors[:, j - start] = error
        work[:, end:] -= errors @ upper[start:end, end:]
    return torch.where(mask, work, old)


def exact(old: Tensor, new: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    """The best values of the kept entries F given the reset ones R, row by row: Δ_F = −H_FF⁻¹·H_FR·(W0 − W1)_R."""
    import torch

    patched = torch.where(mask, new, old)
    for row, kept in enumerate(mask):
        if not kept.any() or kept.all():
            continue
        pull = hessian[kept][:, ~kept] @ (old[row, ~kept] - new[row, ~kept])
        factor = torch.linalg.cholesky(hessian[kept][:, kept])
        patched[row, kept] -= torch.cholesky_solve(pull[:, None], factor)[:, 0]
    return patched


def loss(change: Tensor, hessian: Tensor) -> Tensor:
    """δ·H·δᵀ of each row of `change`; shape (rows,)."""
    return ((change @ hessian) * change).sum(dim=1)
