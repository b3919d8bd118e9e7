"""DFT, dynamic fine-tuning: the less likely the model finds an answer token, the less that token pulls.

Wu et al. 2025, "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification" (arXiv 2508.05629):

    loss = − Σ_t sg(p(y_t | before)) · log p(y_t | before)

with sg for "no gradient through it". The mean is over all answer tokens of the update, as the cross entropy's is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from lmmcl.methods.mitigation import TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor


class DFT(TrainingMitigation[None]):
    """Weights the cross entropy of each answer token by the probability that the model gives it."""

    name: ClassVar[str] = "dft"
    version: ClassVar[int] = 1

    def token_weights(self, state: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        """p(token), (tokens,)."""
        return logits.softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]


MITIGATIONS = (DFT,)
