"""Grafting: keep the entries that fine-tuning moved most, put all others back (Panigrahi et al. 2023, "Task-Specific Skill
Localization in Fine-tuned Language Models", where |τ| starts the search for the graft; Model Tailor's baseline of that name).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lmmcl.methods.merging.task_vectors import Scope, fused
from lmmcl.methods.merging.thresholds import Threshold, top_masks, top_thresholds
from lmmcl.methods.mitigation import MergeContext, MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


class Grafting(MergeMitigation["list[Threshold] | None"]):
    """`keep` is the share of entries that keep their fine-tuned value, bit by bit; the others have the anchor's.

    Chosen by |τ| over the whole model (`scope: model`) or in each tensor apart; exactly ⌊keep·n⌋ of n. Where grafts of
    several skills meet, their mean is taken.
    """

    name = "grafting"
    version = 1

    keep: float = Field(default=0.1, gt=0, le=1, description="share of entries that keep their fine-tuned value")
    scope: Scope = Field(default="model", description="what the share is taken of")
    continues_from: Literal["merged", "tuned", "base"] = "base"

    def prepare(self, context: MergeContext) -> list[Threshold] | None:
        """The threshold of each task vector over the whole model."""
        return top_thresholds(context, self.keep) if self.scope == "model" else None

    def merge(self, state: list[Threshold] | None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        masks = top_masks(state, self.keep, name, anchor, tuned)
        return fused(anchor, tuned, masks)


MITIGATIONS = (Grafting,)
