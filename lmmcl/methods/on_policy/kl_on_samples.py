"""KL to the start model on answers that the model samples itself, beside the cross entropy of the stage's answers.

    loss = CE + weight · mean over prompts, samples and their tokens of KL

over the whole vocabulary, at every token of answers that the model gives to the stage's prompts as it is at that update. `reverse`
is KL(model ‖ start), whose expectation over the model's own answers is the penalty of reinforcement learning; `forward` is
KL(start ‖ model). No gradient passes through the choice of tokens. On the stage's own answers: `kl_to_start`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lmmcl.methods.mitigation import StageContext
from lmmcl.methods.on_policy.on_policy import OnPolicy, by_sample, divergences, start_weights
from lmmcl.methods.on_policy.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor


class KLOnSamples(OnPolicy):
    """Adds weight · KL between the model and the start model on the model's own answers."""

    name: ClassVar[str] = "kl_on_samples"
    version: ClassVar[int] = 1
    copies: ClassVar[int] = 1  # of the start model

    weight: float = Field(default=1.0, ge=0, description="of the divergence, in nats a token")
    direction: Literal["forward", "reverse"] = Field(
        default="reverse", description="KL(start ‖ model), or KL(model ‖ start)"
    )
    samples: int = Field(default=1, ge=1, description="answers to each prompt")

    @property
    def drawn(self) -> int:
        return self.samples

    def start(self, context: StageContext) -> dict[str, Any]:
        """The start model's trained weights."""
        return {**super().start(context), "start": start_weights(context)}

    def sample_loss(self, state: dict[str, Any], policy: Policy) -> Tensor:
        """weight · KL, the mean over tokens and samples of a row, summed over rows."""
        samples = self.draw(state, policy)
        before = policy.other_logits(samples, weights=state["start"])
        divergence = divergences(policy.logits(samples), before, self.direction)
        return self.weight * by_sample(divergence, samples).sum() / self.samples


MITIGATIONS = (KLOnSamples,)
