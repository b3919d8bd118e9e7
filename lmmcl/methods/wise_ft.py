"""WiSE-FT: interpolate between the weights before and after a stage (Wortsman et al. 2022; LMM-CL section 4, α = 0.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from lmmcl.methods.mitigation import MergeMitigation

if TYPE_CHECKING:
    from torch import Tensor


class WiseFT(MergeMitigation):
    """θ ← (1 − α)·θ_previous + α·θ_tuned; the next stage starts from the merged weights."""

    name = "wise_ft"
    version = 1

    alpha: float = Field(default=0.9, ge=0, le=1)

    def merge(self, name: str, *, previous: Tensor, tuned: Tensor) -> Tensor:
        """Bit-equal to its ends at α = 0 and α = 1; computed in fp32 and returned in the dtype of `tuned`."""
        if self.alpha in (0.0, 1.0):
            return tuned if self.alpha else previous
        return previous.float().lerp(tuned.float(), self.alpha).to(tuned.dtype)


MITIGATIONS = (WiseFT,)
