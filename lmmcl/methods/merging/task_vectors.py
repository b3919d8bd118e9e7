"""What rules over task vectors τ = θ_tuned − θ_anchor share: exact arithmetic, and "the top k % of |τ|" to the entry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["model", "tensor"]
"""What a share is taken of: all entries that a fine-tune may have changed, or each tensor by itself."""


def wide(tensor: Tensor) -> Tensor:
    """As fp64 (from fp32) or fp32 (from bf16 or fp16): a difference of two weights, added back, gives the second again."""
    import torch

    return tensor.double() if tensor.dtype == torch.float32 else tensor.float()


def task_vector(anchor: Tensor, tuned: Tensor) -> Tensor:
    """τ = tuned − anchor, of their shape, wide."""
    return wide(tuned) - wide(anchor)


def summed(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of one tensor or more of one shape, oldest first."""
    return reduce(add, tensors)


def moved_by(anchor: Tensor, change: Tensor) -> Tensor:
    """anchor + change (of one shape) in the dtype of `anchor`; where `change` is zero the bits of `anchor` (−0.0 stays −0.0)."""
    import torch

    return torch.where(change == 0, anchor, (wide(anchor) + change).to(anchor.dtype))


def fused(anchor: Tensor, values: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """anchor + Σ M_t·(values_t − anchor) / max(1, Σ M_t), all of one shape: the mean of kept values (Model Tailor, several skills).

    Bit-equal to `anchor` where no mask is true and to the value where one is.
    """
    import torch

    count = torch.stack(list(masks)).sum(0)
    total = sum(wide(value) * mask for value, mask in zip(values, masks, strict=True))
    only = anchor
    for value, mask in zip(values, masks, strict=True):
        only = torch.where(mask, value, only)
    return torch.where(count > 1, (total / count.clamp(min=1)).to(anchor.dtype), only)


def how_many(share: float, total: int) -> int:
    """The largest whole number of `total` entries that is no more than `share` of them."""
    return math.floor(share * total + 1e-9)


def magnitudes_of(anchor: Tensor, tuned: Tensor) -> Tensor:
    """|tuned − anchor| in fp32: the bits of |τ| rounded to fp32, without the way through fp64."""
    return (tuned.float() - anchor.float()).abs()


def top_mask(score: Tensor, count: int) -> Tensor:
    """True at the `count` highest entries of `score`, any shape; of equal ones the first."""
    import numpy as np
    import torch

    if not count:
        return torch.zeros_like(score, dtype=torch.bool)
    flat = score.reshape(-1)
    values = flat.cpu().numpy()
    # Selecting the edge takes an eightieth of the time of a sort.
    edge = float(np.partition(values, values.size - count)[values.size - count])
    mask = flat > edge
    equal = (flat == edge).nonzero().reshape(-1)
    mask[equal[: count - int(mask.sum())]] = True
    return mask.reshape(score.shape)
