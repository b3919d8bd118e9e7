"""EAFT, entropy-adaptive fine-tuning: what the model is sure of pulls little, also where the answer contradicts it.

Diao et al. 2026, "Entropy-Adaptive Fine-Tuning: Resolving Confident Conflicts to Mitigate Forgetting" (arXiv 2601.02151):

    loss = − Σ_t H̃_t · log p(y_t | before),   H̃_t = H(softmax of the K largest logits) / ln K

without gradient through H̃. K is 20, as in the paper, whose published code divides by 3.0 in the place of ln 20 = 2.996 and has
the exponent `alpha`. The mean is over all answer tokens of the update, as the cross entropy's is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from lmmcl.methods.mitigation import TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor


class EAFT(TrainingMitigation[None]):
    """Weights the cross entropy of each answer token by the normalised entropy of its likeliest tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "eaft"
    version: ClassVar[int] = 1

    top_k: int = Field(default=20, ge=2, description="K, the number of largest logits whose entropy is taken")
    alpha: float = Field(default=1.0, ge=0, description="exponent of the normalised entropy; 0 is plain fine-tuning")

    def token_weights(self, state: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        """H̃^alpha, (tokens,); from 0 (sure) to 1 (all K alike). K is at most the vocabulary."""
        top = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).values.log_softmax(dim=-1)
        entropy = -(top.exp() * top).sum(dim=-1)
        return (entropy / math.log(top.shape[-1])).clamp(0, 1) ** self.alpha


MITIGATIONS = (EAFT,)
