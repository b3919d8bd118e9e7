"""Experts that a recipe adds to a model: beside an MLP (`two_experts`), or LoRA adapters in a linear layer (`lora_experts`)."""

from lmmcl.models.experts.expert_roles import expert_role, router_role
from lmmcl.models.experts.grown import describe, grow, grown, roles_in

__all__ = ["describe", "expert_role", "grow", "grown", "roles_in", "router_role"]
