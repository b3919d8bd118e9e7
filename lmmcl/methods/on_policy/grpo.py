"""GRPO, group relative policy optimization: on-policy reinforcement learning with the benchmark's metric as the reward.

Shao et al. 2024, "DeepSeekMath" (arXiv 2402.03300), with one update for each batch of answers; RL's Razor (Shenfeld, Pari, Agrawal
2025, arXiv 2509.04259) compares it with fine-tuning. For each prompt a group of G answers y_i with scores r_i:

    A_i = (r_i − mean r) / (std r + 1e-4)
    loss = − mean over prompts of 1/G Σ_i 1/|y_i| Σ_t [ π_θ(y_it) / sg π_θ(y_it) · A_i − kl · D_it ]
    D_it = exp(ρ) − ρ − 1,   ρ = log π_start(y_it) − log π_θ(y_it)

with std over G − 1 and sg for "no gradient through it": as every answer is used once, the ratio is 1 and nothing is clipped. The
probabilities are those at the sampling temperature. The stage's answers serve as references of the metric alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from lmmcl.errors import UserError
from lmmcl.methods.mitigation import StageContext
from lmmcl.methods.on_policy.on_policy import OnPolicy, by_sample, start_weights
from lmmcl.methods.on_policy.policy import Policy, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lmmcl.tasks.probes import Probe
    from lmmcl.tasks.skills import Skill

LEAST_STD = 1e-4
"""Added to the standard deviation of a group's rewards."""
PARTS = 10
"""Parts of a stage, whose mean rewards the record holds."""


class GRPO(OnPolicy):
    """Learns from the scores of the model's own answers, each against the others to the same prompt."""

    name: ClassVar[str] = "grpo"
    version: ClassVar[int] = 1
    replaces_cross_entropy: ClassVar[bool] = True
    scores_rows: ClassVar[bool] = True

    group: int = Field(default=8, ge=2, description="G, the answers to each prompt")
    kl: float = Field(
        default=0.0, ge=0, description="weight of the divergence from the start model; 0 holds no copy of it"
    )

    @property
    def drawn(self) -> int:
        return self.group

    @property
    def copies(self) -> int:  # type: ignore[override]
        """The start model, where a divergence holds to it."""
        return int(self.kl > 0)

    def check_trial(self, skills: Sequence[Skill], probes: Sequence[Probe]) -> None:
        """A judge is asked after training, and not of every sample."""
        if judged := [skill.name for skill in skills if any(own.judge for own in skill.benchmarks)]:
            raise UserError(
                f"grpo scores answers while the model trains, and the benchmark of {judged[0]} has a judge; allowed: skills with a "
                "metric"
            )

    def start(self, context: StageContext) -> dict[str, Any]:
        """Sums of rewards by part of the stage, and the start model where it is held to."""
        import torch

        state = super().start(context)
        state["counts"] |= {name: torch.zeros(PARTS, dtype=torch.float64) for name in ("rewards", "scored")}
        state["counts"]["informative"] = torch.zeros((), dtype=torch.float64)
        return state | ({"start": start_weights(context)} if self.kl else {})

    def sample_loss(self, state: dict[str, Any], policy: Policy) -> Tensor:
        """The loss of each row's group, summed over rows."""
        import torch

        samples = self.draw(state, policy)
        rewards = torch.tensor([policy.reward(sample) for sample in samples], dtype=torch.float64).view(-1, self.group)
        self._count(state, policy, rewards)
        logits = policy.logits(samples)
        spoken = _of_tokens(logits / self.temperature, samples)
        lengths = torch.tensor([len(sample.tokens) for sample in samples], device=spoken.device)
        gains = advantages(rewards).flatten().to(spoken).repeat_interleave(lengths)
        terms = -(spoken - spoken.detach()).exp() * gains
        if self.kl:
            before = policy.other_logits(samples, weights=state["start"])
            ratio = _of_tokens(before / self.temperature, samples) - spoken
            terms = terms + self.kl * (ratio.exp() - ratio - 1)
        return by_sample(terms, samples).sum() / self.group

    def _count(self, state: dict[str, Any], policy: Policy, rewards: Tensor) -> None:
        part, counts = min(PARTS - 1, PARTS * policy.update // max(1, policy.updates)), state["counts"]
        counts["rewards"][part] += rewards.double().sum()
        counts["scored"][part] += rewards.numel()
        counts["informative"] += (rewards.std(dim=1) > 0).sum()

    def findings(self, state: dict[str, Any]) -> dict[str, Any]:
        """Budget, mean reward in each tenth of the stage, and the share of groups whose answers differ in reward.

        Raises UserError where no group did: there was nothing to learn from.
        """
        counts = state["counts"]
        groups = int(counts["samples"]) // self.group
        if not counts["informative"]:
            mean = float(counts["rewards"].sum() / counts["scored"].sum())
            raise UserError(
                f"all answers of each of {groups} groups had the same reward (mean {mean:.2g}), so there was nothing to learn "
                "from: teach the skill another way first, or raise grpo.group or grpo.temperature"
            )
        means = counts["rewards"] / counts["scored"]
        return {
            **super().findings(state),
            "rewards": [round(float(mean), 4) for mean in means[counts["scored"] > 0]],
            "informative_groups": float(counts["informative"]) / groups,
        }


def advantages(rewards: Tensor) -> Tensor:
    """Of rewards (prompts, G) each against its group: (prompts, G)."""
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + LEAST_STD)


def _of_tokens(logits: Tensor, samples: Sequence[Sample]) -> Tensor:
    """The log-probabilities of the samples' tokens: (tokens,)."""
    tokens = logits.new_tensor([token for sample in samples for token in sample.tokens]).long()
    return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


MITIGATIONS = (GRPO,)
