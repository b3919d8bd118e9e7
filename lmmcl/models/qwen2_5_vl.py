"""Qwen2.5-VL: which of its parameters plays which role, for checkpoints of every size (and the tiny one).

Its vision blocks have gate, up and down projections too, so rules are anchored at the module, never at a suffix.
"""

from __future__ import annotations

from lmmcl.models.llava_onevision import LLAMA_LIKE_RULES
from lmmcl.models.roles import RoleRule

VISION_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.visual\.patch_embed\..+", "vision.embeddings"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.attn\.(?:qkv|proj)\.(?:weight|bias)", r"vision.blocks.\1.attention"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.mlp\.(?:gate|up|down)_proj\.(?:weight|bias)", r"vision.blocks.\1.mlp"),
    RoleRule(r"model\.visual\.blocks\.(\d+)\.norm[12]\.weight", r"vision.blocks.\1.norm"),
    # The merger joins 2 × 2 patches and maps them into the language model: what LLaVA calls the projector.
    RoleRule(r"model\.visual\.merger\..+", "projector"),
)

RULES: tuple[RoleRule, ...] = LLAMA_LIKE_RULES + VISION_RULES
