"""Adapters: parts that a recipe adds to the model and trains in place of its own weights. Here as data, checked without torch.

An adapter names its layers by role selectors (see `lmmcl.models.roles`). `version` is raised whenever the same settings would
compute something else. What is computed with them: `lmmcl.training.stage.trainable`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lmmcl.errors import UserError
from lmmcl.models.experts.expert_roles import expert_role, router_role

Shape = tuple[int, int]
"""Of a linear layer's weight: (outputs, inputs)."""
Shapes = Sequence[Shape]

ATTENTION = "llm.blocks.*.attention"
MLP = "llm.blocks.*.mlp"


class Adapter(BaseModel):
    """Settings of one kind of adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int]
    is_whole: ClassVar[bool] = False
    """Whether it changes its weights after each update, for which a worker must have them whole, and no other copy of them."""
    is_stored: ClassVar[bool] = False
    """Whether a checkpoint holds the adapter (in fp32) in place of the weights that it changes."""
    adds_experts: ClassVar[bool] = False
    """Whether what it adds stays in the model beside the weights, which it leaves as they are."""
    kind: str
    targets: tuple[str, ...] = Field(min_length=1, description="role selectors")

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

    @property
    def moves(self) -> tuple[str, ...]:
        """Selectors of what is other after a stage."""
        return self.targets

    def trained_roles(self, targets: Collection[str]) -> set[str]:
        """The roles of what trains, where `targets` are the roles that the selectors cover."""
        return set(targets)

    @abstractmethod
    def size(
        self, targets: Collection[str], counts: Mapping[str, int], shapes: Mapping[str, Shapes]
    ) -> tuple[int, int]:
        """Numbers of parameters: (those that train, those of the model that a stage changes).

        `targets` are the roles that the selectors cover; by role, `counts` are the model's parameters and `shapes` its linear
        layers. Raises UserError when the adapter does not fit them.
        """


class LinearAdapter(Adapter):
    """An adapter of linear layers, which is merged into them when a stage ends."""

    @abstractmethod
    def parameters(self, shape: Shape) -> int:
        """How many parameters train at a linear layer of `shape`; raises UserError when the adapter does not fit it."""

    def size(
        self, targets: Collection[str], counts: Mapping[str, int], shapes: Mapping[str, Shapes]
    ) -> tuple[int, int]:
        trained = written = 0
        for role in sorted(targets):
            for shape in shapes.get(role, ()):
                try:
                    trained += self.parameters(shape)
                except UserError as error:
                    raise error.at(place=role) from error
                written += shape[0] * shape[1]
        if not trained:
            raise UserError(f"no linear layer matches {', '.join(self.targets)}")
        return trained, written


class LoRA(LinearAdapter):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): W + s·B·A with A (rank × inputs) and B (outputs × rank).

    s = alpha/rank, or alpha/√rank with `rslora` (arXiv 2312.03732). `dora` also trains the norm of each
    output's weights (arXiv 2402.09353). Each stage trains a fresh adapter and ends with its merge into W (*IncLoRA*); what it
    stores is the adapter.
    """

    version: ClassVar[int] = 1
    is_stored: ClassVar[bool] = True
    kind: Literal["lora"] = "lora"
    rank: int = Field(default=256, gt=0, description="of A and B")
    alpha: float = Field(default=32, gt=0, description="the scale is alpha / rank")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="of the adapter's input")
    dora: bool = Field(default=False, description="also train the norm of each output's weights")
    rslora: bool = Field(default=False, description="the scale is alpha / √rank")
    targets: tuple[str, ...] = Field(default=(MLP,), min_length=1, description="role selectors")

    @property
    def label(self) -> str:
        return f"{'dora' if self.dora else 'lora'}-r{self.rank}"

    def parameters(self, shape: Shape) -> int:
        if self.rank > min(shape):
            raise UserError(
                f"rank {self.rank} is above what a layer of {shape[0]} × {shape[1]} can hold; allowed: 1 to {min(shape)}"
            )
        return self.rank * sum(shape) + (shape[0] if self.dora else 0)


