"""SPIDER: after each update, draw every weight back to its start unless it matters more to the new skill than to the old model.

Huang et al. 2025, "Learn from Downstream and Be Yourself in Multimodal Large Language Models Fine-Tuning"
(arXiv 2411.10928), as its published code does it. For each tensor, with z standardising over its entries and σ the sigmoid:

    I = σ(z(|θ0|))            importance for what the model knew, θ0 being the start of the stage
    G = σ(z(|Σ_t g_t|))       importance for what is learnt, from the gradients of all updates so far (after clipping)
    M = G / (I + G) where G > I, else 0;  then M ← min(1, M / mean of its non-zero entries)
    θ ← θ0 + M ⊙ (θ − θ0)     after each update of Adam

A tensor (or sum of gradients) that is all zero has importance 0 everywhere; one whose entries are all alike, 1/2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from lmmcl.methods.mitigation import StageContext, TrainingMitigation

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

SUM = "gradient_sum"
"""Where the optimizer's state of a parameter keeps Σ g: saved and resumed with it."""


class Spider(TrainingMitigation["dict[str, Tensor]"]):
    """Lets move, by a soft mask after each update, what matters more to the new skill than to the old model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "spider"
    version: ClassVar[int] = 1
    copies: ClassVar[int] = 2  # the weights and the sum of gradients

    def start(self, context: StageContext) -> dict[str, Tensor]:
        """Copies of the trained parameters: θ0."""
        own = dict(context.model.named_parameters())
        return {name: own[name].detach().clone() for name in context.trained}

    def optimizer(self, state: dict[str, Tensor], model: PreTrainedModel, optimizer: Optimizer) -> None:
        """After each update: add up the gradients and draw the weights back. Takes two more copies of what trains."""
        own = dict(model.named_parameters())
        starts = {own[name]: start for name, start in state.items()}

        def draw_back(optimizer: Optimizer, *_: Any) -> None:
            for parameter, start in starts.items():
                if parameter.grad is None:
                    continue
                state = optimizer.state[parameter]
                state[SUM] = state[SUM] + parameter.grad if SUM in state else parameter.grad.clone()
                kept = soft_mask(importance(start), importance(state[SUM]))
                parameter.data.copy_(start + kept * (parameter.detach() - start))

        optimizer.register_step_post_hook(draw_back)


def importance(values: Tensor) -> Tensor:
    """σ(z(|values|)), each in (0, 1); 0 for a tensor of zeros, 1/2 where all entries are alike."""
    size = values.abs()
    if not size.any():
        return size
    spread = size.std() if size.numel() > 1 else size.new_zeros(())
    return ((size - size.mean()) / spread).sigmoid() if spread > 0 else size.new_full(size.shape, 0.5)


def soft_mask(old: Tensor, new: Tensor) -> Tensor:
    """M of the importances I and G (of one shape), in [0, 1]: how much of its way a weight may keep."""
    mask = (new / (old + new)).where(new > old, 0)
    positive = mask[mask > 0]
    return (mask / positive.mean()).clamp(max=1) if positive.numel() else mask


MITIGATIONS = (Spider,)
