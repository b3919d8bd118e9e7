"""WiSE-FT: interpolate between the weights before and after a stage (Wortsman et al. 2022; LMM-CL section 4, α = 0.9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from lmmcl.methods.mitigation import MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


def wise_ft(anchor: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    """(1 − α)·anchor + α·tuned, of one shape: bit-equal to its ends at α = 0 and 1; computed in fp32, in the dtype of `anchor`."""
    if alpha in (0.0, 1.0):
        return tuned if alpha else anchor
    return anchor.float().lerp(tuned.float(), alpha).to(anchor.dtype)


class WiseFT(MergeMitigation[None]):
    """θ ← (1 − α)·θ_anchor + α·θ_tuned.

    `continues_from: merged` (LMM-CL): the anchor is the merge of the stage before, and the next stage starts from the
    merge. `tuned`: the anchor is the pre-trained model (Wortsman et al.), and fine-tuning continues from the unmerged weights.
    """

    name = "wise_ft"
    version = 1

    alpha: float = Field(default=0.9, ge=0, le=1, description="α: 0 is the anchor, 1 the fine-tune")
    continues_from: Literal["merged", "tuned"] = "merged"

    def merge(self, state: None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        [value] = tuned
        return wise_ft(anchor, value, self.alpha)


MITIGATIONS = (WiseFT,)
