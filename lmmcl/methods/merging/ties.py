"""TIES: trim the task vectors, elect a sign for each entry, average those that agree (Yadav et al. 2023, "TIES-Merging")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lmmcl.methods.merging.task_vectors import Scope, Threshold, moved_by, task_vector, top_masks, top_thresholds
from lmmcl.methods.mitigation import MergeContext, MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


def elect_and_average(trimmed: Sequence[Tensor]) -> Tensor:
    """The sign of Σ τ_t (all of one shape) for each entry (sections 3.2, 3.3); then the mean of the non-zero τ_t of that sign.

    0 where none is left or where the sum is exactly 0.
    """
    import torch

    stacked = torch.stack(list(trimmed))
    agree = stacked.sign() == stacked.sum(0).sign()
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def ties(anchor: Tensor, tuned: Sequence[Tensor], masks: Sequence[Tensor], scale: float) -> Tensor:
    """θ0 + λ·(disjoint mean of the trimmed τ_t); `masks` are true at the entries of each τ_t that are not trimmed.

    All of one shape; the result has the dtype of `anchor`.
    """
    trimmed = [task_vector(anchor, value) * mask for value, mask in zip(tuned, masks, strict=True)]
    return moved_by(anchor, scale * elect_and_average(trimmed))


class Ties(MergeMitigation["list[Threshold] | None"]):
    """`keep` is the share of each task vector that is not trimmed, of the whole model (as in the paper) or of each tensor.

    Defaults are the paper's for when nothing can be validated: keep 20 %, λ = `scale` = 1.
    """

    name = "ties"
    version = 1
    only_first = "elects signs among the fine-tunes of several skills"

    keep: float = Field(default=0.2, gt=0, le=1, description="share of each task vector that is not trimmed")
    scale: float = Field(default=1.0, gt=0, description="λ")
    scope: Scope = Field(default="model", description="what the share is taken of")
    continues_from: Literal["merged", "tuned", "base"] = "base"

    def prepare(self, context: MergeContext) -> list[Threshold] | None:
        """The trimming threshold of each task vector over the whole model."""
        return top_thresholds(context, self.keep) if self.scope == "model" else None

    def merge(self, state: list[Threshold] | None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        masks = top_masks(state, self.keep, name, anchor, tuned)
        return ties(anchor, tuned, masks, self.scale)


MITIGATIONS = (Ties,)
