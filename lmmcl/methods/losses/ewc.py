"""EWC, elastic weight consolidation: hold each weight near its start, the firmer the more it matters.

Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks" (arXiv 1612.00796), equation 3:

    loss = CE + (λ/2) · Σ F_i (θ_i − θ0_i)²

θ0 is the model at the start of the stage, F the diagonal of its empirical Fisher information, F_i = E[g_i²], with g the gradient
of the log-likelihood of one example's answer tokens (their sum): gradients are squared for each example, not for a batch. F is
divided by its mean over all trained parameters, so that λ means the same for every recipe, and what it means for L2-SP.

The paper measures F on what must not be forgotten. Of a large multimodal model's pre-training data nothing is at hand, so
`importance` says what stands for it:

- `earlier`: the skills taught before, and with them whatever `before` names: data like that of pre-training. Where there is
  neither, at stage 1, this stage's own examples serve.
- `current`: this stage's own examples at every stage, the usual stand-in where older data is gone. It says which weights the
  start model's answers to the new questions depend on; it also holds what the new skill would like to move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator

from lmmcl.errors import UserError
from lmmcl.methods.data.mixing import Sources
from lmmcl.methods.losses.start_model import answer_logits
from lmmcl.methods.mitigation import StageContext, TrainingMitigation, total
from lmmcl.methods.recipes.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from lmmcl.tasks.examples import Example

_STREAM = 13
"""Keeps these draws apart from others of the same seed."""


class EWC(TrainingMitigation["dict[str, tuple[Tensor, Tensor]]"]):
    """Elastic weight consolidation: adds (λ/2)·Σ F_i (θ_i − θ0_i)² over the trained parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str] = "ewc"
    keeps_state: ClassVar[bool] = True
    version: ClassVar[int] = 1
    copies: ClassVar[int] = 2  # the weights and their importance
    needs_all_logits: ClassVar[bool] = False

    weight: float = Field(default=1.0, ge=0, description="λ")
    importance: Literal["earlier", "current"] = Field(default="earlier", description="whose examples measure F")
    before: Sources = Field(
        default=(),
        description="skills by name, or local files, that stand for what the model knew before the first skill",
    )
    examples: int = Field(
        default=200, ge=1, description="examples that F is measured on, shared among the sources evenly"
    )

    @model_validator(mode="after")
    def _before_goes_with_earlier(self) -> EWC:
        if self.before and self.importance == "current":
            raise ValueError("before has an effect only with importance: earlier; remove it, or set that")
        return self

    @property
    def label(self) -> str:
        """`ewc(weight=10)`; sources by their names."""
        fields = type(self).model_fields
        shown = {k: getattr(self, k) for k in fields if getattr(self, k) != fields[k].default}
        if self.before:
            shown["before"] = "+".join(source.name for source in self.before)
        return f"{self.name}({','.join(f'{k}={v}' for k, v in shown.items())})" if shown else self.name

    def check_recipe(self, recipe: Recipe) -> None:
        if recipe.adapter and recipe.adapter.adds_experts:
            raise UserError(
                f"ewc measures how much the answers depend on the trained parameters, and none depends on the new experts of "
                f"{recipe.name!r} yet; allowed: recipes without experts, such as mlp or lora (with experts: l2_sp)"
            )

    def start(self, context: StageContext) -> dict[str, tuple[Tensor, Tensor]]:
        """θ0 and F of each trained parameter, by name: two tensors of its shape; F is divided by its mean over all entries."""
        own = dict(context.model.named_parameters())
        importance = fisher(context, self._measured_on(context))
        matters = sum(float(weights.double().sum()) for weights in importance.values())
        if not matters:
            raise UserError("F is 0: none of its answers depends on a trained parameter", place=self.name)
        mean = matters / sum(weights.numel() for weights in importance.values())
        return {name: (own[name].detach().clone(), weights / mean) for name, weights in importance.items()}

    def _measured_on(self, context: StageContext) -> list[Example]:
        """A random sample of every source, as even as their lengths allow."""
        older = [*self.before, *context.earlier] if self.importance == "earlier" else []
        sources = [source.load() for source in older] or [context.examples]
        chosen: list[Example] = []
        for number, source in enumerate(sources):
            share = max(1, (self.examples + number) // len(sources))
            rng = np.random.default_rng([context.seed, _STREAM, number])
            chosen += [source[int(row)] for row in rng.permutation(len(source))[:share]]
        return chosen

    def penalty(
        self, state: dict[str, tuple[Tensor, Tensor]], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """λ/2·Σ F·(θ − θ0)², a scalar: the same for every batch of an update, so that it does not depend on how it is cut."""
        own = dict(model.named_parameters())
        return (
            self.weight
            / 2
            * total((weights * (own[name] - start).square()).sum() for name, (start, weights) in state.items())
        )


def fisher(context: StageContext, examples: Sequence[Example]) -> dict[str, Tensor]:
    """E[g²] of each trained parameter over `examples`, of its shape, with g the gradient of one example's log-likelihood.

    Worker groups share the examples. A parameter without gradient has importance 0.
    """
    import torch
    from torch import distributed

    shared = distributed.is_available() and distributed.is_initialized()
    workers, rank = (distributed.get_world_size(), distributed.get_rank()) if shared else (1, 0)
    own = dict(context.model.named_parameters())
    trained = [own[name] for name in context.trained]
    squares = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
    context.model.eval()
    for example in examples[rank::workers]:
        batch = context.collate([example])
        logits, tokens, _ = answer_logits(context.forward(batch).logits, batch["labels"])
        likelihood = logits.log_softmax(dim=-1).gather(-1, tokens[:, None]).sum()
        if not likelihood.requires_grad:  # a row without an image, where only what looks at images trains
            continue
        for square, gradient in zip(squares, torch.autograd.grad(likelihood, trained, allow_unused=True), strict=True):
            if gradient is not None:
                square.addcmul_(gradient.float(), gradient.float())
    for square in squares:
        if workers > 1:
            distributed.all_reduce(square)
        square /= len(examples)
    return dict(zip(context.trained, squares, strict=True))


MITIGATIONS = (EWC,)
