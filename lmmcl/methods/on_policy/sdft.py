"""SDFT, self-distillation fine-tuning: the model learns on its own answers, from itself with a demonstration in view.

Shenfeld, Damani, Hübotter, Agrawal 2026, "Self-Distillation Enables Continual Learning" (arXiv 2601.19897): for each prompt x with
its demonstration c, the stage's own answer,

    y ~ π_θ(· | x),   loss = mean over the tokens of y of KL(π_θ(· | x, y_<t) ‖ π_φ(· | x, c, y_<t))

over the whole vocabulary. The teacher π_φ is an exponential moving average of the student's weights, φ ← (1 − rate)·φ + rate·θ
after every update, and has no gradient. There is no cross entropy: what the teacher does not say with the demonstration in view is
not learnt.

The paper's rates are 0.01, 0.02 and 0.05. Its objective is `reverse`; implementations differ, and `forward` is KL(π_φ ‖ π_θ). The
demonstration is shown as an earlier turn of the dialogue (question with its images, answer, and the question once more), or in
the question by a `template` of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from lmmcl.methods.mitigation import StageContext
from lmmcl.methods.on_policy.on_policy import OnPolicy, by_sample, divergences, start_weights
from lmmcl.methods.on_policy.policy import Policy
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message

if TYPE_CHECKING:
    from torch import Tensor


class SDFT(OnPolicy):
    """Learns on the model's own answers alone, from the model itself with the stage's answer shown as a demonstration."""

    name: ClassVar[str] = "sdft"
    version: ClassVar[int] = 1
    copies: ClassVar[int] = 1  # of the teacher
    replaces_cross_entropy: ClassVar[bool] = True

    samples: int = Field(default=1, ge=1, description="answers to each prompt")
    rate: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="of the teacher's moving average: 0 is the start model, 1 the model as it is",
    )
    direction: Literal["forward", "reverse"] = Field(
        default="reverse", description="KL(teacher ‖ model), or KL(model ‖ teacher)"
    )
    template: str | None = Field(
        default=None,
        description="the teacher's question, with {question} and {answer}; default: the answer as an earlier turn of the dialogue",
    )

    @field_validator("template")
    @classmethod
    def _names_both(cls, template: str | None) -> str | None:
        if template is not None and not all(f"{{{name}}}" in template for name in ("question", "answer")):
            raise ValueError("must hold {question} and {answer}")
        return template

    @property
    def drawn(self) -> int:
        return self.samples

    def start(self, context: StageContext) -> dict[str, Any]:
        """The teacher: the start model's trained weights."""
        import torch

        return {
            **super().start(context),
            "teacher": start_weights(context),
            "update": torch.zeros((), dtype=torch.int64),
        }

    def moving(self, state: dict[str, Any]) -> Mapping[str, Tensor]:
        return {"update": state["update"], **{f"teacher.{name}": value for name, value in state["teacher"].items()}}

    def sample_loss(self, state: dict[str, Any], policy: Policy) -> Tensor:
        """KL, the mean over tokens and samples of a row, summed over rows."""
        self._follow(state, policy)
        samples = self.draw(state, policy)
        shown = policy.other_logits(
            samples, weights=state["teacher"], prompt=self.demonstrated, prompt_name=f"demonstration {self.template}"
        )
        divergence = divergences(policy.logits(samples), shown, self.direction)
        return by_sample(divergence, samples).sum() / self.samples

    def _follow(self, state: dict[str, Any], policy: Policy) -> None:
        """Move the teacher towards the model once an update, before its first batch."""
        import torch

        if int(state["update"]) == policy.update:
            return
        own = dict(policy.model.named_parameters())
        with torch.no_grad():
            for name, value in state["teacher"].items():
                value.lerp_(own[name].to(value), self.rate)
        state["update"].fill_(policy.update)

    def demonstrated(self, example: Example) -> Example:
        """The example as the teacher is asked it: with its own answer in view."""
        *before, question, answer = example.messages
        bare = question.content.replace(IMAGE_PLACEHOLDER, "").strip()
        if self.template is None:
            messages = (*before, question, answer, Message("user", bare), answer)
        else:
            marks = "\n".join([IMAGE_PLACEHOLDER] * question.content.count(IMAGE_PLACEHOLDER))
            text = self.template.replace("{question}", bare).replace("{answer}", answer.content)
            messages = (*before, Message("user", f"{marks}\n{text}" if marks else text), answer)
        return replace(example, messages=messages)


MITIGATIONS = (SDFT,)
