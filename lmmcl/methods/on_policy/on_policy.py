"""What mitigations share that sample answers of the model while it trains: how many, counted how, and how losses are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from lmmcl.methods.mitigation import StageContext, TrainingMitigation
from lmmcl.methods.on_policy.policy import Policy, Sample

if TYPE_CHECKING:
    from torch import Tensor


class OnPolicy(TrainingMitigation[dict[str, Any]]):
    """Samples `samples` answers to each prompt of an update from the model as it is then.

    `counts` of its state are summed over workers: samples, generated tokens, and what a subclass adds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    needs_all_logits: ClassVar[bool] = False

    temperature: float = Field(default=1.0, gt=0, description="at which answers are sampled")
    max_new_tokens: int | None = Field(
        default=None, gt=0, description="of a sampled answer; default: that of the skill's benchmark"
    )

    @property
    def drawn(self) -> int:
        """Answers to each prompt."""
        raise NotImplementedError

    @property
    def rows_in_pass(self) -> int:
        """The answers to a prompt in one pass; where the stage's own is taught, it has a pass that is kept beside it."""
        return self.drawn + (not self.replaces_cross_entropy)

    @property
    def compares_logits(self) -> bool:
        return True

    def start(self, context: StageContext) -> dict[str, Any]:
        """Counts at 0."""
        import torch

        return {"counts": {name: torch.zeros((), dtype=torch.float64) for name in ("samples", "generated_tokens")}}

    def counts(self, state: dict[str, Any]) -> Mapping[str, Tensor]:
        return state["counts"]

    def draw(self, state: dict[str, Any], policy: Policy) -> list[Sample]:
        """Answers to the rows of a batch, counted."""
        samples = policy.sample(self.drawn, self.temperature, self.max_new_tokens)
        state["counts"]["samples"] += len(samples)
        state["counts"]["generated_tokens"] += sum(len(sample.tokens) for sample in samples)
        return samples

    def findings(self, state: dict[str, Any]) -> dict[str, Any]:
        """The budget in answers and tokens."""
        return {name: int(state["counts"][name]) for name in ("samples", "generated_tokens")}


def start_weights(context: StageContext) -> dict[str, Tensor]:
    """Copies of what trains, by name, as the stage starts."""
    own = dict(context.model.named_parameters())
    return {name: own[name].detach().clone() for name in context.trained}


def by_sample(values: Tensor, samples: Sequence[Sample]) -> Tensor:
    """The mean of `values` (all tokens,) over the tokens of each sample: (samples,)."""
    import torch

    return torch.stack([piece.mean() for piece in values.split([len(sample.tokens) for sample in samples])])


def divergences(model: Tensor, other: Tensor, direction: str) -> Tensor:
    """KL by token in nats over the whole vocabulary, of logits (tokens, vocabulary): (tokens,).

    `forward` is KL(other ‖ model), `reverse` KL(model ‖ other).
    """
    q, p = model.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1) if direction == "forward" else (q.exp() * (q - p)).sum(-1)
