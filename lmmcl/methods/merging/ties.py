"""TIES: trim the task vectors, elect a sign for each entry, average those that agree (Yadav et al. 2023, "TIES-Merging")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lmmcl.methods.merging.task_vectors import Scope, how_many, magnitudes_of, moved_by, top_mask, wide
from lmmcl.methods.merging.thresholds import Threshold, top_masks, top_thresholds
from lmmcl.methods.mitigation import MergeContext, MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


CHUNK = 1 << 15
"""Entries that are merged at a time: what is worked out on the way stays in a processor's cache."""


def elect_and_average(trimmed: Tensor, *, even_is_positive: bool = False) -> Tensor:
    """The sign of Σ τ_t for each entry (sections 3.2, 3.3); then the mean of the non-zero τ_t of that sign.

    `trimmed` holds the τ_t, one a row. 0 where none is left, and where the sum is exactly 0 unless `even_is_positive`.
    """
    total = trimmed.sum(0)
    sign = (total >= 0).to(total.dtype) * 2 - 1 if even_is_positive else total.sign()
    agree = trimmed.sign() == sign
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


def ties(
    anchor: Tensor,
    tuned: Sequence[Tensor],
    masks: Sequence[Tensor],
    scale: float,
    *,
    even_is_positive: bool = False,
) -> Tensor:
    """θ0 + λ·(disjoint mean of the trimmed τ_t); `masks` are true at the entries of each τ_t that are not trimmed.

    All of one shape; the result has the dtype of `anchor`.
    """
    import torch

    start = anchor.reshape(-1)
    values, kept = [value.reshape(-1) for value in tuned], [mask.reshape(-1) for mask in masks]
    merged = torch.empty_like(start)
    for at in range(0, start.numel(), CHUNK):
        part = slice(at, at + CHUNK)
        vectors = torch.stack([wide(value[part]) for value in values])
        vectors -= wide(start[part])
        vectors *= torch.stack([mask[part] for mask in kept])
        change = elect_and_average(vectors, even_is_positive=even_is_positive)
        merged[part] = moved_by(start[part], scale * change)
    return merged.reshape(anchor.shape)


class Ties(MergeMitigation["list[Threshold] | None"]):
    """`keep` is the share of each task vector that is not trimmed, of the whole model (as in the paper) or of each tensor.

    Defaults are the paper's for when nothing can be validated: keep 20 %, λ = `scale` = 1. With `scope: tensor` all is as in
    mergekit: of each tensor at least one entry is kept, and where the τ_t cancel out exactly the positive ones are taken.
    """

    name = "ties"
    version = 1
    only_first = "elects signs among the fine-tunes of several skills"

    keep: float = Field(default=0.2, gt=0, le=1, description="share of each task vector that is not trimmed")
    scale: float = Field(default=1.0, gt=0, description="λ")
    scope: Scope = Field(default="model", description="what the share is taken of")
    continues_from: Literal["merged", "tuned", "base"] = "base"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), **({"version": 2} if self.scope == "tensor" else {})}

    def prepare(self, context: MergeContext) -> list[Threshold] | None:
        """The trimming threshold of each task vector over the whole model."""
        return top_thresholds(context, self.keep) if self.scope == "model" else None

    def merge(self, state: list[Threshold] | None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        if self.scope == "model":
            return ties(anchor, tuned, top_masks(state, self.keep, name, anchor, tuned), self.scale)
        count = min(anchor.numel(), max(1, how_many(self.keep, anchor.numel())))
        masks = [top_mask(magnitudes_of(anchor, value), count) for value in tuned]
        return ties(anchor, tuned, masks, self.scale, even_is_positive=True)


MITIGATIONS = (Ties,)