class KappaTune(LoRA):
    """LoRA on the layers that are best conditioned alone: the `share` of the targets with the smallest κ = σ_max / σ_min.

    Weights of low κ spread what they know over all directions, and lose less of it when they move (Ludwig, KappaTune; the
    choice is that of PEFT's `KappaTuneSelector.get_best_targets(top_p)`, over the targets instead of all layers). κ is taken
    of the weights that a stage starts from, so each stage makes its own choice, and a plan gives an upper bound.
    """

    version: ClassVar[int] = 1
    kind: Literal["kappatune"] = "kappatune"  # type: ignore[assignment]
    share: float = Field(default=0.2, gt=0, le=1, description="of the targeted layers")
    targets: tuple[str, ...] = Field(default=(ATTENTION, MLP), min_length=1, description="role selectors")

    @property
    def label(self) -> str:
        return f"kappatune-{self.share:g}-{super().label}"

    @property
    def moves(self) -> tuple[str, ...]:
        return ("*",)  # something, somewhere: which of the targets train is known when a stage begins

    def chosen(self, layers: int) -> int:
        """How many of `layers` layers get an adapter."""
        return max(1, int(layers * self.share))

    def size(
        self, targets: Collection[str], counts: Mapping[str, int], shapes: Mapping[str, Shapes]
    ) -> tuple[int, int]:
        """The largest that the chosen layers can be."""
        super().size(targets, counts, shapes)
        layers = [shape for role in targets for shape in shapes.get(role, ())]
        number = self.chosen(len(layers))
        trained = sorted((self.parameters(shape) for shape in layers), reverse=True)
        written = sorted((outputs * inputs for outputs, inputs in layers), reverse=True)
        return sum(trained[:number]), sum(written[:number])


class OSF(LinearAdapter):
    """Orthogonal subspace fine-tuning (arXiv 2504.07097): W = U·S·Vᵀ; the largest singular directions stay, the rest trains.

    `preserved` is the share of the singular directions of each layer that stay. Gradients of the others are projected to be
    orthogonal to them, and so are the others themselves after each update. Each stage decomposes W again and ends with its merge
    into W.
    """

    version: ClassVar[int] = 2
    is_whole: ClassVar[bool] = True
    kind: Literal["osf"] = "osf"
    preserved: float = Field(default=0.5, gt=0, lt=1, description="share of each layer's directions that stay")
    targets: tuple[str, ...] = Field(default=(ATTENTION, MLP), min_length=1, description="role selectors")

    @property
    def label(self) -> str:
        return f"osf-{self.preserved:g}"

    def parameters(self, shape: Shape) -> int:
        stay = int(self.preserved * min(shape))
        if not stay:
            raise UserError(f"preserved {self.preserved:g} keeps nothing of a layer of {shape[0]} × {shape[1]}")
        return (min(shape) - stay) * (sum(shape) + 1)


class MoE(Adapter):
    """Two experts in place of each MLP of the language model: the frozen original and a copy that trains, mixed by a router.

    From LMM-CL (see `lmmcl.models.experts.two_experts`). One tuned expert and its router train on over all stages.
    """

    version: ClassVar[int] = 1
    adds_experts: ClassVar[bool] = True
    kind: Literal["moe"] = "moe"
    targets: tuple[str, ...] = Field(default=(MLP,), min_length=1, description="role selectors")

    @field_validator("targets")
    @classmethod
    def _whole_mlps(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [selector for selector in selectors if not re.fullmatch(r"llm\.blocks\.[^.]+\.mlp", selector)]:
            raise ValueError(f"experts are whole MLPs such as {MLP} or llm.blocks.last-4.mlp, not {', '.join(wrong)}")
        return selectors

    @property
    def label(self) -> str:
        return "moe"

    @property
    def moves(self) -> tuple[str, ...]:
        return tuple(expert_role(selector) for selector in self.targets)

    def trained_roles(self, targets: Collection[str]) -> set[str]:
        return {make(role) for role in targets for make in (expert_role, router_role)}

    def size(
        self, targets: Collection[str], counts: Mapping[str, int], shapes: Mapping[str, Shapes]
    ) -> tuple[int, int]:
        if mixed := sorted(role for role in targets if role.endswith((".routed", ".shared"))):
            raise UserError(
                f"{len(mixed)} roles are of mixtures of experts already ({mixed[0]}); allowed: models whose MLPs are dense"
            )
        hidden = {router_role(role): shapes[role][0][1] for role in targets if shapes.get(role) and "down" not in role}
        size = sum(counts[role] for role in targets) + 2 * sum(hidden.values())
        return size, size


def check_whole_adapter(adapter: Adapter | None, strategy: str) -> None:
    """Raises UserError when an adapter changes its weights after each update and a strategy divides them or their copies."""
    if adapter is not None and adapter.is_whole and strategy not in ("single", "ddp"):
        raise UserError(
            f"{adapter.kind} projects its weights after each update, and {strategy} divides them, or fp32 copies of them, among "
            "the workers; allowed with it: ddp",
            place="training.strategy",
        )
