"""LLaVA-NeXT: which of its parameters plays which role, for checkpoints of every size (and the tiny one)."""

from __future__ import annotations

from lmmcl.models.llava_onevision import CLIP_LIKE_RULES, LLAMA_LIKE_RULES, LLAVA_RULES
from lmmcl.models.roles import RoleRule

RULES: tuple[RoleRule, ...] = LLAMA_LIKE_RULES + CLIP_LIKE_RULES + LLAVA_RULES
