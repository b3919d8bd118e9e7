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
    if compensation == "obs" and granularity == "block128":
        mask, swept = obs_by_block(old, new, upper, keep=keep, salience=salience)
    else:
        mask = choose(old, new, upper.diagonal(), keep=keep, salience=salience, granularity=granularity)
        swept = obs(old, new, mask, upper) if compensation == "obs" else new
    if compensation == "exact":
        swept = exact(old, new, mask, damped)
    masked = torch.where(mask, after, before)
    patched = masked if compensation == "none" else torch.where(mask, swept.to(before.dtype), before)
    lost_masked, lost = loss(masked.double() - new, hessian), loss(patched.double() - new, hessian)
    better = lost <= lost_masked
    weight = torch.where(better[:, None], patched, masked)
    least = torch.where(better, lost, lost_masked)
    return Tailored(weight, mask, least.sum().item(), lost_masked.sum().item(), loss(new, hessian).sum().item())


def damp(hessian: Tensor, damping: float) -> Tensor:
    """H (inputs, inputs) with `damping` times its mean diagonal added to it; the identity where no input ever was non-zero."""
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
    """True at the kept entries (outputs, inputs): in each region the ⌊keep·n⌋ highest of ω·z(|W1 − W0|) + (1 − ω)·z(W1² / U_jj²).

    `factor` is the diagonal of U, `salience` ω. A region is a row, the layer, or all rows of 128 columns, where z is of each row
    by itself (as in the authors' code).
    """
    import torch

    moved, sensitive = (new - old).abs(), new.square() / factor.square()
    if granularity == "block128":
        pairs = zip(moved.split(BLOCK, dim=1), sensitive.split(BLOCK, dim=1), strict=True)
        return torch.cat(
            [highest(score_of(*pair, salience).reshape(1, -1), keep).view_as(pair[0]) for pair in pairs], dim=1
        )
    shape = (1, -1) if granularity == "layer" else moved.shape
    return highest(score_of(moved.reshape(shape), sensitive.reshape(shape), salience), keep).view_as(moved)


def score_of(moved: Tensor, sensitive: Tensor, salience: float) -> Tensor:
    """ω·z(|W1 − W0|) + (1 − ω)·z(W1² / U_jj²), (rows, entries) with z of each row."""
    return salience * standardise(moved) + (1 - salience) * standardise(sensitive)


def highest(score: Tensor, keep: float) -> Tensor:
    """True at the ⌊keep·n⌋ highest entries of each row of (rows, n); of equal ones the first."""
    import torch

    order = score.sort(dim=1, descending=True, stable=True).indices[:, : how_many(keep, score.shape[1])]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, order, True)


def standardise(values: Tensor) -> Tensor:
    """Each row of (rows, entries) minus its mean, over its standard deviation; zeros where all are equal."""
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
        _sweep(work, old, mask, upper, start)
    return torch.where(mask, work, old)


def obs_by_block(old: Tensor, new: Tensor, upper: Tensor, *, keep: float, salience: float) -> tuple[Tensor, Tensor]:
    """(mask, weight) of the sweep of the authors' code: what a block of columns keeps is chosen when the sweep comes to it.

    So the sensitivity of its entries is that of weights which make up for the blocks before already; what they moved is still
    W1 − W0.
    """
    import torch

    work, moved = new.clone(), (new - old).abs()
    mask = torch.zeros_like(moved, dtype=torch.bool)
    for start in range(0, work.shape[1], BLOCK):
        at = slice(start, start + BLOCK)
        sensitive = work[:, at].square() / upper.diagonal()[at].square()
        score = score_of(moved[:, at], sensitive, salience)
        mask[:, at] = highest(score.reshape(1, -1), keep).view_as(score)
        _sweep(work, old, mask, upper, start)
    return mask, torch.where(mask, work, old)


def _sweep(work: Tensor, old: Tensor, mask: Tensor, upper: Tensor, start: int) -> None:
    """Reset what `mask` does not keep of one block of columns in `work`, and have all later entries make up for it."""
    import torch

    end = min(start + BLOCK, work.shape[1])
    errors = torch.zeros_like(work[:, start:end])
    for j in range(start, end):
        error = torch.where(mask[:, j], 0.0, work[:, j] - old[:, j]) / upper[j, j]
        work[:, j:end] -= error[:, None] * upper[j, j:end]
        errors[:, j - start] = error
    work[:, end:] -= errors @ upper[start:end, end:]


def exact(old: Tensor, new: Tensor, mask: Tensor, hessian: Tensor) -> Tensor:
    """The best values (outputs, inputs) of kept entries F given the reset ones R, by row: Δ_F = −H_FF⁻¹·H_FR·(W0 − W1)_R."""
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
