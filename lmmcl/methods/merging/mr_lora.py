"""MR-LoRA: one LoRA expert for each skill, and a router that chooses the expert of each question (MLLM-CL, arXiv 2506.05453)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from lmmcl.errors import UserError, shown, unknown
from lmmcl.methods.mitigation import MergeMitigation
from lmmcl.tasks.routing import MOST_EXPERTS, answer_identity

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.methods.recipes.recipe import Recipe
    from lmmcl.tasks.probes import Probe
    from lmmcl.tasks.skills import Skill


class MRLoRA(MergeMitigation[None]):
    """Every skill trains an adapter of its own on the pre-trained model, and nothing is merged for answering.

    From the second skill on, a router is trained at every stage: the same recipe, on the mean of the experts, on a few examples of
    every skill, whose answer is the letter of the skill's expert. It reads each question first, held-out ones too, and the
    expert that it names answers; an answer that names no expert leaves the choice to the question's id. A skill that comes again
    has one expert, its latest. Numbers of examples and epochs and the learning rate are those of the authors' scripts, which write
    the experts' descriptions by hand: here they are the skills' own, or `descriptions`.
    """

    name = "mr_lora"
    version = 2
    routes: ClassVar[bool] = True

    examples: int = Field(default=20, gt=0, description="of each skill, that the router learns from")
    epochs: float = Field(default=40, gt=0, description="of the router's training")
    learning_rate: float = Field(default=5e-6, gt=0, description="of the router's training")
    descriptions: tuple[tuple[str, str], ...] = Field(
        default=(),
        description="how the router's prompt describes a skill, as `{skill: text}`; default the skill's own description",
    )
    continues_from: Literal["base"] = Field(default="base", description="every skill starts from the pre-trained model")

    @field_validator("descriptions", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, Mapping | tuple):
            raise ValueError(f"descriptions are a mapping such as {{birds: which bird is shown}}, not {shown(value)}")
        return tuple(sorted(value.items(), key=lambda pair: str(pair[0]))) if isinstance(value, Mapping) else value

    def identity(self) -> dict[str, Any]:
        """What enters a key: also how a router's answers are asked for and read, for they decide which expert answers."""
        return {**super().identity(), "router_answer": answer_identity()}

    @property
    def label(self) -> str:
        """`mr_lora(epochs=8)`; descriptions by the names of their skills."""
        fields = type(self).model_fields
        parts = [
            f"{k}={getattr(self, k)}"
            for k in ("examples", "epochs", "learning_rate")
            if getattr(self, k) != fields[k].default
        ]
        parts += [f"descriptions={'+'.join(name for name, _ in self.descriptions)}"] if self.descriptions else []
        return f"{self.name}({','.join(parts)})" if parts else self.name

    def check_recipe(self, recipe: Recipe) -> None:
        if recipe.adapter is None or recipe.adapter.kind != "lora":
            raise UserError(
                f"mr_lora keeps a LoRA adapter for each skill, and {recipe.name!r} trains none; allowed: recipes with LoRA, such "
                "as lora, lora_all or lora_all+projector"
            )

    def check_trial(self, skills: Sequence[Skill], probes: Sequence[Probe]) -> None:
        if len(skills) > MOST_EXPERTS:
            raise UserError(
                f"names its experts by letters, and there are {len(skills)} skills; allowed: up to {MOST_EXPERTS}"
            )
        names = [skill.name for skill in skills]
        if wrong := next((name for name, _ in self.descriptions if name not in names), None):
            raise UserError(unknown("skill", wrong, names), place="descriptions")
        if probes:
            raise UserError(
                f"answers with several experts, and a probe ({probes[0].name}) looks into a single model; allowed: a sweep "
                "without probes"
            )

    def merge(self, state: None, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        raise TypeError("mr_lora keeps its experts apart")


MITIGATIONS = (MRLoRA,)
