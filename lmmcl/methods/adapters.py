"""Adapters: parts that a recipe adds to the model and trains in place of its own weights. Here as data, checked without torch.

An adapter names its layers by role selectors (see `lmmcl.models.roles`). `version` is raised whenever the same settings would
compute something else. What is computed with them: `lmmcl.training.adapters`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lmmcl.errors import UserError

Shape = tuple[int, int]
"""Of a linear layer's weight: (outputs, inputs)."""

ATTENTION = "llm.blocks.*.attention"
MLP = "llm.blocks.*.mlp"


class Adapter(BaseModel):
    """Settings of one kind of adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int]
    kind: str
    targets: tuple[str, ...] = Field(min_length=1)

    @field_validator("targets")
    @classmethod
    def _canonical(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(selectors)))

    def identity(self) -> dict[str, Any]:
        """What enters a key."""
        return {"version": self.version, **self.model_dump(mode="json")}

    @property
    @abstractmethod
    def label(self) -> str:
        """For paths; a function of the identity alone."""

    @abstractmethod
    def parameters(self, shape: Shape) -> int:
        """How many parameters train at a linear layer of `shape`; raises UserError when the adapter does not fit it."""


class LoRA(Adapter):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): W + s·B·A with A (rank × inputs) and B (outputs × rank).

    s = alpha/rank, or alpha/√rank with `rslora` (arXiv 2312.03732). `dora` also trains the norm of each
    output's weights (arXiv 2402.09353). Each stage trains a fresh adapter and ends with its merge into W (*IncLoRA*).
    """

    version: ClassVar[int] = 1
    kind: Literal["lora"] = "lora"
    rank: int = Field(default=256, gt=0)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    dora: bool = False
    rslora: bool = False
    targets: tuple[str, ...] = Field(default=(MLP,), min_length=1)

    @property
    def label(self) -> str:
        return f"{'dora' if self.dora else 'lora'}-r{self.rank}"

    def parameters(self, shape: Shape) -> int:
        if self.rank > min(shape):
            raise UserError(
                f"rank {self.rank} is above what a layer of {shape[0]} × {shape[1]} can hold; allowed: 1 to {min(shape)}"
            )
        return self.rank * sum(shape) + (shape[0] if self.dora else 0)


class OSF(Adapter):
    """Orthogonal subspace fine-tuning (arXiv 2504.07097): W = U·S·Vᵀ; the largest singular directions stay, the rest trains.

    `preserved` is the share of the singular directions of each layer that stay; the gradients of the others are projected to be
    orthogonal to them. Each stage takes the decomposition anew and ends with its merge into W.
    """

    version: ClassVar[int] = 1
    kind: Literal["osf"] = "osf"
    preserved: float = Field(default=0.5, gt=0, lt=1)
    targets: tuple[str, ...] = Field(default=(ATTENTION, MLP), min_length=1)

    @property
    def label(self) -> str:
        return f"osf-{self.preserved:g}"

    def parameters(self, shape: Shape) -> int:
        stay = int(self.preserved * min(shape))
        if not stay:
            raise UserError(f"preserved {self.preserved:g} keeps nothing of a layer of {shape[0]} × {shape[1]}")
        return (min(shape) - stay) * (sum(shape) + 1)


KINDS: Mapping[str, type[Adapter]] = {"lora": LoRA, "osf": OSF}


def adapted_parameters(adapter: Adapter, shapes: Mapping[str, Iterable[Shape]], roles: Iterable[str]) -> int:
    """How many parameters `adapter` adds at the linear layers of `roles`, whose weights have `shapes`.

    Raises UserError when there is no linear layer among them, or one that the adapter does not fit.
    """
    total = 0
    for role in sorted(roles):
        for shape in shapes.get(role, ()):
            try:
                total += adapter.parameters(shape)
            except UserError as error:
                raise error.at(place=role) from error
    if not total:
        raise UserError(f"there is no linear layer under {', '.join(adapter.targets)}")
    return total
