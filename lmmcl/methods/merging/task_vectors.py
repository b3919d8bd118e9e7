"""What rules over task vectors τ = θ_tuned − θ_anchor share: exact arithmetic, and "the top k % of |τ|" to the entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.methods.mitigation import MergeContext

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


def top_mask(score: Tensor, count: int) -> Tensor:
    """True at the `count` highest entries of `score`, any shape; of equal ones the first."""
    import torch

    order = score.reshape(-1).sort(descending=True, stable=True).indices[:count]
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[order] = True
    return mask.reshape(score.shape)


@dataclass(frozen=True)
class Threshold:
    """The magnitude of the last entry that a share of a whole model keeps, and how many equal to it each tensor keeps."""

    magnitude: float
    ties: dict[str, int]

    def mask(self, name: str, magnitudes: Tensor) -> Tensor:
        """True at the kept entries of tensor `name`; of the shape of `magnitudes`."""
        flat = magnitudes.float().reshape(-1)
        mask = flat > self.magnitude
        equal = (flat == self.magnitude).nonzero().reshape(-1)
        mask[equal[: self.ties.get(name, 0)]] = True
        return mask.reshape(magnitudes.shape)


def find_threshold(names: Iterable[str], magnitudes: Callable[[str], Tensor], share: float) -> Threshold:
    """The threshold that keeps exactly ⌊share·n⌋ of the n entries of all tensors; equal ones by name, then by position.

    Non-negative floats sort like their bits, so two passes of counting (upper, then lower 16 bits) find the exact value
    with one tensor in memory at a time; a third pass shares out the entries equal to it.
    """
    import torch

    ordered = sorted(names)
    high, low = torch.zeros(1 << 16, dtype=torch.long), torch.zeros(1 << 16, dtype=torch.long)
    for name in ordered:
        high += torch.bincount(_bits(magnitudes(name)) >> 16, minlength=1 << 16)
    wanted = how_many(share, int(high.sum()))
    upper, above = _bin_of(high, wanted)
    for name in ordered:
        bits = _bits(magnitudes(name))
        low += torch.bincount(bits[bits >> 16 == upper] & 0xFFFF, minlength=1 << 16)
    lower, more = _bin_of(low, wanted - above)
    edge = upper << 16 | lower
    left = wanted - above - more
    ties = {}
    for name in ordered:
        ties[name] = min(left, int((_bits(magnitudes(name)) == edge).sum()))
        left -= ties[name]
    return Threshold(torch.tensor(edge, dtype=torch.int32).view(torch.float32).item(), ties)


def top_thresholds(context: MergeContext, share: float) -> list[Threshold]:
    """For each fine-tune, what keeps ⌊share·n⌋ of the n entries of all tensors that a merge touches."""

    def magnitudes(which: int) -> Callable[[str], Tensor]:
        def of(name: str) -> Tensor:
            anchor, tuned = context.read(name)
            return task_vector(anchor, tuned[which]).abs()

        return of

    return [find_threshold(context.names, magnitudes(which), share) for which in range(len(context.skills))]


def top_masks(
    thresholds: Sequence[Threshold] | None, share: float, name: str, anchor: Tensor, tuned: Sequence[Tensor]
) -> list[Tensor]:
    """For each fine-tune, true where its task vector at tensor `name` is among the top: of the model, by `thresholds` (see
    `top_thresholds`), or where these are None the `share` of this tensor."""
    sizes = [task_vector(anchor, value).abs() for value in tuned]
    if thresholds is None:
        return [top_mask(size, how_many(share, size.numel())) for size in sizes]
    return [threshold.mask(name, size) for threshold, size in zip(thresholds, sizes, strict=True)]


def _bits(magnitudes: Tensor) -> Tensor:
    import torch

    return magnitudes.float().reshape(-1).contiguous().view(torch.int32).long()


def _bin_of(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin in which the `wanted`-th highest entry lies, and how many lie in the bins above it."""
    above = counts.flip(0).cumsum(0).flip(0) - counts
    inside = int((above < max(wanted, 1)).nonzero()[0])
    return inside, int(above[inside])
