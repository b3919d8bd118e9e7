"""Roles of experts that were added to a model, from the role of what they were added to."""

from __future__ import annotations

ROUTER = "router"


def expert_role(role: str) -> str:
    """`llm.blocks.3.mlp.gate` → `llm.blocks.3.expert.gate`; selectors likewise."""
    return ".".join(["expert" if at == 3 else part for at, part in enumerate(role.split("."))])


def router_role(role: str) -> str:
    """`llm.blocks.3.mlp.gate` → `llm.blocks.3.router`."""
    return ".".join([*role.split(".")[:3], ROUTER])
