"""MoELoRA: several LoRA adapters as experts of each linear layer, weighted for each token by a gate (CoIN, arXiv 2403.08350)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from lmmcl.errors import UserError
from lmmcl.methods.recipes.adapters import ATTENTION, MLP, Adapter, Shapes
from lmmcl.models.experts.expert_roles import expert_role, router_role


class MoELoRA(Adapter):
    """`experts` LoRA adapters of rank `rank` / `experts` each, and a softmax gate, in each layer.

    What they compute: `lmmcl.models.experts.lora_experts`. One set of experts and gates trains on over all stages; the model's own
    weights stay as they are. Defaults are those of the scripts of MLLM-CL (arXiv 2506.05453): all linear layers of the language
    model, rank 128 in all, alpha 256, dropout 0.05, 8 experts. CoIN's own code has 4 experts by default.
    """

    version: ClassVar[int] = 1
    adds_experts: ClassVar[bool] = True
    kind: Literal["moelora"] = "moelora"
    experts: int = Field(default=8, ge=2, description="of each layer")
    rank: int = Field(default=128, gt=0, description="of all experts of a layer together, a multiple of `experts`")
    alpha: float = Field(default=256, gt=0, description="the scale is alpha / rank")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="of the experts' input")
    targets: tuple[str, ...] = Field(default=(ATTENTION, MLP), min_length=1, description="role selectors")

    @field_validator("targets")
    @classmethod
    def _in_blocks(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [selector for selector in selectors if not re.fullmatch(r"llm\.blocks\.[^.]+\..+", selector)]:
            raise ValueError(f"experts are in layers of the language model such as {ATTENTION}, not {', '.join(wrong)}")
        return selectors

    @model_validator(mode="after")
    def _rank_is_shared(self) -> MoELoRA:
        if self.rank % self.experts:
            near = max(1, round(self.rank / self.experts)) * self.experts
            raise ValueError(
                f"rank {self.rank} cannot be divided by {self.experts} experts; allowed: a multiple such as {near}"
            )
        return self

    @property
    def label(self) -> str:
        return f"moelora-e{self.experts}-r{self.rank}"

    @property
    def moves(self) -> tuple[str, ...]:
        return tuple(expert_role(selector) for selector in self.targets)

    @property
    def expert_rank(self) -> int:
        """The rank of one expert."""
        return self.rank // self.experts

    @property
    def scale(self) -> float:
        """s: what each expert's output is multiplied by before its gate."""
        return self.alpha / self.rank

    def trained_roles(self, targets: Collection[str]) -> set[str]:
        return {make(role) for role in targets for make in (expert_role, router_role)}

    def size(
        self, targets: Collection[str], counts: Mapping[str, int], shapes: Mapping[str, Shapes]
    ) -> tuple[int, int]:
        layers = [(role, shape) for role in sorted(targets) for shape in shapes.get(role, ())]
        if not layers:
            raise UserError(f"no linear layer matches {', '.join(self.targets)}")
        for role, shape in layers:
            if self.expert_rank > min(shape):
                raise UserError(
                    f"experts of rank {self.expert_rank} are above what a layer of {shape[0]} × {shape[1]} can hold; allowed: "
                    f"rank up to {self.experts * min(shape)} for {self.experts} experts",
                    place=role,
                )
        size = sum(self.rank * (outputs + inputs) + self.experts * inputs for _, (outputs, inputs) in layers)
        return size, size
