"""Rules for the parts that families share: a language model of the Llama kind, a vision tower of the CLIP kind.

Every rule is anchored at the module that holds the part, never at a bare suffix: the vision blocks of Qwen2.5-VL have gate,
up and down projections too.
"""

from __future__ import annotations

import re

from lmmcl.models.roles import RoleRule

_BLOCK_NORMS = "input_layernorm|post_attention_layernorm|pre_feedforward_layernorm|post_feedforward_layernorm|self_attn\\.[qk]_norm"


def language_rules(module: str = "model.language_model", head: str = "lm_head") -> tuple[RoleRule, ...]:
    """The decoder at `module` (Llama, Mistral, Qwen2, Qwen3 and Gemma 3 name their parts alike) and its head.

    The norms of queries and keys (Qwen3, Gemma 3) count as norms: no recipe of attention projections means them.
    """
    at = re.escape(module)
    weights = r"\.(?:weight|bias)"
    return (
        RoleRule(rf"{at}\.embed_tokens\.weight", "llm.embeddings"),
        RoleRule(rf"{at}\.layers\.(\d+)\.self_attn\.([qkvo])_proj{weights}", r"llm.blocks.\1.attention.\2"),
        RoleRule(rf"{at}\.layers\.(\d+)\.mlp\.(gate|up|down)_proj{weights}", r"llm.blocks.\1.mlp.\2"),
        RoleRule(rf"{at}\.layers\.(\d+)\.(?:{_BLOCK_NORMS})\.weight", r"llm.blocks.\1.norm"),
        RoleRule(rf"{at}\.norm\.weight", "llm.norm"),
        RoleRule(rf"{re.escape(head)}\.weight", "llm.head"),
    )


def tower_rules(module: str = "model.vision_tower") -> tuple[RoleRule, ...]:
    """The vision tower at `module`: CLIP, SigLIP, and the ViT of BLIP. `head` is SigLIP's pooling head, which is not used."""
    at = re.escape(module)
    return (
        RoleRule(rf"{at}\.embeddings\..+", "vision.embeddings"),
        RoleRule(rf"{at}\.encoder\.layers\.(\d+)\.self_attn\..+", r"vision.blocks.\1.attention"),
        RoleRule(rf"{at}\.encoder\.layers\.(\d+)\.mlp\..+", r"vision.blocks.\1.mlp"),
        RoleRule(rf"{at}\.encoder\.layers\.(\d+)\.layer_norm[12]\..+", r"vision.blocks.\1.norm"),
        RoleRule(rf"{at}\.(?:pre_layrnorm|post_layernorm)\..+", "vision.norm"),
        RoleRule(rf"{at}\.head\..+", "vision.other"),
    )
