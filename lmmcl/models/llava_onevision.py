"""LLaVA-OneVision: which of its parameters plays which role, for checkpoints of every size (and the tiny one)."""

from __future__ import annotations

from lmmcl.models.roles import RoleRule

LLAMA_LIKE_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.language_model\.embed_tokens\.weight", "llm.embeddings"),
    RoleRule(
        r"model\.language_model\.layers\.(\d+)\.self_attn\.([qkvo])_proj\.(?:weight|bias)",
        r"llm.blocks.\1.attention.\2",
    ),
    RoleRule(
        r"model\.language_model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.(?:weight|bias)", r"llm.blocks.\1.mlp.\2"
    ),
    RoleRule(
        r"model\.language_model\.layers\.(\d+)\.(?:input_layernorm|post_attention_layernorm)\.weight",
        r"llm.blocks.\1.norm",
    ),
    RoleRule(r"model\.language_model\.norm\.weight", "llm.norm"),
    RoleRule(r"lm_head\.weight", "llm.head"),
)
"""The language model of all three families (Qwen2, Llama, Mistral and Qwen2.5-VL name their modules alike)."""

CLIP_LIKE_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.vision_tower\.embeddings\..+", "vision.embeddings"),
    RoleRule(r"model\.vision_tower\.encoder\.layers\.(\d+)\.self_attn\..+", r"vision.blocks.\1.attention"),
    RoleRule(r"model\.vision_tower\.encoder\.layers\.(\d+)\.mlp\..+", r"vision.blocks.\1.mlp"),
    RoleRule(r"model\.vision_tower\.encoder\.layers\.(\d+)\.layer_norm[12]\..+", r"vision.blocks.\1.norm"),
    RoleRule(r"model\.vision_tower\.(?:pre_layrnorm|post_layernorm)\..+", "vision.norm"),
    RoleRule(r"model\.vision_tower\.head\..+", "vision.other"),
)
"""SigLIP and CLIP towers. `head` is SigLIP's pooling head, which no LLaVA uses."""

LLAVA_RULES: tuple[RoleRule, ...] = (
    RoleRule(r"model\.multi_modal_projector\.linear_[12]\.(?:weight|bias)", "projector"),
    # One vector that ends a row of patches: neither the tower nor the projector of the papers' recipes holds it.
    RoleRule(r"model\.image_newline", "vision.other"),
)

RULES: tuple[RoleRule, ...] = LLAMA_LIKE_RULES + CLIP_LIKE_RULES + LLAVA_RULES
