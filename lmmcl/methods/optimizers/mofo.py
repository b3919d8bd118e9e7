"""MoFO, momentum-filtered optimizer: at each update only the weights with the largest momentum move.

Chen et al. 2024, "MoFO: Momentum-Filtered Optimizer for Mitigating Forgetting in LLM Fine-Tuning" (arXiv 2407.20999),
algorithm 1: Adam's moments m and v are kept for all weights, and

    θ ← θ − η · (m̂ ⊙ FLT_α(m)) / (√v̂ + ε)

where FLT_α(m) is 1 for the share α of each tensor's entries with the largest |m|, and 0 for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from lmmcl.methods.mitigation import TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel


class MoFO(TrainingMitigation[None]):
    """Updates only the weights with the largest momentum: a share `alpha` of every tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "mofo"
    version: ClassVar[int] = 1
    copies: ClassVar[int] = 1  # during an update

    alpha: float = Field(default=0.15, gt=0, le=1, description="share of each tensor's entries that an update moves")

    def optimizer(self, state: None, model: PreTrainedModel, optimizer: Optimizer) -> None:
        """Around each update: remember the weights, and put back those that the filter holds (weight decay included).

        Takes one more copy of the trained parameters, during an update. With `alpha` 1 nothing is hooked.
        """
        if self.alpha == 1:
            return
        before: dict[Tensor, Tensor] = {}

        def remember(optimizer: Optimizer, *_: Any) -> None:
            for group in optimizer.param_groups:
                before.update((p, p.detach().clone()) for p in group["params"] if p.grad is not None)

        def put_back(optimizer: Optimizer, *_: Any) -> None:
            for parameter, old in before.items():
                moved = largest(optimizer.state[parameter]["exp_avg"], self.alpha)
                old.view(-1)[moved] = parameter.detach().view(-1)[moved]
                parameter.data.copy_(old)
            before.clear()

        optimizer.register_step_pre_hook(remember)
        optimizer.register_step_post_hook(put_back)


def largest(momentum: Tensor, alpha: float) -> Tensor:
    """Positions (k,) in the flattened tensor of its `alpha` · n entries of largest magnitude, n its entries; at least one."""
    count = max(1, round(alpha * momentum.numel()))
    return momentum.abs().flatten().topk(count, sorted=False).indices


MITIGATIONS = (MoFO,)
